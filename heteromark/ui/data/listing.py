"""The list of runs: filters, order and table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heteromark.ui.data.history import HistoryRun

# A status is shown as a word and a mark, never by colour alone.
MARKS = {
    "running": "▶",
    "completed": "✓",
    "failed": "✗",
    "diverged": "↯",
    "interrupted": "‖",
    "unreadable": "?",
}


@dataclass(frozen=True)
class Filters:
    """Filters of the list; an empty filter matches every run.

    `text`: words, ignoring case. Each must occur in the run's names, status, algorithm, config
    path, environment, mode, digests or reason.
    """

    agent_id: Sequence[str] = ()
    environment: Sequence[str] = ()
    algorithm: Sequence[str] = ()
    status: Sequence[str] = ()
    text: str = ""

    def matches(self, run: HistoryRun) -> bool:
        """Whether the run matches every filter."""
        allowed = {name: getattr(self, name) for name in FIELDS}
        return all(
            not values or FIELDS[name](run) in values for name, values in allowed.items()
        ) and all(word in _search_text(run) for word in self.text.casefold().split())


# Field -> its value for a run; None without a readable record.
FIELDS: dict[str, Callable[[HistoryRun], str | None]] = {
    "agent_id": lambda run: run.record.agent.agent_id if run.record else None,
    "environment": lambda run: run.record.environment if run.record else None,
    "algorithm": lambda run: run.record.agent.algorithm if run.record else None,
    "status": lambda run: run.status,
}


def _search_text(run: HistoryRun) -> str:
    words = [run.key, run.status, run.reason or ""]
    if record := run.record:
        agent = record.agent
        words += [agent.short_name, agent.name, agent.algorithm, agent.config_path or ""]
        words += [record.environment, record.mode, record.digest, record.config_digest]
    return " ".join(words).casefold()


def options(runs: Sequence[HistoryRun], field: str) -> list[str]:
    """Return the values that occur, in alphabetical order."""
    return sorted({value for run in runs if (value := FIELDS[field](run)) is not None})


# Label of the control -> sort key, and whether it is descending. Runs without a value come last.
ORDERS: dict[str, tuple[Callable[[HistoryRun], Any], bool]] = {
    "newest first": (lambda run: run.started and run.started.timestamp(), True),
    "oldest first": (lambda run: run.started and run.started.timestamp(), False),
    "evaluation return": (lambda run: _summary(run, "evaluation_return"), True),
    "win rate": (lambda run: _summary(run, "evaluation_win_rate"), True),
    "training return": (lambda run: run.training_return, True),
    "config": (lambda run: run.name.casefold(), False),
    "status": (lambda run: run.status, False),
    "frames": (lambda run: run.frames, True),
    "duration": (lambda run: run.seconds, True),
}


def ordered(runs: Sequence[HistoryRun], order: str) -> list[HistoryRun]:
    """Sort runs by one of `ORDERS`; ties keep their order."""
    value, descending = ORDERS[order]
    known = [run for run in runs if value(run) is not None]
    unknown = [run for run in runs if value(run) is None]
    return sorted(known, key=value, reverse=descending) + unknown


def table_of(runs: Sequence[HistoryRun]) -> pd.DataFrame:
    """Return one row per run: starts in local time, win rates in percent, progress from 0 to 1."""
    table = pd.DataFrame(
        {
            name: pd.Series([cell(run) for run in runs], dtype=object).astype(dtype)
            for name, (dtype, cell) in _COLUMNS.items()
        }
    )
    # Round to whole seconds and frames.
    table["duration"] = pd.to_timedelta(table["duration"].round(), unit="s")
    table["frames_per_second"] = table["frames_per_second"].round()
    table["win_rate"] *= 100
    return table


# Column -> dtype, and the value for a run.
_COLUMNS: dict[str, tuple[str, Callable[[HistoryRun], Any]]] = {
    "status": ("str", lambda run: f"{MARKS[run.status]} {run.status}"),
    "config": ("str", lambda run: run.name),
    "algorithm": ("str", FIELDS["algorithm"]),
    "environment": ("str", FIELDS["environment"]),
    "mode": ("str", lambda run: run.record and run.record.mode),
    "seed": ("Int64", lambda run: run.record and run.record.seed),
    "progress": ("float64", lambda run: run.total_frames and run.frames / run.total_frames),
    "frames": ("Int64", lambda run: run.frames),
    "evaluation_return": ("float64", lambda run: _summary(run, "evaluation_return")),
    "win_rate": ("float64", lambda run: _summary(run, "evaluation_win_rate")),
    "training_return": ("float64", lambda run: run.training_return),
    "frames_per_second": ("float64", lambda run: run.frames_per_second),
    "started": (
        "datetime64[ns]",
        lambda run: run.started and run.started.astimezone().replace(tzinfo=None),
    ),
    "duration": ("float64", lambda run: run.seconds),
    "run": ("str", lambda run: run.key),
}


def _summary(run: HistoryRun, name: str) -> float | None:
    return None if run.record is None else getattr(run.record.summary, name)
