"""`--multirun`: check all jobs before the first one starts, run them, and write a results table."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, read_write

from heteromark.commands.console import figure
from heteromark.commands.fit import FitChecker
from heteromark.commands.hydra_job import JobResult, checked_job, reserve_output_folder, train_job
from heteromark.config.compose.hydra_loader import COMMAND_LINE, Loader, command_line_overrides
from heteromark.config.compose.job import ineffective_overrides
from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.run import RunConfig
from heteromark.runs.files import write_text_atomic

log = logging.getLogger("heteromark")

TABLE_FILE = "results.csv"
_COLUMNS = {
    "number": "#",
    "overrides": "overrides",
    "status": "status",
    "final_return": "final return",
    "evaluation_return": "evaluation return",
    "frames_per_second": "frames/s",
    "digest": "run",
}


@dataclass(frozen=True)
class PlannedJob:
    """One job of a multirun: its overrides and its run config."""

    overrides: tuple[str, ...]
    config: RunConfig


def plan_jobs(master: DictConfig, loader: Loader) -> list[PlannedJob]:
    """Expand lists and ranges into all combinations, and check every job.

    Args:
        master: the composed config of the multirun.
        loader: the loader that composed it.

    Raises:
        ConfigError: all faults of all jobs. A fault of some jobs only names these jobs.
    """
    expanded = _expand(master, loader)
    planned: list[PlannedJob] = []
    faulty: dict[str, tuple[Fault, list[int]]] = {}
    per_job: list[dict[str, Fault]] = []
    checker = FitChecker()
    for number, overrides in enumerate(expanded):
        try:
            tree = loader.load_sweep_config(master, list(overrides))
            job = checked_job(tree, loader, checker)
        except ConfigError as error:
            for fault in error.faults:
                faulty.setdefault(str(fault), (fault, []))[1].append(number)
        else:
            planned.append(PlannedJob(overrides, job.run_config))
            found = ineffective_overrides(tree, loader, job)
            per_job.append({fault.key: fault for fault in found})
    faults = [_of_jobs(fault, numbers, expanded) for fault, numbers in faulty.values()]
    if not faults:  # an override without effect on one job may be meant for another one
        shared = set.intersection(*map(set, per_job))
        faults = [fault for key, fault in per_job[0].items() if key in shared]
    if faults:
        raise ConfigError(faults)
    return planned


def run_jobs(hydra: Hydra, master: DictConfig, jobs: Sequence[PlannedJob]) -> list[dict[str, Any]]:
    """Train all jobs, also after a failed one; write and return a row for each.

    Returns:
        The rows of results.csv, which is written next to Hydra's multirun.yaml.

    Raises:
        Terminated: a signal stopped the multirun; finished jobs are kept.
    """
    folder = reserve_output_folder(master, "sweep")
    with read_write(master.hydra):
        # Each job is composed again, and would get a different folder, with the current time.
        quoted = str(folder).replace("'", "\\'")
        master.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(master, folder / "multirun.yaml")
    callbacks = Callbacks(master)
    callbacks.on_multirun_start(config=master, config_name=master.hydra.job.config_name)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
        task_function=train_job,
        config=master,
    )
    returns = launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0)
    callbacks.on_multirun_end(config=master, config_name=master.hydra.job.config_name)
    rows = [_row(number, job, returns[number]) for number, job in enumerate(jobs)]
    _write_table(rows, folder / TABLE_FILE)
    log.info("table: %s", folder / TABLE_FILE)
    return rows


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the rows as aligned columns, then the reason of each failed job."""
    cells = [list(_COLUMNS.values())]
    cells += [[_cell(row[column]) for column in _COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return lines + [f"#{row['number']}: {row['reason']}" for row in rows if row["reason"]]


def _expand(master: DictConfig, loader: Loader) -> list[tuple[str, ...]]:
    """Return the overrides of each job: all combinations of the sweeper's and the typed values."""
    sweeper: Any = OmegaConf.to_container(master.hydra.sweeper, resolve=False)
    if not str(sweeper.get("_target_")).endswith(f".{BasicSweeper.__name__}"):
        message = (
            "chooses jobs while others run; use hydra/sweeper=basic, which lists all jobs first"
        )
        raise ConfigError.single(COMMAND_LINE, message, sweeper.get("_target_"), "hydra/sweeper")
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parsed = loader.parse([*params, *command_line_overrides(master)])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    if not jobs:
        raise ConfigError.single(
            COMMAND_LINE, "results in no jobs", " ".join(command_line_overrides(master))
        )
    return [tuple(job) for job in jobs]


def _of_jobs(fault: Fault, numbers: Sequence[int], jobs: Sequence[tuple[str, ...]]) -> Fault:
    """Add the numbers of the affected jobs to a fault, unless all jobs are affected."""
    if len(numbers) == len(jobs):
        return fault
    shown = ", ".join(f"#{number}" for number in numbers[:8])
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return replace(fault, message=f"{fault.message} [job {shown}{more} of {len(jobs)}]")


def _row(number: int, job: PlannedJob, returned: JobReturn) -> dict[str, Any]:
    try:
        result: JobResult = returned.return_value
    except Exception as error:
        log.error("job #%d failed", number, exc_info=error)
        result = JobResult("", Path(), error=error)
    record = result.record
    summary = record.summary if record else None
    return {
        "number": number,
        "overrides": " ".join(job.overrides),
        "status": str(record.status) if record else "failed",
        "final_return": summary and summary.final_return,
        "evaluation_return": summary and summary.evaluation_return,
        "frames_per_second": summary and summary.frames_per_second,
        "digest": result.digest,
        "folder": str(result.folder),
        "reason": record.reason if record else str(result.error).replace("\n", "; "),
    }


def _write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())


def _cell(value: Any) -> str:
    return figure(value) if value is None or isinstance(value, float) else str(value)
