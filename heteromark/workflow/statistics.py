"""Statistics over seeds. Pure functions on numbers: no files, no tables.

Scores of one config form an array `[seeds]`, or `[seeds, tasks]` when it ran on several tasks.
Every function raises ValueError where a score is NaN or infinite. The seed is the independent unit:
episodes of one run share its weights, so resampling them would invent precision that a new training
does not have.

Source of the interquartile mean, the stratified bootstrap, the probability of improvement and the
performance profile: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", NeurIPS 2021, section 4.

What intervals are worth with few seeds, whatever their confidence is called: none from one seed,
which says nothing about the next; from two or three seeds of one task the 95 % interval is their
range, and the range of `n` seeds holds the median of all trainings of that config with probability
`1 - 2**(1 - n)`: 50 % with two, 75 % with three.
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

# Reduces the last axis, `[..., scores] -> [...]`, so that one call covers all resamples.
Reduction = Callable[[np.ndarray], np.ndarray]

TRIMMED_SHARE = 0.25  # of each tail: what is left lies between the quartiles
CONFIDENCE = 0.95
# Up to 5 seeds of one task have at most 5**5 = 3,125 resamples: these are enumerated, so the usual
# smoke has no Monte Carlo error at all. Beyond, that error is about 1 % of the interval's width.
MAX_RESAMPLES = 5_000
BOOTSTRAP_SEED = 0
# Up to so many seeds of one task, the 95 % interval is their range: of three, the worst is drawn
# three times in 1 of 27 resamples, which is more than the tail of 2.5 %.
RANGE_SEEDS = 3


class Interval(NamedTuple):
    """A confidence interval, in the unit of the statistic."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


# --- one number per config --------------------------------------------------------------------


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the scores between the quartiles, over the last axis.

    `floor(n / 4)` scores are cut at each end, as in `scipy.stats.trim_mean(scores, 0.25)`, which
    rliable uses: no score is weighted by a fraction. So the IQM of up to three seeds is their
    mean. Sorting makes the result bit-identical under any order of the seeds.
    """
    ordered = np.sort(scores, axis=-1)
    count = ordered.shape[-1]
    cut = int(TRIMMED_SHARE * count)
    return _mean_of_ordered(ordered[..., cut : count - cut])


def _mean(scores: np.ndarray) -> np.ndarray:
    return _mean_of_ordered(np.sort(scores, axis=-1))


def _mean_of_ordered(scores: np.ndarray) -> np.ndarray:
    # Rounding can carry the mean of equal numbers past them, and intervals past the seeds' range.
    return np.clip(scores.mean(axis=-1), scores[..., 0], scores[..., -1])


REDUCTIONS: dict[Statistic, Reduction] = {
    "iqm": interquartile_mean,
    "mean": _mean,
    "median": lambda scores: np.median(scores, axis=-1),
    "min": lambda scores: np.min(scores, axis=-1),
}


def score(scores: ArrayLike, statistic: Statistic = "iqm") -> float | None:
    """One number for all scores, `[seeds]` or `[seeds, tasks]` pooled; None without scores.

    Several tasks are pooled, so their scores must be of one scale: see `normalised`. Their median
    is that of all runs, where rliable's is that of the tasks' means.
    """
    checked = _finite_scores(scores)
    return float(REDUCTIONS[statistic](checked.ravel())) if checked.size else None


def bootstrap_interval(
    scores: ArrayLike, statistic: Statistic = "iqm", confidence: float = CONFIDENCE
) -> Interval | None:
    """Percentile bootstrap interval, stratified by task: seeds are drawn anew within each task.

    Percentiles are attained values (no interpolation), so that with two or three seeds of one task
    the 95 % interval is exactly their range. Independent of the order of the seeds. Deterministic:
    all resamples where they are few (`MAX_RESAMPLES`), else a fixed sequence of random ones.

    Args:
        confidence: two-sided, in (0, 1).

    Returns:
        None with fewer than two seeds: one run says nothing about the next.
    """
    by_task = _by_task(scores)
    tasks, seeds = by_task.shape
    if seeds < 2:
        return None
    drawn = _resamples((seeds,) * tasks).reshape(-1, tasks, seeds)
    resampled = by_task[np.arange(tasks)[:, None], drawn].reshape(-1, tasks * seeds)
    return _percentiles(REDUCTIONS[statistic](resampled), confidence)


def coefficient_of_variation(scores: ArrayLike) -> float | None:
    """Sample standard deviation over |mean|, dimensionless; None below two seeds or at mean 0."""
    checked = np.sort(_finite_scores(scores))
    if len(checked) < 2:
        return None
    mean = abs(float(checked.mean()))
    return float(checked.std(ddof=1)) / mean if mean > 0 else None


# --- several tasks, several configs -----------------------------------------------------------


def normalised(scores: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Scores on a scale that tasks share: 0 at `low`, 1 at `high`, beyond them not clipped.

    Args:
        scores: in units of each task's score.
        low: of each task, `[tasks]`, or one number for all: what random play scores, say.
        high: likewise: what a reference policy scores, or the best possible score.

    Returns:
        Dimensionless, in the shape of `scores`.

    Raises:
        ValueError: a bound is NaN or infinite, `high` is not above `low`, or there are not as
            many of them as tasks.
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
                f"{f'task {index[0]}: ' if index else ''}scores are normalised between finite "
                f"numbers with low < high, got low {lowest:g}, high {highest:g}"
            )
    return (checked - bounds["low"]) / (bounds["high"] - bounds["low"])


def probability_of_improvement(scores_x: ArrayLike, scores_y: ArrayLike) -> float | None:
    """How likely a run of config X scores higher than one of config Y on a task, in [0, 1].

    The share of pairs of runs of the same task in which X scores higher, ties counted half, over
    all tasks: the Mann-Whitney statistic over its maximum, averaged over tasks. It says nothing
    about by how much. None where a config has no scores; from a single run on either side it is
    no more than a count. The numbers of seeds may differ.

    Raises:
        ValueError: the numbers of tasks differ.
    """
    half_wins = _half_wins(scores_x, scores_y)
    return float(half_wins.mean()) / 2 if half_wins.size else None


def improvement_interval(
    scores_x: ArrayLike, scores_y: ArrayLike, confidence: float = CONFIDENCE
) -> Interval | None:
    """Percentile bootstrap interval of the probability of improvement.

    The seeds of both configs are drawn anew, independently, within each task; otherwise as in
    `bootstrap_interval`. None where either has fewer than two seeds.

    Where every run of one config beats every run of the other on each task, it is [1, 1] or
    [0, 0] however few they are, since no resample shows what no run did. That is no certainty: on
    one task, two equal configs come out like this in 2 of `binomial(n + m, n)` cases: in a third
    with two seeds each, in a tenth with three. Else, with two seeds each on one task, it is [0, 1]
    (but for ties), which says nothing.
    """
    half_wins = _half_wins(scores_x, scores_y)
    tasks, seeds_x, seeds_y = half_wins.shape
    if min(seeds_x, seeds_y) < 2:
        return None
    drawn = _resamples((seeds_x,) * tasks + (seeds_y,) * tasks)
    drawn_x, drawn_y = np.split(drawn, [tasks * seeds_x], axis=1)
    drawn_x = drawn_x.reshape(-1, tasks, seeds_x, 1)
    drawn_y = drawn_y.reshape(-1, tasks, 1, seeds_y)
    won = sum(  # task by task: the pairs of all resamples and tasks at once may take gigabytes
        half_wins[task][drawn_x[:, task], drawn_y[:, task]].sum(axis=(1, 2))
        for task in range(tasks)
    )
    return _percentiles(won / (2 * half_wins.size), confidence)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Share of all runs, over tasks, that score above each threshold: `[thresholds]`, in [0, 1].

    Args:
        scores: normalised where tasks differ in scale.
        thresholds: in the unit of the scores.

    Raises:
        ValueError: there are no scores, or a threshold is NaN or infinite.
    """
    return _above(scores, thresholds).mean(axis=(1, 2))


def performance_profile_intervals(
    scores: ArrayLike, thresholds: ArrayLike, confidence: float = CONFIDENCE
) -> list[Interval] | None:
    """`bootstrap_interval` of the performance profile at each threshold; None with one seed.

    They hold point by point, not for the whole profile at once. Where no run, or every run, is
    above a threshold, the interval is that one number, however few the runs.
    """
    above = _above(scores, thresholds).astype(float)
    if above.shape[1] < 2:
        return None
    return [bootstrap_interval(each, "mean", confidence) for each in above]


def _half_wins(scores_x: ArrayLike, scores_y: ArrayLike) -> np.ndarray:
    """`[tasks, seeds_x, seeds_y]`: 2 where the run of X scores higher, 1 where both score equal.

    Whole numbers, so that sums are exact in any order of the seeds.
    """
    x, y = _by_task(scores_x), _by_task(scores_y)
    if len(x) != len(y):
        raise ValueError(
            f"both configs must have run on the same tasks, got scores of {len(x)} and of {len(y)}"
        )
    x, y = x[:, :, None], y[:, None, :]
    return (x > y).astype(np.int8) + (x >= y)


def _above(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """`[thresholds, seeds, tasks]`: whether a run scores above a threshold."""
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
    """Finite scores as `[tasks, seeds]`, sorted, so that the order of the seeds is forgotten."""
    checked = _finite_scores(scores)
    return np.sort(checked[None] if checked.ndim == 1 else checked.T, axis=1)


def _percentiles(resampled: np.ndarray, confidence: float) -> Interval:
    """The interval between the tails of a statistic's values, `[resamples]`."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(low), float(high))


@functools.lru_cache(maxsize=16)
def _resamples(strata: tuple[int, ...]) -> np.ndarray:
    """Indices `[resamples, draws]`: in each stratum of n seeds, n drawn with replacement.

    Draws are independent, within a stratum and between strata, which follow one another.
    """
    seeds = np.repeat(strata, strata)  # to draw from, at each draw
    # In logarithms: the count itself overflows nothing in Python but takes long to compute.
    if np.log(seeds).sum() <= math.log(MAX_RESAMPLES):
        indices = np.array(list(itertools.product(*map(range, seeds))))
    else:
        indices = np.random.default_rng(BOOTSTRAP_SEED).integers(
            seeds, size=(MAX_RESAMPLES, len(seeds))
        )
    indices.flags.writeable = False  # the cache hands out the same array again
    return indices
