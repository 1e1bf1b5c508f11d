"""`python -m heteromark.training.factory_train`: train a config that Hydra composes from config/.

Uses the same validation, run store and records as `heteromark train`. Each run also gets a folder
below outputs/ with the run's files and the composed config.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, read_write

from heteromark.commands.console import exit_on_expected_errors, outcome_lines, prepare_process
from heteromark.commands.fit import FitChecker
from heteromark.commands.hydra_job import (
    JobResult,
    checked_job,
    loader_of,
    reserve_output_folder,
    train_job,
)
from heteromark.commands.launch import RunFailed
from heteromark.commands.multirun import PlannedJob, plan_jobs, run_jobs, table_lines
from heteromark.config.compose.composition import CONFIG_FOLDER
from heteromark.config.compose.hydra_loader import as_config_errors, open_hydra
from heteromark.config.compose.job import ineffective_overrides, job_of
from heteromark.config.errors import ConfigError
from heteromark.config.files import to_yaml

DEFAULT_CONFIG = "dummy_config"
_INFO = ("all", "config", "config-groups", "defaults", "defaults-tree", "plugins", "searchpath")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Raises:
        ConfigError: all faults in the command line and the configs; nothing was run.
        RunFailed, StoreError, Terminated: see `launch.train_run`.
    """
    options = _parser().parse_intermixed_args(arguments)
    hydra = open_hydra(options.config_path, options.config_dir)
    name, overrides = options.config_name, options.overrides
    if options.help or options.hydra_help or options.cfg or options.info:
        with as_config_errors():
            _show(hydra, options)
        return 0
    prepare_process()
    mode = RunMode.MULTIRUN if options.multirun else RunMode.RUN
    tree = hydra.compose_config(name, overrides, mode)
    if tree.hydra.mode is RunMode.MULTIRUN and mode is RunMode.RUN:  # set by a config file
        mode = RunMode.MULTIRUN
        tree = hydra.compose_config(name, overrides, mode)
    with read_write(tree.hydra):
        tree.hydra.mode = mode
    if mode is RunMode.MULTIRUN:
        return _run_many(hydra, tree, options.dry_run)
    return _run_one(hydra, tree, options.dry_run)


def _run_one(hydra: Hydra, tree: DictConfig, dry_run: bool) -> int:
    loader = loader_of(hydra)
    job = checked_job(tree, loader, FitChecker())
    if ineffective := list(ineffective_overrides(tree, loader, job)):
        raise ConfigError(ineffective)
    if dry_run:
        from heteromark.commands.dry_run import plan_lines

        print(to_yaml(job.recorded()), end="")
        for line in plan_lines(job.run_config):
            print(f"# {line}")
        return 0
    reserve_output_folder(tree, "run")
    callbacks = Callbacks(tree)
    callbacks.on_run_start(config=tree, config_name=tree.hydra.job.config_name)
    returned = run_job(
        hydra_context=HydraContext(config_loader=loader, callbacks=callbacks),
        task_function=train_job,
        config=tree,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
    )
    callbacks.on_run_end(config=tree, config_name=tree.hydra.job.config_name, job_return=returned)
    result: JobResult = returned.return_value
    if result.error:
        raise result.error
    assert result.record is not None, "a job without an error has a record"
    print("\n".join(outcome_lines(result.record, result.from_store, result.folder)))
    return 0


def _run_many(hydra: Hydra, master: DictConfig, dry_run: bool) -> int:
    jobs = plan_jobs(master, loader_of(hydra))
    if dry_run:
        return _plan_many(jobs)
    rows = run_jobs(hydra, master, jobs)
    print("\n".join(table_lines(rows)))
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _plan_many(jobs: Sequence[PlannedJob]) -> int:
    from heteromark.commands.dry_run import plan_lines

    failed = False
    for number, job in enumerate(jobs):
        print(f"job #{number}: {' '.join(job.overrides)}")
        try:
            for line in plan_lines(job.config):
                print(f"  {line}")
        except (ConfigError, RunFailed) as error:
            print(f"  {error}")
            failed = True
    return 1 if failed else 0


def _show(hydra: Hydra, options: argparse.Namespace) -> None:
    """Print the help, the config or the information that was requested."""
    name, overrides = options.config_name, options.overrides
    if options.help:
        hydra.app_help(config_name=name, args_parser=_parser(), args=options)
    elif options.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=_parser(), args=options)
    elif options.cfg:
        hydra.show_cfg(name, overrides, options.cfg, options.package, options.resolve)
        tree = hydra.compose_config(name, overrides, RunMode.RUN)
        job_of(tree, loader_of(hydra))  # report faults, after printing the config as it is
    elif options.info == "config-groups":
        for group, choices in loader_of(hydra).groups().items():
            print(f"{group}: {', '.join(choices)}")
    else:
        hydra.show_info(options.info, config_name=name, overrides=overrides)


def _parser() -> argparse.ArgumentParser:
    """Return a parser with the Hydra options that apply here, and --dry-run."""
    parser = argparse.ArgumentParser(add_help=False, prog="factory_train")
    parser.add_argument("overrides", nargs="*", help="any number of key=value and group=option")
    flags = {
        ("--help", "-h"): "print this help",
        ("--dry-run", "-n"): "check the config, print it and what would run; train nothing",
        ("--multirun", "-m"): "run every combination of lists and ranges, e.g. seed=0,1,2",
        ("--resolve",): "with --cfg: resolve references",
        ("--hydra-help",): "print the help for Hydra's settings",
    }
    for names, text in flags.items():
        parser.add_argument(*names, action="store_true", help=text)
    parser.add_argument(
        "--config-name",
        "-cn",
        default=DEFAULT_CONFIG,
        help=f"file in config/; default: {DEFAULT_CONFIG}",
    )
    parser.add_argument(
        "--config-path",
        "-cp",
        type=Path,
        default=Path(CONFIG_FOLDER),
        help=f"folder to use instead of {CONFIG_FOLDER}/",
    )
    parser.add_argument(
        "--config-dir", "-cd", type=Path, help="additional folder of configs and options"
    )
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"), help="print the config")
    parser.add_argument("--package", "-p", help="with --cfg: print only this part")
    parser.add_argument(
        "--info",
        "-i",
        nargs="?",
        const="all",
        choices=_INFO,
        help=f"print how the config is composed: {', '.join(_INFO)}",
    )
    return parser


if __name__ == "__main__":
    with exit_on_expected_errors():
        sys.exit(main())
