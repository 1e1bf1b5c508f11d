"""Good and warning signs of a run in words, each with its number and the limit it is held to."""

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

# What is judged: the mean over this share of the newest iterations, as in `final_return`.
RECENT_SHARE = 0.1
# Spinning Up's PPO aims at a divergence of 0.01 and ends an update at one and a half times that
# (Achiam 2018, spinningup.openai.com, PPO, `target_kl`). A run that stays at twice this limit goes
# further with every update than that code would ever let it.
KL_HIGH = 0.03
# Of this project's own runs on mini_MMM those that learn clip 5 to 27 % of the actions; with a
# learning rate two and a half times as high it is 28 to 43 %, and they learn less.
CLIP_FRACTION_HIGH = 0.3
# Runs on mini_MMM that win every battle keep 7 % and more of the entropy they began with. Only of
# discrete actions: with continuous ones entropy has no zero to be near to.
ENTROPY_LEFT = 0.05
# By definition: below 0 a critic that always says the mean return would predict better.
EXPLAINED_VARIANCE_LOW = 0.0
EXPLAINED_VARIANCE_GOOD = 0.5

# Responses of language models. A group whose rewards are all equal has advantages of 0: above this
# share less than a tenth of what was sampled moves the policy; a good sign is when half of it does.
FLAT_SHARE_HIGH = 0.9
FLAT_SHARE_GOOD = 0.5
# Where most problems are solved, flat groups are those that all responses solve.
SOLVED_MOSTLY = 0.5
# Most responses are ended by the limit on their length rather than by the model.
CUT_OFF_HIGH = 0.5
# Of the length in the first iteration; a warning only where the reward has not risen with it.
LENGTH_LEFT = 0.25
# By definition: on average, the model before training would give a token 1/e of its probability.
# From a tenth of that on growth is worth a note.
REFERENCE_KL_HIGH = 1.0
REFERENCE_KL_NOTED = 0.1
# Of the divergence itself, over the last half; one that rises evenly from 0 makes a half.
REFERENCE_KL_GROWTH = 0.25

Kind = Literal["good", "warning", "note"]


@dataclass(frozen=True)
class Sign:
    """One observation: whether it is a good or a warning sign, and what was seen."""

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
    """What is to be said about one run; warnings first.

    Args:
        table: its metrics (`read_metrics`), as far as they go.
    """
    signs = [
        *_of_status(run),
        *_of_return(run, table),
        *_of_learning(table, "tokens" if run.is_of_language_models else "actions"),
        *_of_groups(table),
        *_of_lengths(table),
        *_of_reference(table),
    ]
    return sorted(signs, key=lambda sign: ("warning", "note", "good").index(sign.kind))


def stability_of(runs: Sequence[HistoryRun], tables: Sequence[pd.DataFrame]) -> Stability:
    """The verdict over the seeds of one config, by what they have measured so far."""
    curves = [curve for table in tables if len((curve := _curve(table)).frames)]
    diverged = {
        run.record.seed: run.reason or "no reason recorded"
        for run in runs
        if run.status == Status.DIVERGED
    }
    return judge_stability(curves, seeds=len(runs), diverged=diverged)


def _of_status(run: HistoryRun) -> Iterator[Sign]:
    why = f": {run.reason}" if run.reason else ""
    if run.status in (Status.FAILED, Status.DIVERGED, UNREADABLE):
        yield _warning(f"{run.status}{why}")
    elif run.status == Status.INTERRUPTED:
        yield _warning(f"interrupted{why}; the command below resumes it")


def _of_return(run: HistoryRun, table: pd.DataFrame) -> Iterator[Sign]:
    if run.status == Status.DIVERGED:
        return  # said already
    stability = stability_of([run], [table])
    kind = KIND_OF_VERDICT[stability.verdict]
    yield Sign(kind, f"return {stability.verdict}: {stability.reason}")


def _of_learning(table: pd.DataFrame, clipped: str) -> Iterator[Sign]:
    """How the updates go, by the groups that stand out most; `clipped` is what the loss clips."""
    group, value = _most_extreme(table, "kl_approx", max)
    if value > KL_HIGH:
        yield _warning(
            f"KL divergence high{group}: each update moves the policy by {value:.3f} nats "
            f"(high above {KL_HIGH}); lower learning_rate or n_epochs"
        )
    elif value <= KL_HIGH and value != 0:  # with one optimizer step per batch it is always 0
        yield _good(f"KL divergence in bounds: {_at_most(value)} nats{group}")
    group, value = _most_extreme(table, "clip_fraction", max)
    if value > CLIP_FRACTION_HIGH:
        yield _warning(
            f"clip fraction high{group}: {value:.0%} of the {clipped} are clipped (high above "
            f"{CLIP_FRACTION_HIGH:.0%}); lower learning_rate or n_epochs"
        )
    group, value = _most_extreme(table, "entropy", min, _of_the_first)
    if value < ENTROPY_LEFT:
        yield _warning(
            f"entropy collapsed{group}: {value:.1%} of what it began with (low below "
            f"{ENTROPY_LEFT:.0%}), so little is tried any more; fine where the task is solved, "
            "else raise ppo.ent_coef"
        )
    elif value >= ENTROPY_LEFT:
        yield _good(f"still exploring: at least {value:.0%} of the entropy left{group}")
    group, value = _most_extreme(table, "explained_variance", min)
    if value < EXPLAINED_VARIANCE_LOW:
        yield _warning(
            f"the critic predicts worse than the mean return would{group}: explained variance "
            f"{value:.2f}; more n_steps, or another learning rate for the critic"
        )
    elif value > EXPLAINED_VARIANCE_GOOD:
        yield _good(f"the critic explains {value:.0%} of the returns' variance{group}")


def _of_groups(table: pd.DataFrame) -> Iterator[Sign]:
    """Whether responses to one prompt are rewarded differently, which is all there is to learn."""
    role, value = _most_extreme(table, "flat_share", max)
    if value <= FLAT_SHARE_HIGH:
        kind = "good" if value <= FLAT_SHARE_GOOD else "note"
        yield Sign(kind, f"at least {1 - value:.0%} of the groups have something to teach{role}")
    if not value > FLAT_SHARE_HIGH:
        return
    seen = (
        f"{'no group has' if value == 1 else 'few groups have'} anything to teach{role}: the "
        f"rewards in {value:.0%} of them are all equal (high above {FLAT_SHARE_HIGH:.0%})"
    )
    _, solved = _most_extreme(table, "pass_at_1", max)
    if solved > SOLVED_MOSTLY:
        yield _note(f"{seen}; one attempt solves {solved:.0%}, so harder problems would teach more")
    else:
        yield _warning(
            f"{seen}; more environment.text.warm_up_steps, easier problems or a higher "
            "grpo.num_generations"
        )


def _of_lengths(table: pd.DataFrame) -> Iterator[Sign]:
    """Whether responses run into the limit, or become shorter without becoming better."""
    role, value = _most_extreme(table, "cut_off", max)
    if value > CUT_OFF_HIGH:
        yield _warning(
            f"responses at the limit{role}: {value:.0%} are cut off (high above "
            f"{CUT_OFF_HIGH:.0%}); raise environment.text.max_response_length"
        )
    rewards = columns_of(table, "reward")
    for role, column in columns_of(table, "response_length").items():
        share, better = _of_the_first(table[column]), _risen(table, rewards.get(role))
        if share < LENGTH_LEFT and not better:
            yield _warning(
                f"responses collapse{_of_group(role)}: they have {share:.0%} of the length they "
                f"began with (low below {LENGTH_LEFT:.0%}), and earn no more; lower learning_rate, "
                "or raise grpo.beta"
            )


def _of_reference(table: pd.DataFrame) -> Iterator[Sign]:
    """How far policies have come from the model before training."""
    role, value = _most_extreme(table, "kl_reference", max)
    growing = _growth(table, "kl_reference")
    if value > REFERENCE_KL_HIGH:
        yield _warning(
            f"far from the model before training{role}: {value:.2f} nats per token (high above "
            f"{REFERENCE_KL_HIGH:g}); raise grpo.beta, or lower learning_rate"
        )
    elif value > REFERENCE_KL_NOTED and growing > REFERENCE_KL_GROWTH * value:
        yield _note(
            f"moves away from the model before training{role}: {value:.2f} nats per token, up by "
            f"{growing:.2f} over the last half (high above {REFERENCE_KL_HIGH:g})"
        )
    elif value <= REFERENCE_KL_HIGH:
        yield _good(f"near the model before training: {_at_most(value)} nats per token{role}")


def _at_most(value: float) -> str:
    return f"at most {value:.3f}" if value >= 0.001 else "below 0.001"


def _growth(table: pd.DataFrame, metric: str) -> float:
    """The largest significant rise of a metric over the last half, of any group; 0 without one."""
    changes = [0.0]
    for column in columns_of(table, metric).values():
        measured = table[np.isfinite(table[column])]
        trend = last_half_trend(Curve(*measured[["frames", column]].to_numpy().T))
        if trend and trend.change > TREND_STANDARD_ERRORS * trend.change_error:
            changes.append(trend.change)
    return max(changes)


def _of_the_first(values: pd.Series) -> float:
    """The recent mean as a share of the first value; NaN where nothing has changed yet.

    NaN as well where values are negative, as the entropy of continuous actions may be.
    """
    measured = values.dropna()
    if len(measured) < 2 or measured.iloc[0] <= 0 or measured.min() < 0:
        return math.nan
    return _recent_mean(measured) / measured.iloc[0]


def _risen(table: pd.DataFrame, column: str | None) -> bool:
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
    figure_of: Callable[[pd.Series], float] = _recent_mean,
) -> tuple[str, float]:
    """The group with the largest or smallest figure of a metric, as words, and that figure.

    NaN, which is neither above nor below any limit, where nothing was measured.
    """
    columns = columns_of(table, metric)
    figures = {group: figure_of(table[column]) for group, column in columns.items()}
    finite = [group for group, value in figures.items() if math.isfinite(value)]
    if not finite:
        return "", math.nan
    group = extreme(finite, key=figures.__getitem__)
    return _of_group(group), figures[group]


def _of_group(group: str) -> str:
    return f" ({group})" if group else ""


def _curve(table: pd.DataFrame) -> Curve:
    if not {"frames", "episode_return"} <= set(table.columns):
        return Curve(np.empty(0), np.empty(0))
    measured = table[np.isfinite(table["episode_return"])]
    return Curve(measured["frames"].to_numpy(), measured["episode_return"].to_numpy())
