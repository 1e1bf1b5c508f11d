"""Compare agents over several environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from heteromark.runs.record import Status
from heteromark.ui.data.history import HistoryRun
from heteromark.workflow.statistics import (
    bootstrap_interval,
    improvement_interval,
    normalised,
    performance_profile,
    performance_profile_intervals,
    probability_of_improvement,
    score,
)

# Normalised scores at which a performance profile is evaluated. No run scores above 1.
THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Across:
    """Normalised evaluation returns of agents in the same environments.

    Attributes:
        environments: the columns of the scores.
        scores: agent -> `[seeds, environments]`, best agent first. In each environment, 0 is the
            lowest and 1 the highest evaluation return of the compared runs.
        left_out: the excluded agents and environments, each with the reason.
    """

    environments: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    left_out: tuple[str, ...]


def compare_across(runs: Sequence[HistoryRun]) -> Across:
    """Compare the agents of completed runs over the environments of these runs.

    Agents are matched by short name. Only seeds completed in every environment count, so that each
    environment has the same weight.
    """
    completed = [run.record for run in runs if run.record and run.status == Status.COMPLETED]
    rows = [
        (record.agent.short_name, record.environment, record.seed, record.summary.evaluation_return)
        for record in completed
    ]
    table = pd.DataFrame(rows, columns=["agent", "environment", "seed", "value"])
    table["value"] = pd.to_numeric(table["value"]).where(lambda values: np.isfinite(values))
    table = table.dropna()
    bounds = table.groupby("environment")["value"].agg(["min", "max"])
    has_range = bounds["min"] < bounds["max"]
    left_out = [f"{name}: fewer than two distinct returns" for name in bounds.index[~has_range]]
    bounds = bounds[has_range]
    scores = {}
    for agent, own in table.groupby("agent", sort=False):
        own = own[own["environment"].isin(bounds.index)]
        ambiguous = own.loc[own.duplicated(["environment", "seed"]), "environment"].unique()
        if len(ambiguous):
            left_out.append(
                f"{agent}: several runs of one seed in {', '.join(ambiguous)}; choose one config "
                "per environment"
            )
            continue
        by_seed = own.pivot_table(index="seed", columns="environment", values="value")
        by_seed = by_seed.reindex(columns=bounds.index)
        complete = by_seed.dropna().to_numpy()
        if len(complete):
            scores[agent] = normalised(complete, bounds["min"], bounds["max"])
        elif len(missing := by_seed.columns[by_seed.isna().all()]):
            left_out.append(f"{agent}: no completed run in {', '.join(missing)}")
        else:
            left_out.append(f"{agent}: no seed completed in every environment")
    best_first = sorted(scores, key=lambda agent: -_iqm(scores[agent]))
    return Across(
        tuple(bounds.index), {agent: scores[agent] for agent in best_first}, tuple(left_out)
    )


def _iqm(scores: np.ndarray) -> float:
    value = score(scores, "iqm")
    assert value is not None, "only agents with a complete seed have scores"
    return value


def across_table(across: Across) -> pd.DataFrame:
    """Return one row per agent, best first.

    Returns:
        Columns agent, iqm (normalised score), low, high, seeds, beaten, beaten_low, beaten_high.
        `beaten` is the probability of improvement of the best agent over this one; missing for the
        best agent itself.
    """
    best = next(iter(across.scores.values()), None)
    rows = []
    for agent, scores in across.scores.items():
        low, high = bootstrap_interval(scores, "iqm") or (None, None)
        beaten = beaten_low = beaten_high = None
        if best is not None and scores is not best:
            beaten = probability_of_improvement(best, scores)
            beaten_low, beaten_high = improvement_interval(best, scores) or (None, None)
        iqm = _iqm(scores)
        rows.append((agent, iqm, low, high, len(scores), beaten, beaten_low, beaten_high))
    columns = ["agent", "iqm", "low", "high", "seeds", "beaten", "beaten_low", "beaten_high"]
    return pd.DataFrame(rows, columns=columns)


def profiles(across: Across) -> pd.DataFrame:
    """Return performance profiles with point-wise bootstrap 95 % intervals.

    Returns:
        Columns label (the agent), threshold, share (of its runs, over all environments, that score
        above the threshold), low, high (missing with one seed).
    """
    tables = []
    for agent, scores in across.scores.items():
        share = performance_profile(scores, THRESHOLDS)
        table = pd.DataFrame({"label": agent, "threshold": THRESHOLDS, "share": share})
        intervals = performance_profile_intervals(scores, THRESHOLDS)
        table[["low", "high"]] = intervals if intervals else np.nan
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
