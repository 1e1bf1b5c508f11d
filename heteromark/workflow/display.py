"""Format the plan and the tables as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from heteromark.workflow.plan import Candidate, Plan
from heteromark.workflow.words import frames_range

if TYPE_CHECKING:  # importing pandas takes longer than making a plan
    from heteromark.workflow.aggregate import Tables

_HEADINGS = {
    "config": "config",
    "statuses": "runs",
    "iqm": "return (IQM)",
    "iqm_low": "95 % low",
    "iqm_high": "high",
    "final_return": "final return",
    "win_rate": "wins",
    "frames_per_second": "frames/s",
    "verdict": "verdict",
}


def plan_lines(plan: Plan) -> list[str]:
    """Return the configs, seeds and frames of a sweep, one line each."""
    params = plan.params
    smoke, full = params.smoke, params.full
    lines = [
        f"valid: {len(plan.configs)} configs on {params.sweep.environment}",
        *(
            f"{name}: {configs * len(smoke.seeds)} runs of {frames}, seeds {smoke.seeds}"
            for name, configs, frames in _rungs(plan)
        ),
        f"full:  {len(full.seeds)} runs of "
        f"{describe_frames(full.total_frames, plan.candidates('full'))} of the winner",
    ]
    width = max(len(config.smoke.label) for config in plan.configs)
    return lines + [
        f"  {config.smoke.label:<{width}}  {config.agent.algorithm:<11}  {config.smoke.config_path}"
        for config in plan.configs
    ]


def describe_frames(requested: int, candidates: Iterable[Candidate]) -> str:
    """Return the frames that runs train and, if they differ, the requested frames."""
    trained = {candidate.frames for candidate in candidates}
    if trained == {requested}:
        return f"{requested:,} frames"
    rounding = f"{requested:,} requested, rounded up to whole iterations of n_steps"
    return f"{frames_range(trained)} frames ({rounding})"


def _rungs(plan: Plan) -> list[tuple[str, int, str]]:
    """Return name, number of configs and frames of every rung of the smoke."""
    frames = [
        describe_frames(requested, (config.rungs[index] for config in plan.configs))
        for index, requested in enumerate(plan.params.rungs)
    ]
    if len(frames) == 1:
        return [("smoke", len(plan.configs), frames[0])]
    configs, rungs = len(plan.configs), []
    for number, length in enumerate(frames, start=1):
        rungs.append((f"smoke, rung {number}", configs, length))
        configs = max(1, configs // plan.params.sweep.halving.eta)
    return rungs


def table_lines(tables: Tables) -> list[str]:
    """Return the summary table, best first, and a line for every run that did not complete."""
    summary = tables.summary.sort_values("iqm", ascending=False, na_position="last")
    table = summary[list(_HEADINGS)].rename(columns=_HEADINGS)
    table["frames/s"] = table["frames/s"].round().astype("Int64")
    if table["wins"].isna().all():
        table = table.drop(columns="wins")
    text = table.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:,.2f}")
    lines = text.splitlines()
    incomplete = tables.runs[tables.runs["status"] != "completed"]
    return lines + [
        f"{run.config} seed {run.seed}: {run.status}"
        + (f", {run.reason}" if isinstance(run.reason, str) else "")
        for run in incomplete.itertuples()
    ]
