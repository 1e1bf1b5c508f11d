"""Read a sweep from results/: the selection, the summary table, the rank check."""

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
    """The results of a sweep.

    Attributes:
        summary: one row per config; None if it cannot be read.
        rank_check: None before the long run, or if it cannot be read.
        bracket: SVG of the successive-halving bracket; None for a grid sweep.
        errors: files that cannot be read, each with the reason.
    """

    selection: Selection
    summary: pd.DataFrame | None
    rank_check: RankCheck | None
    bracket: str | None
    errors: tuple[str, ...]


def read_sweep(results: Path) -> Sweep | str | None:
    """Read the sweep of a results folder.

    Returns:
        The sweep; None if there is no selection; an error message if it cannot be read.
    """
    path = results / "selected" / SELECTION_FILE
    try:
        selection = Selection.read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{path}: {error}"
    tables, check = results / "tables", results / "model" / RANK_CHECK_FILE
    bracket = results / "selected" / BRACKET_FILE
    errors: list[str] = []

    def read_or_none(path: Path, read: Callable[[Path], Any]) -> Any:
        try:
            return read(path)
        except (OSError, ValueError) as error:
            errors.append(f"{path}: {error}")
            return None

    return Sweep(
        selection,
        read_or_none(tables, lambda path: read_tables(path).summary),
        read_or_none(check, RankCheck.read) if check.exists() else None,
        bracket.read_text(encoding="utf-8") if bracket.exists() else None,
        tuple(errors),
    )


def candidates_table(sweep: Sweep) -> pd.DataFrame:
    """Return one row per candidate, by rank.

    Returns:
        Columns rank, config, score, low, high, beaten (probability that the winner is better),
        frames, completed, verdict, why.
    """
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
    """Return the hyperparameters that differ between candidates, for parallel coordinates.

    Candidates without a score or a readable config are skipped.

    Returns:
        One row per candidate and hyperparameter: columns label, rank, score, key, value (as text),
        position. `position` is 0 to 1: the sorted values of a hyperparameter, equally spaced. Empty
        if no hyperparameter differs.
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
        positions = _positions(table[key])
        rows += [
            (label, scored[label].rank, scored[label].score, key, value, positions[value])
            for label, value in table[key].items()
        ]
    return pd.DataFrame(rows, columns=["label", "rank", "score", "key", "value", "position"])


def _positions(values: pd.Series) -> dict[str, float]:
    """Return a position from 0 to 1 per value: text in alphabetical order, then numbers by size."""
    distinct = pd.DataFrame({"text": sorted(set(values))})
    distinct["number"] = pd.to_numeric(distinct["text"], errors="coerce")
    ordered = distinct.sort_values("number", na_position="first", kind="stable")["text"].tolist()
    return {value: index / (len(ordered) - 1) for index, value in enumerate(ordered)}
