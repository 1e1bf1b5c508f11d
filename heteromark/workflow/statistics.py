"""Statistics over seeds. Pure functions on numbers: no files, no tables.

Scores of one config form an array `[seeds]`, or `[seeds, tasks]` when it ran on several tasks. The
seed is the independent unit: episodes of one run share its weights, so resampling them would
invent precision that a new training does not have.

Source of the interquartile mean and of the stratified bootstrap: Agarwal et al., "Deep
Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021, section 4.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heteromark.config.params import Statistic

# Reduces the last axis, `[..., scores] -> [...]`, so that one call covers all resamples.
Reduction = Callable[[np.ndarray], np.ndarray]

TRIMMED_SHARE = 0.25  # of each tail: what is left lies between the quartiles
CONFIDENCE = 0.95
# Up to 5 seeds of one task have at most 5**5 = 3,125 resamples: these are enumerated, so the usual
# smoke has no Monte Carlo error at all. Beyond, that error is about 1 % of the interval's width.
MAX_RESAMPLES = 5_000
BOOTSTRAP_SEED = 0


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

    Raises:
        ValueError: a score is NaN or infinite.
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
        scores: `[seeds]` or `[seeds, tasks]`.
        confidence: two-sided, in (0, 1).

    Returns:
        None with fewer than two seeds: one run says nothing about the next.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    checked = _finite_scores(scores)
    if len(checked) < 2:
        return None
    by_task = np.sort(checked.reshape(len(checked), -1), axis=0)
    seeds, tasks = by_task.shape
    resampled = by_task[_resamples(seeds, tasks), np.arange(tasks)].reshape(-1, seeds * tasks)
    tail = (1 - confidence) / 2
    low, high = np.quantile(
        REDUCTIONS[statistic](resampled), [tail, 1 - tail], method="inverted_cdf"
    )
    return Interval(float(low), float(high))


def coefficient_of_variation(scores: ArrayLike) -> float | None:
    """Sample standard deviation over |mean|, dimensionless; None below two seeds or at mean 0."""
    checked = np.sort(_finite_scores(scores))
    if len(checked) < 2:
        return None
    mean = abs(float(checked.mean()))
    return float(checked.std(ddof=1)) / mean if mean > 0 else None


def _finite_scores(scores: ArrayLike) -> np.ndarray:
    array = np.asarray(scores, dtype=float)
    if not np.isfinite(array).all():
        raise ValueError(f"scores must be finite, got {array.tolist()}")
    return array


@functools.lru_cache(maxsize=16)
def _resamples(seeds: int, tasks: int) -> np.ndarray:
    """Indices `[resamples, seeds, tasks]` of seeds, drawn with replacement within each task."""
    draws = seeds * tasks
    # In logarithms: the count itself overflows nothing in Python but takes long to compute.
    if draws * math.log(seeds) <= math.log(MAX_RESAMPLES):
        indices = np.array(list(itertools.product(range(seeds), repeat=draws)))
    else:
        indices = np.random.default_rng(BOOTSTRAP_SEED).integers(seeds, size=(MAX_RESAMPLES, draws))
    indices = indices.reshape(-1, seeds, tasks)
    indices.flags.writeable = False  # the cache hands out the same array again
    return indices
