"""The list of runs: which ones a reader asks for, in which order, and their figures as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heteromark.ui.data.history import HistoryRun

# A status is told by a word and a mark, never by colour alone.
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
    """What a run must be; an empty filter lets everything through.

    `text`: words that all occur in a run's names, environment, algorithm, config path, digest or
    reason, in any case.
    """

    agent_id: Sequence[str] = ()
    environment: Sequence[str] = ()
    algorithm: Sequence[str] = ()
    status: Sequence[str] = ()
    text: str = ""

    def let_through(self, run: HistoryRun) -> bool:
        wanted = {name: getattr(self, name) for name in FIELDS}
        return all(
            not values or FIELDS[name](run) in values for name, values in wanted.items()
        ) and all(word in _searched(run) for word in self.text.casefold().split())


# What runs are filtered by; None without a readable record.
FIELDS: dict[str, Callable[[HistoryRun], str | None]] = {
    "agent_id": lambda run: run.record and run.record.agent.agent_id,
    "environment": lambda run: run.record and run.record.environment,
    "algorithm": lambda run: run.record and run.record.agent.algorithm,
    "status": lambda run: run.status,
}


def _searched(run: HistoryRun) -> str:
    words = [run.key, run.status, run.reason or ""]
    if record := run.record:
        agent = record.agent
        words += [agent.short_name, agent.name, agent.algorithm, agent.config_path or ""]
        words += [record.environment, record.mode, record.digest, record.config_digest]
    return " ".join(words).casefold()


def options(runs: Sequence[HistoryRun], field: str) -> list[str]:
    """The values that occur, in alphabetical order."""
    return sorted({FIELDS[field](run) for run in runs} - {None})


# By the words of the page's control; what was not measured comes last.
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
    """Runs in one of `ORDERS`; equal ones stay in the order they have."""
    value, descending = ORDERS[order]
    known = [run for run in runs if value(run) is not None]
    unknown = [run for run in runs if value(run) is None]
    return sorted(known, key=value, reverse=descending) + unknown


def table_of(runs: Sequence[HistoryRun]) -> pd.DataFrame:
    """One row per run. Starts are local times, win rates in percent, progress from 0 to 1."""
    table = pd.DataFrame(
        {
            name: pd.Series([cell(run) for run in runs], dtype=object).astype(dtype)
            for name, (dtype, cell) in _COLUMNS.items()
        }
    )
    # Nobody reads fractions of seconds and frames.
    table["duration"] = pd.to_timedelta(table["duration"].round(), unit="s")
    table["frames_per_second"] = table["frames_per_second"].round()
    table["win_rate"] *= 100
    return table


# Column -> its dtype, and its cell in the row of a run.
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
