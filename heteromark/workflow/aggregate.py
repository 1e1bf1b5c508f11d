"""The tables of a sweep: its runs, its configs and their learning curves.

`aggregate` reads run folders and computes the tables. `write_tables` and `read_tables` keep them in
`results/tables/`. A missing folder, a corrupt file or a failed run raises no error: its row gives
the status and the reason. Identical run folders give identical bytes.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import METRICS_FILE, RECORD_FILE, STUB, RunRecord, Status
from heteromark.workflow.plan import Candidate
from heteromark.workflow.stability import Curve, judge_stability, last_half_trend
from heteromark.workflow.statistics import bootstrap_interval, coefficient_of_variation, score

# Statuses of a run folder that is itself at fault, in addition to the values of `Status`.
MISSING = "missing"
CORRUPT = "corrupt"

KEY_HYPERPARAMETERS = {
    "learning_rate": "float64",
    "gamma": "float64",
    "n_steps": "Int64",
    "batch_size": "Int64",
    "n_epochs": "Int64",
}

# Column -> dtype, in file order. Int64 and str allow missing values; returns are rewards
# per episode; slopes are per 1,000 frames (see `stability.Trend`); durations are in seconds.
RUNS_COLUMNS = {
    "config": "str",
    "config_digest": "str",
    "agent_id": "str",
    "algorithm": "str",
    "environment": "str",
    "seed": "Int64",
    "status": "str",
    "reason": "str",
    "frames": "Int64",
    "final_return": "float64",
    "evaluation_return": "float64",
    "win_rate": "float64",
    "slope": "float64",
    "frames_per_second": "float64",
    "duration_seconds": "float64",
}
# Numeric columns are means over the completed seeds, except the IQM of evaluation_return with its
# 95 % interval, and the coefficient of variation of evaluation_return.
SUMMARY_COLUMNS = {
    "config": "str",
    "config_digest": "str",
    "algorithm": "str",
    "seeds": "Int64",
    "completed": "Int64",
    "frames": "Int64",
    "statuses": "str",
    "final_return": "float64",
    "evaluation_return": "float64",
    "iqm": "float64",
    "iqm_low": "float64",
    "iqm_high": "float64",
    "win_rate": "float64",
    "slope": "float64",
    "coefficient_of_variation": "float64",
    "frames_per_second": "float64",
    "verdict": "str",
    "reason": "str",
    **KEY_HYPERPARAMETERS,
}
# Mean training return of the completed seeds at each frame, unsmoothed; low and high are the
# bootstrap 95 % interval of that mean (two or three seeds: their range; one seed: empty).
CURVES_COLUMNS = {
    "config": "str",
    "frames": "Int64",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
    "seeds": "Int64",
}


@dataclass(frozen=True, eq=False)
class Tables:
    """The results of a sweep; columns in `RUNS_COLUMNS`, `SUMMARY_COLUMNS`, `CURVES_COLUMNS`."""

    runs: pd.DataFrame  # one row per config and seed
    summary: pd.DataFrame  # one row per config, in plan order
    curves: pd.DataFrame  # one row per config and frame
    metrics: dict[str, Any]  # for `dvc metrics`: independent of the machine's speed


@dataclass(frozen=True)
class _Run:
    """The content of one run folder."""

    seed: int
    status: str
    reason: str | None = None
    record: RunRecord | None = None
    curve: Curve | None = None  # of a completed run


def aggregate(candidates: Sequence[Candidate]) -> Tables:
    """Read every run of the sweep and compute its tables.

    The figures of a run come from its `run.json`, its curve from `metrics.csv`. The summary and the
    curves include only completed runs.
    """
    sweep = [
        (candidate, [_read_run(folder, seed) for seed, folder in sorted(candidate.folders.items())])
        for candidate in candidates
    ]
    rows = [_run_row(candidate, run) for candidate, runs in sweep for run in runs]
    runs_table = _table(rows, RUNS_COLUMNS)
    summary = _table(
        [
            _summary_row(candidate, runs, runs_table[runs_table["config"] == candidate.label])
            for candidate, runs in sweep
        ],
        SUMMARY_COLUMNS,
    )
    curves = _table(
        [row for candidate, runs in sweep for row in _curve_rows(candidate, runs)], CURVES_COLUMNS
    )
    return Tables(runs_table, summary, curves, _metrics(candidates, summary))


def write_tables(tables: Tables, folder: Path) -> None:
    """Write `runs.csv`, `summary.csv`, `curves.csv` and `metrics.json`, each atomically."""
    folder = Path(folder)
    for name in ("runs", "summary", "curves"):
        text = getattr(tables, name).to_csv(index=False, lineterminator="\n")
        write_text_atomic(folder / f"{name}.csv", text)
    metrics = json.dumps(tables.metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_text_atomic(folder / "metrics.json", metrics)


def read_tables(folder: Path) -> Tables:
    """Read the tables that `write_tables` wrote, bit for bit (pandas 3.1 parses floats exactly).

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a file is not a valid table.
    """
    folder = Path(folder)

    def read(name: str, columns: dict[str, str]) -> pd.DataFrame:
        return pd.read_csv(
            folder / f"{name}.csv",
            usecols=list(columns),
            dtype=columns,
            # A config may be named "nan" or "None"; only an empty cell means a missing value.
            keep_default_na=False,
            na_values=[""],
        )

    return Tables(
        read("runs", RUNS_COLUMNS),
        read("summary", SUMMARY_COLUMNS),
        read("curves", CURVES_COLUMNS),
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
    )


# --- from a run folder ------------------------------------------------------------------------


def _read_run(folder: Path, seed: int) -> _Run:
    name = Path(folder).as_posix()
    try:
        record = RunRecord.read(folder)
    except FileNotFoundError:
        return _Run(seed, MISSING, f"no {RECORD_FILE} in {name}: its job failed or never started")
    except (OSError, ValueError) as error:
        return _Run(seed, CORRUPT, f"{name}/{RECORD_FILE}: {describe_error(error)}")
    if record.seed != seed:
        return _Run(seed, CORRUPT, f"{name}/{RECORD_FILE} is of seed {record.seed}, not {seed}")
    if record.status != Status.COMPLETED:
        return _Run(seed, record.status.value, record.reason, record)
    try:
        curve = _read_curve(Path(folder) / METRICS_FILE)
    except (OSError, ValueError) as error:
        return _Run(seed, CORRUPT, f"{name}/{METRICS_FILE}: {describe_error(error)}", record)
    return _Run(seed, record.status.value, record.reason, record, curve)


def _read_curve(path: Path) -> Curve:
    """Return the learning curve of a metrics.csv, without iterations in which no episode ended."""
    columns = ["frames", "episode_return"]
    table = pd.read_csv(path, usecols=columns, dtype="float64")
    frames, returns = (table[column].to_numpy() for column in columns)
    if not (np.diff(frames, prepend=0) > 0).all():
        raise ValueError("frames do not increase from row to row")
    measured = np.isfinite(returns)
    return Curve(frames[measured], returns[measured])


def describe_error(error: Exception) -> str:
    """Return the error as one line, because reasons are cells of a table."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        return f"{field}: {fault['msg']}" if field else fault["msg"]
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())


# --- from runs to rows ------------------------------------------------------------------------


def _table(
    rows: list[dict[str, Any]] | list[tuple[Any, ...]], columns: dict[str, str]
) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns), dtype=object).astype(columns)


def _run_row(candidate: Candidate, run: _Run) -> dict[str, Any]:
    row: dict[str, Any] = {
        "config": candidate.label,
        "config_digest": candidate.config_digest,
        "agent_id": candidate.agent_id,
        "algorithm": candidate.hyperparameters["algorithm"],
        "environment": candidate.environment,
        "seed": run.seed,
        "status": run.status,
        "reason": run.reason,
    }
    if run.record is not None:
        summary = run.record.summary
        row |= {
            "frames": summary.frames,
            "final_return": _finite(summary.final_return),
            "evaluation_return": _finite(summary.evaluation_return),
            "win_rate": _finite(summary.evaluation_win_rate),
            "frames_per_second": _finite(summary.frames_per_second),
            "duration_seconds": _finite(run.record.duration_seconds),
        }
    if run.curve is not None:
        trend = last_half_trend(run.curve)
        row["slope"] = None if trend is None else trend.slope
    return row


def _summary_row(candidate: Candidate, runs: Sequence[_Run], rows: pd.DataFrame) -> dict[str, Any]:
    """Return a row of the summary table; `rows` are the rows of the runs table for `runs`."""
    completed = rows[rows["status"] == Status.COMPLETED]
    means = ("final_return", "evaluation_return", "win_rate", "slope", "frames_per_second")
    evaluation_returns = completed["evaluation_return"].dropna().to_numpy()
    low, high = bootstrap_interval(evaluation_returns, "iqm") or (None, None)
    stability = judge_stability(
        [run.curve for run in runs if run.curve is not None],
        seeds=len(runs),
        diverged={
            run.seed: run.reason or "no reason recorded"
            for run in runs
            if run.status == Status.DIVERGED
        },
    )
    is_invented = any(run.record is not None and run.record.trainer == STUB for run in runs)
    return {
        "config": candidate.label,
        "config_digest": candidate.config_digest,
        "algorithm": candidate.hyperparameters.get("algorithm"),
        "seeds": len(runs),
        "completed": len(completed),
        "frames": candidate.frames,
        "statuses": _describe_counts(run.status for run in runs),
        **{column: score(completed[column].dropna(), "mean") for column in means},
        "iqm": score(evaluation_returns, "iqm"),
        "iqm_low": low,
        "iqm_high": high,
        "coefficient_of_variation": coefficient_of_variation(evaluation_returns),
        "verdict": stability.verdict.value,
        "reason": f"stub trainer, invented: {stability.reason}"
        if is_invented
        else stability.reason,
        **{key: candidate.hyperparameters.get(key) for key in KEY_HYPERPARAMETERS},
    }


def _curve_rows(candidate: Candidate, runs: Sequence[_Run]) -> list[tuple[Any, ...]]:
    """Return rows of the curves table, in the order of its columns."""
    returns_at: defaultdict[float, list[float]] = defaultdict(list)
    for run in runs:
        if run.curve is not None:
            for frame, value in zip(*run.curve, strict=True):
                returns_at[frame].append(value)
    rows = []
    for frame, returns in sorted(returns_at.items()):
        low, high = bootstrap_interval(returns, "mean") or (None, None)
        mean, seeds = score(returns, "mean"), len(returns)
        rows.append((candidate.label, int(frame), mean, low, high, seeds))
    return rows


def _metrics(candidates: Sequence[Candidate], summary: pd.DataFrame) -> dict[str, Any]:
    """Return the score of each config, for `dvc metrics diff`; summary.csv has the other figures.

    A config with several names has an entry for each, so that a variant keeps its key when it
    equals its base.
    """
    returns = {
        name: _finite(value)
        for candidate, value in zip(candidates, summary["iqm"], strict=True)
        for name in candidate.names
    }
    best = _finite(summary["iqm"].max())
    return {"best_evaluation_return": best, "evaluation_return": returns}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _describe_counts(words: Iterable[str]) -> str:
    """Return each word with its count: `completed 2, diverged 1`."""
    return ", ".join(f"{word} {count}" for word, count in sorted(Counter(words).items()))
