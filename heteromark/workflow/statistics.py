"""Statistics over seeds. Pure functions on numbers: no files, no tables.

Scores of one config form an array `[seeds]`, or `[seeds, tasks]` when it ran on several tasks.
Every function raises ValueError if a score is NaN or infinite. The seed is the independent unit:
the episodes of one run share its weights, so resampling them would overstate the precision.

Source of the interquartile mean, the stratified bootstrap, the probability of improvement and the
performance profile: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", NeurIPS 2021, section 4.

Intervals from few seeds promise more than they hold. One seed gives no interval, because it says
nothing about the next. With two or three seeds of one task, the 95 % interval is their range. The
range of `n` seeds contains the median of all trainings of the config with probability
`1 - 2**(1 - n)`: 50 % with two seeds, 75 % with three.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heteromark.config.models.params import Statistic

# Reduces the last axis, `[..., scores] -> [...]`, so one call handles all resamples.
Reduction = Callable[[np.ndarray], np.ndarray]

TRIMMED_SHARE = 0.25  # cut from each tail, so the rest lies between the quartiles
CONFIDENCE = 0.95
# Up to 5 seeds of one task have at most 5**5 = 3,125 resamples. All of them are used, so the usual
# smoke has no Monte Carlo error. With more seeds, the error is about 1 % of the interval's width.
MAX_RESAMPLES = 5_000
BOOTSTRAP_SEED = 0
# With up to this number of seeds of one task, the 95 % interval is their range. With three seeds,
# the worst is drawn three times in 1 of 27 resamples, which is more than the tail of 2.5 %.
RANGE_SEEDS = 3


class Interval(NamedTuple):
    """A confidence interval, in the unit of the statistic."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


# --- one number per config --------------------------------------------------------------------


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean of the scores between the quartiles, over the last axis.

    `floor(n / 4)` scores are cut at each end, as in `scipy.stats.trim_mean(scores, 0.25)`, which
    rliable uses. No score is weighted by a fraction, so the IQM of up to three seeds is their mean.
    Because the scores are sorted, the result is bit-identical for any order of the seeds.
    """
    ordered = np.sort(scores, axis=-1)
    count = ordered.shape[-1]
    cut = int(TRIMMED_SHARE * count)
    return _mean_of_ordered(ordered[..., cut : count - cut])


def _mean(scores: np.ndarray) -> np.ndarray:
    return _mean_of_ordered(np.sort(scores, axis=-1))


def _mean_of_ordered(scores: np.ndarray) -> np.ndarray:
    # Clip: rounding can move the mean of equal numbers, and so an interval, beyond their range.
    return np.clip(scores.mean(axis=-1), scores[..., 0], scores[..., -1])


REDUCTIONS: dict[Statistic, Reduction] = {
    "iqm": interquartile_mean,
    "mean": _mean,
    "median": lambda scores: np.median(scores, axis=-1),
    "min": lambda scores: np.min(scores, axis=-1),
}


def score(scores: ArrayLike, statistic: Statistic = "iqm") -> float | None:
    """Return one number for all scores, `[seeds]` or `[seeds, tasks]`; None without scores.

    Several tasks are pooled, so their scores must have the same scale (see `normalised`). The
    median is over all runs; rliable takes the median over the means of the tasks.
    """
    checked = _finite_scores(scores)
    return float(REDUCTIONS[statistic](checked.ravel())) if checked.size else None


def bootstrap_interval(
    scores: ArrayLike, statistic: Statistic = "iqm", confidence: float = CONFIDENCE
) -> Interval | None:
    """Return the percentile bootstrap interval, with seeds resampled within each task.

    Percentiles are not interpolated, so the 95 % interval of two or three seeds of one task is
    exactly their range. The result does not depend on the order of the seeds. It is deterministic:
    it uses all resamples, or a fixed random sequence if there are more than `MAX_RESAMPLES`.

    Args:
        confidence: two-sided, in (0, 1).

    Returns:
        None with fewer than two seeds: one run says nothing about the next.
    """
    by_task = _by_task(scores)
    return _resampled_interval(by_task, statistic, confidence) if by_task.shape[1] > 1 else None


def _resampled_interval(by_task: np.ndarray, statistic: Statistic, confidence: float) -> Interval:
    """Return the bootstrap interval for scores `[tasks, seeds]` with at least two seeds."""
    tasks, seeds = by_task.shape
    drawn = _resamples((seeds,) * tasks).reshape(-1, tasks, seeds)
    resampled = by_task[np.arange(tasks)[:, None], drawn].reshape(-1, tasks * seeds)
    return _percentiles(REDUCTIONS[statistic](resampled), confidence)


def coefficient_of_variation(scores: ArrayLike) -> float | None:
    """Return standard deviation / |mean|, dimensionless; None for one seed or a mean of 0."""
    checked = np.sort(_finite_scores(scores))
    if len(checked) < 2:
        return None
    mean = abs(float(checked.mean()))
    return float(checked.std(ddof=1)) / mean if mean > 0 else None


# --- several tasks, several configs -----------------------------------------------------------


def normalised(scores: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Return scores on a scale shared by all tasks: 0 at `low`, 1 at `high`, not clipped.

    Args:
        scores: in units of each task's score.
        low: per task, `[tasks]`, or one number for all, e.g. the score of random play.
        high: in the same form as `low`, e.g. the score of a reference policy or the best possible.

    Returns:
        Dimensionless scores in the shape of `scores`.

    Raises:
        ValueError: a bound is NaN or infinite, `high` is not above `low`, or the number of bounds
            is not the number of tasks.
    """
    checked = _finite_scores(scores)
    tasks = checked.shape[1:]
    bounds = {}
    for name, bound in (("low", low), ("high", high)):
        array = np.asarray(bound, dtype=float)
        if array.shape not in ((), tasks):
            raise ValueError(
                f"{name} must be one number{f' or {tasks[0]}, one per task' if tasks else ''}, "
                f"got {array.tolist()}"
            )
        bounds[name] = np.broadcast_to(array, tasks)
    for index in np.ndindex(tasks):
        lowest, highest = bounds["low"][index], bounds["high"][index]
        if not (np.isfinite([lowest, highest]).all() and lowest < highest):
            raise ValueError(
                f"{f'task {index[0]}: ' if index else ''}low and high must be finite numbers "
                f"with low < high, got low {lowest:g}, high {highest:g}"
            )
    return (checked - bounds["low"]) / (bounds["high"] - bounds["low"])


def probability_of_improvement(scores_x: ArrayLike, scores_y: ArrayLike) -> float | None:
    """Return the probability that a run of config X scores higher than one of config Y, in [0, 1].

    This is the share of pairs of runs of the same task in which X scores higher, counting ties
    half: the Mann-Whitney statistic divided by its maximum, averaged over tasks. It says nothing
    about the size of the difference. With a single run of a config, it is only a count. The numbers
    of seeds may differ. Returns None if a config has no scores.

    Raises:
        ValueError: the numbers of tasks differ.
    """
    half_wins = _half_wins(scores_x, scores_y)
    return float(half_wins.mean()) / 2 if half_wins.size else None


def improvement_interval(
    scores_x: ArrayLike, scores_y: ArrayLike, confidence: float = CONFIDENCE
) -> Interval | None:
    """Return the percentile bootstrap interval of the probability of improvement.

    The seeds of both configs are resampled independently within each task, as in
    `bootstrap_interval`. Returns None if either config has fewer than two seeds.

    Few seeds give misleading intervals. If every run of one config beats every run of the other on
    each task, the interval is [1, 1] or [0, 0], even with few runs. On one task, this happens with
    two equal configs in 2 of `binomial(n + m, n)` cases: a third of the cases with two seeds each,
    a tenth with three. Otherwise, with two seeds each on one task and no ties, the interval is
    [0, 1], which says nothing.
    """
    half_wins = _half_wins(scores_x, scores_y)
    tasks, seeds_x, seeds_y = half_wins.shape
    if min(seeds_x, seeds_y) < 2:
        return None
    drawn = _resamples((seeds_x,) * tasks + (seeds_y,) * tasks)
    drawn_x, drawn_y = np.split(drawn, [tasks * seeds_x], axis=1)
    drawn_x = drawn_x.reshape(-1, tasks, seeds_x, 1)
    drawn_y = drawn_y.reshape(-1, tasks, 1, seeds_y)
    won = sum(  # task by task: all pairs at once may take gigabytes
        half_wins[task][drawn_x[:, task], drawn_y[:, task]].sum(axis=(1, 2))
        for task in range(tasks)
    )
    return _percentiles(won / (2 * half_wins.size), confidence)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Return the share of all runs that score above each threshold: `[thresholds]`, in [0, 1].

    Args:
        scores: normalised if tasks differ in scale.
        thresholds: in the unit of the scores.

    Raises:
        ValueError: there are no scores, or a threshold is NaN or infinite.
    """
    return _above(scores, thresholds).mean(axis=(1, 2))


def performance_profile_intervals(
    scores: ArrayLike, thresholds: ArrayLike, confidence: float = CONFIDENCE
) -> list[Interval] | None:
    """Return the `bootstrap_interval` of the profile at each threshold; None with one seed.

    The intervals are valid point by point, not for the whole profile at once. If no run or every
    run is above a threshold, the interval is a single number, even with few runs.
    """
    above = _above(scores, thresholds).astype(float)
    if above.shape[1] < 2:
        return None
    return [_resampled_interval(_by_task(each), "mean", confidence) for each in above]


def _half_wins(scores_x: ArrayLike, scores_y: ArrayLike) -> np.ndarray:
    """Return `[tasks, seeds_x, seeds_y]`: 2 where the run of X scores higher, 1 for a tie.

    These are integers, so that sums are exact for any order of the seeds.
    """
    x, y = _by_task(scores_x), _by_task(scores_y)
    if len(x) != len(y):
        raise ValueError(
            f"both configs must have scores of the same tasks, got {len(x)} and {len(y)} tasks"
        )
    x, y = x[:, :, None], y[:, None, :]
    return (x > y).astype(np.int8) + (x >= y)


def _above(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Return `[thresholds, seeds, tasks]`: whether a run scores above a threshold."""
    checked = _by_task(scores).T
    if not checked.size:
        raise ValueError("a performance profile needs scores, got none")
    levels = np.asarray(thresholds, dtype=float)
    if levels.ndim != 1 or not np.isfinite(levels).all():
        raise ValueError(f"thresholds must be a list of finite numbers, got {levels.tolist()}")
    return checked > levels[:, None, None]


# --- resampling -------------------------------------------------------------------------------


def _finite_scores(scores: ArrayLike) -> np.ndarray:
    array = np.asarray(scores, dtype=float)
    if array.ndim not in (1, 2):
        raise ValueError(f"scores must be [seeds] or [seeds, tasks], got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"scores must be finite, got {array.tolist()}")
    return array


def _by_task(scores: ArrayLike) -> np.ndarray:
    """Return finite scores as `[tasks, seeds]`, sorted to be independent of the order of seeds."""
    checked = _finite_scores(scores)
    return np.sort(checked[None] if checked.ndim == 1 else checked.T, axis=1)


def _percentiles(resampled: np.ndarray, confidence: float) -> Interval:
    """Return the percentile interval of a statistic's resampled values, `[resamples]`."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(low), float(high))


@functools.lru_cache(maxsize=16)
def _resamples(strata: tuple[int, ...]) -> np.ndarray:
    """Return indices `[resamples, draws]`: n draws with replacement for each stratum of n seeds.

    All draws are independent. The draws of the strata are concatenated.
    """
    seeds = np.repeat(strata, strata)  # number of seeds to draw from, for each draw
    # Compare logarithms: the number of resamples itself may be too large to compute quickly.
    if np.log(seeds).sum() <= math.log(MAX_RESAMPLES):
        indices = np.array(list(itertools.product(*map(range, seeds))))
    else:
        indices = np.random.default_rng(BOOTSTRAP_SEED).integers(
            seeds, size=(MAX_RESAMPLES, len(seeds))
        )
    indices.flags.writeable = False  # the cache returns the same array again
    return indices
