"""`heteromark sweep`: run the workflow's rules for configs named on the command line."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from heteromark.commands.request import frames_of, require_one_length, split_assignments
from heteromark.config.compose.composition import compose_run, load_params, parse_overrides
from heteromark.config.compose.layers import resolve_sweep
from heteromark.config.errors import ConfigError, naming_options
from heteromark.config.fields import Mode
from heteromark.config.nested import flatten, merge, unflatten
from heteromark.runs.digest import run_digest
from heteromark.runs.record import RECORD_FILE
from heteromark.runs.store import RunStore
from heteromark.workflow.errors import WorkflowError
from heteromark.workflow.plan import Candidate, Plan, make_plan


def sweep_overrides(
    patterns: Sequence[str],
    mode: str,
    episodes: int | None = None,
    total_frames: int | None = None,
    base_config: Path | None = None,
    environment: str | None = None,
    assignments: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options of `heteromark sweep` as overrides of params.yaml.

    Returns:
        The nested overrides, and the option that set each, by dotted key.

    Raises:
        ConfigError: the mode or a key is unknown, or `episodes` is given for an environment whose
            episodes have no fixed length.
    """
    _checked_mode(mode)
    require_one_length(episodes, total_frames)
    assigned = split_assignments(parse_overrides(list(assignments)))
    if assigned.components:
        raise ConfigError.single(
            "--set",
            "is a component; a sweep reads components from config/, so change it there",
            next(iter(assigned.components)),
        )
    by_set = flatten(merge(assigned.params, assigned.hyperparameters))
    options = {
        "CONFIGS": ("sweep.agents", list(patterns) or None),
        "--base-config": ("sweep.base_config", base_config and str(base_config)),
        "--environment": ("sweep.environment", environment),
        "--total-timesteps": (f"{mode}.total_frames", total_frames),
    }
    by_option = {key: value for key, value in options.values() if value is not None}
    overrides = unflatten({**by_set, **by_option})
    typed = dict.fromkeys(by_set, "--set")
    typed |= {key: option for option, (key, value) in options.items() if value is not None}
    if episodes is not None:
        typed[f"{mode}.total_frames"] = "--episodes"
        with naming_options(typed):
            frames = _frames_of(episodes, overrides)
        overrides = merge(overrides, {mode: {"total_frames": frames}})
    return overrides, typed


def run_sweep(
    overrides: dict[str, Any],
    typed: Mapping[str, str],
    mode: str,
    cores: int | None = None,
    dry_run: bool = False,
) -> int:
    """Run the whole sweep with Snakemake and print its table; return the exit status.

    The sweep is always a grid, whatever params.yaml says: halving needs the rules that decide after
    each rung.

    Args:
        overrides, typed: the result of `sweep_overrides`.
        mode: smoke or full.
        cores: CPU cores for Snakemake; None: all.
        dry_run: only print what would run.

    Raises:
        ConfigError: a config is invalid; nothing has run yet.
        WorkflowError: there is no Snakefile here.
    """
    from heteromark.workflow.aggregate import MISSING, aggregate
    from heteromark.workflow.display import describe_frames, table_lines

    if not Path("Snakefile").is_file():
        raise WorkflowError("no Snakefile found; run this command in the project's folder")
    strategy = overrides.get("sweep", {}).get("strategy", "grid")
    if strategy != "grid":
        message = "is not supported by heteromark sweep: set it in params.yaml and run snakemake"
        raise ConfigError.single("--set", message, strategy, "sweep.strategy")
    overrides = merge(overrides, {"sweep": {"strategy": "grid"}})
    plan = make_plan(overrides=overrides, typed=typed)
    checked = _checked_mode(mode)
    candidates = plan.candidates(checked)
    folders = [folder for candidate in candidates for folder in candidate.folders.values()]
    frames = describe_frames(plan.params.budget(checked).total_frames, candidates)
    print(f"{len(candidates)} configs, {len(folders)} {mode} runs of {frames}", flush=True)
    is_chatty = logging.getLogger("heteromark").isEnabledFor(logging.INFO)
    arguments = [
        *("--cores", str(cores) if cores else "all"),
        *("--keep-going", "--ignore-incomplete", "--quiet", "rules" if is_chatty else "all"),
        *(["--dry-run"] if dry_run else []),
        *(["--config", *config_arguments(overrides)] if overrides else []),
        "--",
        *(str(folder / RECORD_FILE) for folder in folders),
    ]
    status = snakemake(arguments)
    if dry_run:
        return status
    tables = aggregate([_with_store_folders(plan, candidate, checked) for candidate in candidates])
    if status and (tables.runs["status"] == MISSING).all():
        raise WorkflowError("Snakemake started no run; see its message above")
    for line in table_lines(tables):
        print(line)
    if status:
        print("some runs failed: see the reasons above and the logs in logs/", file=sys.stderr)
    return 1 if status else 0


def config_arguments(overrides: dict[str, Any]) -> list[str]:
    """Return nested overrides as values of Snakemake's `--config`, as the Snakefile reads them."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def snakemake(arguments: Sequence[str]) -> int:
    """Run Snakemake in the current folder with this Python; return its exit status.

    On SIGINT or SIGTERM, interrupt Snakemake and its jobs, and wait until they have written their
    records and released the lock.
    """
    # Start a new process group, so that Ctrl-C does not reach Snakemake directly. `interrupt` sends
    # the signal once to Snakemake and all its jobs; otherwise Snakemake would wait for its jobs.
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments], start_new_session=True
    )

    def interrupt(_number: int, _frame: object) -> None:
        os.killpg(process.pid, signal.SIGINT)

    earlier = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return process.wait()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _checked_mode(name: str) -> Mode:
    """Return a mode by name.

    Raises:
        ConfigError: there is no such mode.
    """
    modes: tuple[Mode, ...] = get_args(Mode)
    for mode in modes:
        if mode == name:
            return mode
    raise ConfigError.single("--mode", f"must be one of {', '.join(modes)}", name)


def _frames_of(episodes: int, overrides: dict[str, Any]) -> int:
    params = load_params(overrides=overrides)
    base = Path(params.sweep.base_config) if params.sweep.base_config else None
    first = resolve_sweep(params.sweep.agents, params, base=base, must_reach=())[0]
    config = compose_run(first.agent, params, "smoke", 0, agent_file=str(first.path))
    return frames_of(episodes, config.environment)


def _with_store_folders(plan: Plan, candidate: Candidate, mode: Mode) -> Candidate:
    """Replace run folders missing in results/ by their folders in the store.

    The store has the records of failed runs, with the reasons.
    """
    store = RunStore()
    agent = next(c.agent for c in plan.configs if candidate in c.candidates(mode))
    folders = {
        seed: folder
        if (folder / RECORD_FILE).is_file()
        else store.folder(run_digest(compose_run(agent, plan.params, mode, seed)))
        for seed, folder in candidate.folders.items()
    }
    return replace(candidate, folders=folders)
