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
        fields = fields_of(run)
        return all(
            not wanted or fields[name] in wanted
            for name, wanted in (
                ("agent_id", self.agent_id),
                ("environment", self.environment),
                ("algorithm", self.algorithm),
                ("status", self.status),
            )
        ) and all(word in _searched(run) for word in self.text.casefold().split())


def fields_of(run: HistoryRun) -> dict[str, str]:
    """What runs are filtered by; empty without a readable record."""
    record = run.record
    return {
        "agent_id": record.agent.agent_id if record else "",
        "environment": record.environment if record else "",
        "algorithm": record.agent.algorithm if record else "",
        "status": run.status,
    }


def _searched(run: HistoryRun) -> str:
    words = [run.key, run.status, run.reason or ""]
    if record := run.record:
        agent = record.agent
        words += [
            *(agent.short_name, agent.name, agent.algorithm, agent.config_path or ""),
            *(record.environment, record.mode, record.digest, record.config_digest),
        ]
    return " ".join(words).casefold()


def options(runs: Sequence[HistoryRun], field: str) -> list[str]:
    """The values that occur, in alphabetical order."""
    return sorted({fields_of(run)[field] for run in runs} - {""})


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
    rows = [
        {
            "status": f"{MARKS[run.status]} {run.status}",
            "config": run.name,
            "algorithm": run.record.agent.algorithm if run.record else None,
            "environment": run.record.environment if run.record else None,
            "mode": run.record.mode if run.record else None,
            "seed": run.record.seed if run.record else None,
            "progress": _progress(run),
            "frames": run.frames,
            "evaluation_return": _summary(run, "evaluation_return"),
            "win_rate": _summary(run, "evaluation_win_rate"),
            "training_return": run.training_return,
            "frames_per_second": run.frames_per_second,
            "started": run.started and run.started.astimezone().replace(tzinfo=None),
            "duration": run.seconds,
            "run": run.key,
        }
        for run in runs
    ]
    table = pd.DataFrame(rows, columns=list(_DTYPES), dtype=object).astype(_DTYPES)
    # Nobody reads fractions of seconds and frames.
    table["duration"] = pd.to_timedelta(table["duration"].round(), unit="s")
    table["frames_per_second"] = table["frames_per_second"].round()
    table["win_rate"] *= 100
    return table


_DTYPES = {
    "status": "str",
    "config": "str",
    "algorithm": "str",
    "environment": "str",
    "mode": "str",
    "seed": "Int64",
    "progress": "float64",
    "frames": "Int64",
    "evaluation_return": "float64",
    "win_rate": "float64",
    "training_return": "float64",
    "frames_per_second": "float64",
    "started": "datetime64[ns]",
    "duration": "float64",
    "run": "str",
}


def _progress(run: HistoryRun) -> float | None:
    return run.frames / run.total_frames if run.total_frames else None


def _summary(run: HistoryRun, name: str) -> float | None:
    return None if run.record is None else getattr(run.record.summary, name)
