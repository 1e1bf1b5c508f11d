"""`heteromark sweep`: the workflow's own rules, for configs named on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heteromark.commands.request import MODES, frames_of, require_one_length, split_assignments
from heteromark.config.compose.composition import compose_run, load_params, parse_overrides
from heteromark.config.compose.layers import resolve_sweep
from heteromark.config.errors import ConfigError, naming_options
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
    """The sweep's options as overrides of params.yaml.

    Returns:
        The overrides, nested, and the option that gave each, by its dotted key.

    Raises:
        ConfigError: an unknown mode or key, or episodes for an environment of unknown length.
    """
    if mode not in MODES:
        raise ConfigError.single("--mode", f"must be one of {', '.join(MODES)}", mode)
    require_one_length(episodes, total_frames)
    assigned = split_assignments(parse_overrides(list(assignments)))
    if assigned.components:
        raise ConfigError.single(
            "--set",
            "is a component, which a sweep takes from config/; change it there",
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
    """Run the whole sweep through Snakemake and print its table; returns the exit status.

    `overrides` and `typed` are those of `sweep_overrides`.

    Whatever params.yaml says, this is a grid: halving judges between its rungs, by other rules.

    Raises:
        ConfigError: before anything runs.
        WorkflowError: there is no Snakefile here.
    """
    from heteromark.workflow.aggregate import MISSING, aggregate
    from heteromark.workflow.display import frames_words, table_lines

    if not Path("Snakefile").is_file():
        raise WorkflowError("there is no Snakefile here; run this in the project's folder")
    strategy = overrides.get("sweep", {}).get("strategy", "grid")
    if strategy != "grid":
        message = "is for the whole workflow: set it in params.yaml, and run snakemake"
        raise ConfigError.single("--set", message, strategy, "sweep.strategy")
    overrides = merge(overrides, {"sweep": {"strategy": "grid"}})
    plan = make_plan(overrides=overrides, typed=typed)
    candidates = plan.candidates(mode)
    folders = [folder for candidate in candidates for folder in candidate.folders.values()]
    frames = frames_words(plan.params.budget(mode).total_frames, candidates)
    print(f"{len(candidates)} configs, {len(folders)} {mode} runs of {frames}", flush=True)
    arguments = [
        *("--cores", str(cores) if cores else "all"),
        *("--keep-going", "--rerun-incomplete", "--quiet", "rules"),
        *(["--dry-run"] if dry_run else []),
        *(["--config", *config_arguments(overrides)] if overrides else []),
        "--",
        *(str(folder / RECORD_FILE) for folder in folders),
    ]
    status = snakemake(arguments)
    if dry_run:
        return status
    tables = aggregate([_with_store_folders(plan, candidate, mode) for candidate in candidates])
    if status and (tables.runs["status"] == MISSING).all():
        raise WorkflowError("Snakemake did not run anything; its message is above")
    for line in table_lines(tables):
        print(line)
    if status:
        print("some runs failed; their reasons are above, their logs in logs/", file=sys.stderr)
    return 1 if status else 0


def config_arguments(overrides: dict[str, Any]) -> list[str]:
    """Nested overrides as values of Snakemake's `--config`, which the Snakefile merges back."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def snakemake(arguments: Sequence[str]) -> int:
    """Run Snakemake here, with this Python; returns its exit status.

    Interrupted or terminated, it interrupts Snakemake and its jobs, and waits until they have
    written their records and freed the lock.
    """
    # A process group of its own: Ctrl-C reaches it once, by this function, with all its jobs.
    # Snakemake alone would wait for its jobs' ends.
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


def _frames_of(episodes: int, overrides: dict[str, Any]) -> int:
    params = load_params(overrides=overrides)
    base = Path(params.sweep.base_config) if params.sweep.base_config else None
    first = resolve_sweep(params.sweep.agents, params, base=base, must_reach=())[0]
    config = compose_run(first.agent, params, "smoke", 0, agent_file=str(first.path))
    return frames_of(episodes, config.environment)


def _with_store_folders(plan: Plan, candidate: Candidate, mode: str) -> Candidate:
    """Look into the store for runs that left nothing in results/, to tell why they failed."""
    store = RunStore()
    agent = next(c.agent for c in plan.configs if candidate in c.candidates(mode))
    folders = {
        seed: folder
        if (folder / RECORD_FILE).is_file()
        else store.folder(run_digest(compose_run(agent, plan.params, mode, seed)))
        for seed, folder in candidate.folders.items()
    }
    return replace(candidate, folders=folders)
