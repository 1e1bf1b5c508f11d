"""A sweep as its files in results/ tell it: the selection, the table, the rank check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from heteromark.config.errors import ConfigError
from heteromark.ui.data.configs import configs_of, differences, resolved_config
from heteromark.ui.data.history import HistoryRun
from heteromark.workflow.aggregate import read_tables
from heteromark.workflow.rank_check import RANK_CHECK_FILE, RankCheck
from heteromark.workflow.select import BRACKET_FILE, SELECTION_FILE, Selection


@dataclass(frozen=True)
class Sweep:
    """What is there of a sweep.

    Attributes:
        summary: the table of its configs; None where it cannot be read.
        rank_check: None before the long run.
        bracket: SVG, the picture of successive halving; None after a grid.
        faults: files that should be readable and are not.
    """

    selection: Selection
    summary: pd.DataFrame | None
    rank_check: RankCheck | None
    bracket: str | None
    faults: tuple[str, ...]


def read_sweep(results: Path) -> Sweep | str | None:
    """The sweep of a results folder; why it cannot be read; or None where there is none."""
    path = results / "selected" / SELECTION_FILE
    try:
        selection = Selection.read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{path}: {error}"
    tables, check = results / "tables", results / "model" / RANK_CHECK_FILE
    bracket = results / "selected" / BRACKET_FILE
    faults: list[str] = []

    def readable(path: Path, read: Callable[[Path], Any]) -> Any:
        try:
            return read(path)
        except (OSError, ValueError) as error:
            faults.append(f"{path}: {error}")

    return Sweep(
        selection,
        readable(tables, lambda path: read_tables(path).summary),
        readable(check, RankCheck.read) if check.exists() else None,
        bracket.read_text(encoding="utf-8") if bracket.exists() else None,
        tuple(faults),
    )


def candidates_table(sweep: Sweep) -> pd.DataFrame:
    """One row per candidate by rank: its score, how sure that is, its runs, its verdict, why."""
    verdicts = {}
    if sweep.summary is not None:
        verdicts = dict(zip(sweep.summary["config"], sweep.summary["verdict"], strict=True))
    return pd.DataFrame(
        [
            {
                "rank": candidate.rank,
                "config": candidate.label,
                "score": candidate.score,
                "low": candidate.interval and candidate.interval.low,
                "high": candidate.interval and candidate.interval.high,
                "beaten": candidate.improvement,
                "frames": candidate.frames,
                "completed": f"{candidate.completed} of {candidate.seeds}",
                "verdict": verdicts.get(candidate.label),
                "why": candidate.why,
            }
            for candidate in sweep.selection.candidates
        ]
    )


def coordinates(sweep: Sweep, runs: Sequence[HistoryRun]) -> pd.DataFrame:
    """The candidates' hyperparameters as far as they differ, for parallel coordinates.

    Returns:
        One row per candidate with a score whose config can be read and per hyperparameter: columns
        label, rank, score, key, value (as text), place: 0 to 1, where the value stands among all
        of its hyperparameter in their order, equally far apart. Empty where none differ.
    """
    known = {config.digest: config.runs[0] for config in configs_of(runs)}
    scored = {
        candidate.label: candidate
        for candidate in sweep.selection.candidates
        if candidate.score is not None and candidate.config_digest in known
    }
    configs = {}
    for label, candidate in scored.items():
        try:
            configs[label] = resolved_config(known[candidate.config_digest])
        except ConfigError:
            continue
    table = differences(configs).table
    rows = []
    for key in table.columns:
        places = _places(table[key])
        rows += [
            (label, scored[label].rank, scored[label].score, key, value, places[value])
            for label, value in table[key].items()
        ]
    return pd.DataFrame(rows, columns=["label", "rank", "score", "key", "value", "place"])


def _places(values: pd.Series) -> dict[str, float]:
    """Numbers by size, other values by the alphabet before them, from 0 to 1."""
    distinct = pd.DataFrame({"text": sorted(set(values))})
    distinct["number"] = pd.to_numeric(distinct["text"], errors="coerce")
    ordered = distinct.sort_values("number", na_position="first", kind="stable")["text"].tolist()
    return {value: place / (len(ordered) - 1) for place, value in enumerate(ordered)}
