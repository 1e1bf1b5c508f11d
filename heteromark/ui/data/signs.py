"""Good and warning signs of a run, each with its value and limit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from heteromark.runs.record import Status
from heteromark.ui.data.history import UNREADABLE, HistoryRun
from heteromark.ui.data.metrics import columns_of
from heteromark.workflow.stability import (
    TREND_STANDARD_ERRORS,
    Curve,
    Stability,
    Verdict,
    judge_stability,
    last_half_trend,
)

# Most signs use the mean over the newest iterations: this share of all, as in `final_return`.
RECENT_SHARE = 0.1
# Spinning Up's PPO targets a KL divergence of 0.01 and stops an update at 1.5 times that value
# (Achiam 2018, spinningup.openai.com, PPO, `target_kl`). The limit here is twice that threshold.
KL_HIGH = 0.03
# On mini_MMM, runs of this project that learn clip 5 to 27 % of the actions. With a learning rate
# 2.5 times as high they clip 28 to 43 % and learn less.
CLIP_FRACTION_HIGH = 0.3
# On mini_MMM, runs that win every battle keep at least 7 % of their initial entropy. Discrete
# actions only: the entropy of continuous actions is not bounded by 0.
ENTROPY_LEFT = 0.05
# By definition: below 0, predicting the mean return would be better than the critic.
EXPLAINED_VARIANCE_LOW = 0.0
EXPLAINED_VARIANCE_GOOD = 0.5

# Language models. A group with equal rewards has advantages of 0. Above the high limit, less than
# a tenth of the samples train the policy; below the good limit, at least half of them do.
FLAT_SHARE_HIGH = 0.9
FLAT_SHARE_GOOD = 0.5
# Above this pass@1, rewards are mostly equal because all responses solve the problem.
SOLVED_MOSTLY = 0.5
# More than half of the responses end at the length limit.
CUT_OFF_HIGH = 0.5
# Share of the length in the first iteration; a warning only if the reward has not risen.
LENGTH_LEFT = 0.25
# At 1 nat, the initial model gives a token 1/e of its current probability, on average. From a
# tenth of that on, growth is worth a note.
REFERENCE_KL_HIGH = 1.0
REFERENCE_KL_NOTED = 0.1
# Growth over the last half, as a share of the current value; linear growth from 0 gives 0.5.
REFERENCE_KL_GROWTH = 0.25

Kind = Literal["good", "warning", "note"]


@dataclass(frozen=True)
class Sign:
    """One observation: its kind and its text."""

    kind: Kind
    text: str


_good = functools.partial(Sign, "good")
_warning = functools.partial(Sign, "warning")
_note = functools.partial(Sign, "note")

KIND_OF_VERDICT: dict[Verdict, Kind] = {
    Verdict.STEADY: "good",
    Verdict.NOISY: "warning",
    Verdict.FLAT: "note",
    Verdict.FALLING: "warning",
    Verdict.DIVERGED: "warning",
    Verdict.UNKNOWN: "note",
}


def signs_of(run: HistoryRun, table: pd.DataFrame) -> list[Sign]:
    """Return the signs of one run, warnings first.

    Args:
        table: metrics of the run so far (`read_metrics`).
    """
    signs = [
        *_status_signs(run),
        *_return_signs(run, table),
        *_update_signs(table, "tokens" if run.is_language_model_run else "actions"),
        *_group_signs(table),
        *_length_signs(table),
        *_reference_signs(table),
    ]
    return sorted(signs, key=lambda sign: ("warning", "note", "good").index(sign.kind))


def stability_of(runs: Sequence[HistoryRun], tables: Sequence[pd.DataFrame]) -> Stability:
    """Judge the stability of one config over its seeds, from the metrics measured so far."""
    curves = [curve for table in tables if len((curve := _curve(table)).frames)]
    diverged = {
        run.record.seed: run.reason or "no reason recorded"
        for run in runs
        if run.record and run.status == Status.DIVERGED
    }
    return judge_stability(curves, seeds=len(runs), diverged=diverged)


def _status_signs(run: HistoryRun) -> Iterator[Sign]:
    why = f": {run.reason}" if run.reason else ""
    if run.status in (Status.FAILED, Status.DIVERGED, UNREADABLE):
        yield _warning(f"{run.status}{why}")
    elif run.status == Status.INTERRUPTED:
        yield _warning(f"interrupted{why}; the command below resumes it")


def _return_signs(run: HistoryRun, table: pd.DataFrame) -> Iterator[Sign]:
    if run.status == Status.DIVERGED:
        return  # reported by _status_signs
    stability = stability_of([run], [table])
    kind = KIND_OF_VERDICT[stability.verdict]
    yield Sign(kind, f"return {stability.verdict}: {stability.reason}")


def _update_signs(table: pd.DataFrame, clipped: str) -> Iterator[Sign]:
    """Judge the updates by the most extreme group. `clipped`: what the loss clips, as a noun."""
    group, value = _most_extreme(table, "kl_approx", max)
    if value > KL_HIGH:
        yield _warning(
            f"KL divergence high{group}: each update moves the policy by {value:.3f} nats "
            f"(threshold {KL_HIGH}); lower learning_rate or n_epochs"
        )
    elif value <= KL_HIGH and value != 0:  # with one optimizer step per batch it is always 0
        yield _good(f"KL divergence within bounds: {_at_most(value)} nats{group}")
    group, value = _most_extreme(table, "clip_fraction", max)
    if value > CLIP_FRACTION_HIGH:
        yield _warning(
            f"clip fraction high{group}: {value:.0%} of the {clipped} are clipped (threshold "
            f"{CLIP_FRACTION_HIGH:.0%}); lower learning_rate or n_epochs"
        )
    group, value = _most_extreme(table, "entropy", min, _share_of_initial)
    if value < ENTROPY_LEFT:
        yield _warning(
            f"entropy collapsed{group}: {value:.1%} of its initial value (threshold "
            f"{ENTROPY_LEFT:.0%}), so the policy hardly explores; fine if the task is solved, "
            "else raise ppo.ent_coef"
        )
    elif value >= ENTROPY_LEFT:
        yield _good(f"still exploring: at least {value:.0%} of the initial entropy left{group}")
    group, value = _most_extreme(table, "explained_variance", min)
    if value < EXPLAINED_VARIANCE_LOW:
        yield _warning(
            f"the critic predicts worse than the mean return{group}: explained variance "
            f"{value:.2f}; raise n_steps, or change the critic's learning rate"
        )
    elif value > EXPLAINED_VARIANCE_GOOD:
        yield _good(f"the critic explains {value:.0%} of the variance of the returns{group}")


def _group_signs(table: pd.DataFrame) -> Iterator[Sign]:
    """Judge how many groups have different rewards: groups with equal rewards train nothing."""
    role, value = _most_extreme(table, "flat_share", max)
    if value <= FLAT_SHARE_HIGH:
        kind: Kind = "good" if value <= FLAT_SHARE_GOOD else "note"
        yield Sign(kind, f"learning signal in at least {1 - value:.0%} of the groups{role}")
    if not value > FLAT_SHARE_HIGH:
        return
    finding = (
        f"{'no' if value == 1 else 'little'} learning signal{role}: all rewards are equal in "
        f"{value:.0%} of the groups (threshold {FLAT_SHARE_HIGH:.0%})"
    )
    _, solved = _most_extreme(table, "pass_at_1", max)
    if solved > SOLVED_MOSTLY:
        yield _note(f"{finding}; one attempt solves {solved:.0%}, so use harder problems")
    else:
        yield _warning(
            f"{finding}; raise environment.text.warm_up_steps or grpo.num_generations, or use "
            "easier problems"
        )


def _length_signs(table: pd.DataFrame) -> Iterator[Sign]:
    """Check for responses that hit the length limit, or get shorter without a higher reward."""
    role, value = _most_extreme(table, "cut_off", max)
    if value > CUT_OFF_HIGH:
        yield _warning(
            f"responses hit the length limit{role}: {value:.0%} are cut off (threshold "
            f"{CUT_OFF_HIGH:.0%}); raise environment.text.max_response_length"
        )
    rewards = columns_of(table, "reward")
    for role, column in columns_of(table, "response_length").items():
        share, improved = _share_of_initial(table[column]), _has_risen(table, rewards.get(role))
        if share < LENGTH_LEFT and not improved:
            yield _warning(
                f"responses collapse{_in_brackets(role)}: {share:.0%} of their initial length "
                f"(threshold {LENGTH_LEFT:.0%}) without a higher reward; lower learning_rate, or "
                "raise grpo.beta"
            )


def _reference_signs(table: pd.DataFrame) -> Iterator[Sign]:
    """Judge the divergence of the policies from the initial model."""
    role, value = _most_extreme(table, "kl_reference", max)
    growing = _growth(table, "kl_reference")
    if value > REFERENCE_KL_HIGH:
        yield _warning(
            f"far from the initial model{role}: {value:.2f} nats per token (threshold "
            f"{REFERENCE_KL_HIGH:g}); raise grpo.beta, or lower learning_rate"
        )
    elif value > REFERENCE_KL_NOTED and growing > REFERENCE_KL_GROWTH * value:
        yield _note(
            f"moving away from the initial model{role}: {value:.2f} nats per token, up by "
            f"{growing:.2f} in the second half (warning above {REFERENCE_KL_HIGH:g})"
        )
    elif value <= REFERENCE_KL_HIGH:
        yield _good(f"close to the initial model: {_at_most(value)} nats per token{role}")


def _at_most(value: float) -> str:
    return f"at most {value:.3f}" if value >= 0.001 else "below 0.001"


def _growth(table: pd.DataFrame, metric: str) -> float:
    """Return the largest significant rise of a metric in the second half, over groups; or 0."""
    changes = [0.0]
    for column in columns_of(table, metric).values():
        measured = table[np.isfinite(table[column])]
        trend = last_half_trend(Curve(*measured[["frames", column]].to_numpy().T))
        if trend and trend.change > TREND_STANDARD_ERRORS * trend.change_error:
            changes.append(trend.change)
    return max(changes)


def _share_of_initial(values: pd.Series) -> float:
    """Return the recent mean as a share of the first value.

    NaN with fewer than two values, or if values are negative, as entropies of continuous actions
    can be.
    """
    measured = values.dropna()
    if len(measured) < 2 or measured.iloc[0] <= 0 or measured.min() < 0:
        return math.nan
    return _recent_mean(measured) / measured.iloc[0]


def _has_risen(table: pd.DataFrame, column: str | None) -> bool:
    if column is None:
        return False
    measured = table[column].dropna()
    return len(measured) > 1 and _recent_mean(measured) > measured.iloc[0]


def _recent_mean(values: pd.Series) -> float:
    count = math.ceil(len(values) * RECENT_SHARE)
    return float(values.iloc[-count:].mean()) if count else math.nan


def _most_extreme(
    table: pd.DataFrame,
    metric: str,
    extreme: Callable[..., str],
    value_of: Callable[[pd.Series], float] = _recent_mean,
) -> tuple[str, float]:
    """Return the group with the largest or smallest value of a metric, in brackets, and the value.

    The value is NaN, neither above nor below any limit, if nothing was measured.
    """
    columns = columns_of(table, metric)
    values = {group: value_of(table[column]) for group, column in columns.items()}
    finite = [group for group, value in values.items() if math.isfinite(value)]
    if not finite:
        return "", math.nan
    group = extreme(finite, key=values.__getitem__)
    return _in_brackets(group), values[group]


def _in_brackets(group: str) -> str:
    return f" ({group})" if group else ""


def _curve(table: pd.DataFrame) -> Curve:
    if not {"frames", "episode_return"} <= set(table.columns):
        return Curve(np.empty(0), np.empty(0))
    measured = table[np.isfinite(table["episode_return"])]
    return Curve(measured["frames"].to_numpy(), measured["episode_return"].to_numpy())
