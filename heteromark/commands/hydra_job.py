"""One job of the Hydra entry: check its composed config, and train its run."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from heteromark.commands.fit import FitChecker, requirement_faults
from heteromark.commands.launch import RunFailed, train_run
from heteromark.commands.progress import progress_of
from heteromark.commands.request import check_output, rounding_lines
from heteromark.config.compose.hydra_loader import Loader
from heteromark.config.compose.job import Job, job_of, locate_faults, read_job, with_tree_keys
from heteromark.config.errors import ConfigError
from heteromark.config.files import to_yaml
from heteromark.runs.digest import run_digest
from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import RunRecord
from heteromark.runs.store import StoreError

log = logging.getLogger("heteromark")

LAUNCHER_FILE = "launcher.yaml"


@dataclass(frozen=True)
class JobResult:
    """How a job ended: with a record, or with the error that stopped it."""

    digest: str
    folder: Path
    record: RunRecord | None = None
    from_store: bool = False
    error: Exception | None = None


def loader_of(hydra: Hydra) -> Loader:
    """Return the loader that `open_hydra` has set."""
    loader = hydra.config_loader
    assert isinstance(loader, Loader), "open_hydra sets a Loader"
    return loader


def checked_job(tree: DictConfig, loader: Loader, checker: FitChecker) -> Job:
    """Return the job of a composed config, after checking its values and its fit.

    Args:
        checker: checks whether the run fits the machine and its environment. Share it between
            jobs, so that each environment is created once.

    Raises:
        ConfigError: all faults, each with the location of its value.
    """
    HydraConfig.instance().set_config(tree)  # for values such as ${hydra:runtime.cwd}
    job = job_of(tree, loader)
    if faults := requirement_faults(job) or checker.faults(job.run_config):
        raise ConfigError(locate_faults(faults, tree, loader))
    return job


def train_job(tree: DictConfig) -> JobResult:
    """Train the run of a composed config, or take it from the store; Hydra's task function.

    The run's files go to the job's output folder. Expected errors are returned, not raised, so that
    the other jobs of a multirun continue.
    """
    hydra: Any = HydraConfig.get()  # at run time a DictConfig
    folder = Path(os.path.relpath(hydra.runtime.output_dir))
    config = read_job(tree).run_config
    digest = run_digest(config)
    if hydra.output_subdir is not None:
        _write_launcher(folder / hydra.output_subdir / LAUNCHER_FILE, digest)
    for line in rounding_lines(config):
        log.info(line)
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, Loader), "open_hydra sets a Loader"
    source = loader.file_of(hydra.job.config_name)
    try:
        with progress_of(config) as on_progress:
            record, from_store = train_run(
                config, config_path=source, target=folder, on_progress=on_progress
            )
    except RunFailed as error:
        return JobResult(digest, folder, error=RunFailed(with_tree_keys(str(error), tree)))
    except (ConfigError, StoreError) as error:
        return JobResult(digest, folder, error=error)
    return JobResult(digest, folder, record, from_store)


def reserve_output_folder(tree: DictConfig, section: str) -> Path:
    """Return the output folder of a run or multirun. Create it if its name contains the time.

    If two runs start in the same second, the second one gets the folder `…_2`. A folder whose name
    does not contain the time may be shared, and is returned as it is.

    Args:
        tree: the composed config; its `hydra.{section}.dir` is set to the folder.
        section: "run" or "sweep".

    Raises:
        ConfigError: the folder cannot be created.
    """
    settings = tree.hydra[section]
    wanted = Path(settings.dir)
    check_output(wanted, f"hydra.{section}.dir")
    unresolved: Any = OmegaConf.to_container(settings, resolve=False)
    if "${now:" not in unresolved["dir"]:
        return wanted
    folder = _make_unused(wanted, f"hydra.{section}.dir")
    with read_write(tree.hydra):
        settings.dir = str(folder)
    return folder


def _make_unused(wanted: Path, key: str) -> Path:
    folder = wanted
    for number in itertools.count(2):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = wanted.with_name(f"{wanted.name}_{number}")
        except OSError as error:
            message = f"cannot be created: {error.strerror}"
            raise ConfigError.single(str(wanted), message, key=key) from error
    return folder


def _write_launcher(path: Path, digest: str) -> None:
    """Write how the job was started, next to Hydra's config.yaml, hydra.yaml and overrides.yaml."""
    hydra: Any = HydraConfig.get()  # at run time a DictConfig
    content = {
        "launcher": OmegaConf.to_container(hydra.launcher),
        "job": OmegaConf.select(hydra, "job.num", default=None, throw_on_missing=False),
        "command": sys.argv,
        "working_directory": hydra.runtime.cwd,
        "host": platform.node(),
        "process": os.getpid(),
        "run": digest,
    }
    write_text_atomic(path, to_yaml(content))
