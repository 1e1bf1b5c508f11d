"""Agents that ran in several environments: one comparison over all of them."""

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

# Normalised scores at which a performance profile is drawn; at 1, no run is above.
THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Across:
    """Evaluation returns of agents in the same environments.

    Attributes:
        environments: the columns of the scores.
        scores: by agent, best first: `[seeds, environments]`, 0 at the lowest and 1 at the highest
            evaluation return of any of the compared runs in that environment.
        left_out: why an agent or an environment is not among them.
    """

    environments: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    left_out: tuple[str, ...]


def compare_across(runs: Sequence[HistoryRun]) -> Across:
    """Compare the agents of completed runs over the environments of these runs.

    An agent is known by its short name. Its seeds are those that it completed in every
    environment, so that environments count alike.
    """
    completed = [run.record for run in runs if run.status == Status.COMPLETED]
    rows = [
        (one.agent.short_name, one.environment, one.seed, one.summary.evaluation_return)
        for one in completed
    ]
    table = pd.DataFrame(rows, columns=["agent", "environment", "seed", "value"])
    table["value"] = pd.to_numeric(table["value"]).where(lambda values: np.isfinite(values))
    table = table.dropna()
    bounds = table.groupby("environment")["value"].agg(["min", "max"])
    is_told = bounds["min"] < bounds["max"]
    left_out = [f"{name}: fewer than two returns that differ" for name in bounds.index[~is_told]]
    bounds = bounds[is_told]
    scores = {}
    for agent, own in table.groupby("agent", sort=False):
        own = own[own["environment"].isin(bounds.index)]
        twice = own.loc[own.duplicated(["environment", "seed"]), "environment"].unique()
        if len(twice):
            left_out.append(
                f"{agent}: several runs of one seed in {', '.join(twice)}; choose one config of it "
                "for each environment"
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
    best_first = sorted(scores, key=lambda agent: -score(scores[agent], "iqm"))
    return Across(
        tuple(bounds.index), {agent: scores[agent] for agent in best_first}, tuple(left_out)
    )


def across_table(across: Across) -> pd.DataFrame:
    """One row per agent, best first: normalised score, and how likely the best one beats it.

    Returns:
        Columns agent, iqm, low, high, seeds, beaten, beaten_low, beaten_high: `beaten` is the
        probability of improvement of the best agent over this one, missing for itself.
    """
    best = next(iter(across.scores.values()), None)
    rows = []
    for agent, scores in across.scores.items():
        low, high = bootstrap_interval(scores, "iqm") or (None, None)
        beaten = beaten_low = beaten_high = None
        if scores is not best:
            beaten = probability_of_improvement(best, scores)
            beaten_low, beaten_high = improvement_interval(best, scores) or (None, None)
        own_score = score(scores, "iqm")
        rows.append((agent, own_score, low, high, len(scores), beaten, beaten_low, beaten_high))
    columns = ["agent", "iqm", "low", "high", "seeds", "beaten", "beaten_low", "beaten_high"]
    return pd.DataFrame(rows, columns=columns)


def profiles(across: Across) -> pd.DataFrame:
    """Performance profiles, and their point-wise bootstrap 95 % intervals.

    Returns:
        Columns label (the agent), threshold, share (of its runs, over environments, that score
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
