"""Trends of learning curves over their last half, and a verdict over a config's seeds.

Pure functions on numbers: no files, no tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

SLOPE_UNIT_FRAMES = 1_000
# A line through two points has no residuals, so its noise and error are unknown.
MIN_TREND_POINTS = 3

# Returns that change by less than a tenth of their size count as constant, on any reward scale.
# Without this floor, a curve of 1000.000 ... 1000.001 would be all noise.
SCALE_FLOOR_SHARE = 0.1
SCALE_PERCENTILES = (5, 95)  # unlike the range, these do not widen with the number of iterations
# Pure Gaussian noise of any size has a standard deviation of 0.30 of its 5-95 percentile range. A
# straight line plus noise reaches 0.2 when the noise is a fifth of the total rise.
NOISY_SHARE = 0.2
# Seeds whose last halves differ by this standard deviation found different policies. Example with
# three seeds: two at the top and one slightly less than half-way down.
DISAGREEMENT_SHARE = 0.25
# A straight learning curve changes by about half its scale over the last half. A tenth of that is
# too slow to be worth more training.
FLAT_SHARE = 0.05
# The usual two standard errors. Successive iterations are correlated, so this test finds trends
# too easily; FLAT_SHARE excludes small ones.
TREND_STANDARD_ERRORS = 2.0


class Curve(NamedTuple):
    """A learning curve: `frames` and `returns`, both `[iterations]`, finite, frames increasing."""

    frames: np.ndarray
    returns: np.ndarray


@dataclass(frozen=True)
class Trend:
    """Least-squares line through the last half of a learning curve, in units of the return."""

    slope: float  # per SLOPE_UNIT_FRAMES frames
    change: float  # of the line, from its first to its last frame
    change_error: float  # standard error of `change`
    noise: float  # standard deviation around the line


def last_half_trend(curve: Curve) -> Trend | None:
    """Return the trend over the iterations that end in the last half of the run's frames.

    Returns None if fewer than `MIN_TREND_POINTS` of them measured a return.
    """
    if len(curve.frames) == 0:
        return None
    frames, returns = _last_half(curve)
    if len(frames) < MIN_TREND_POINTS:
        return None
    units = (frames - frames[0]) / SLOPE_UNIT_FRAMES
    # Same as scipy.stats.linregress, without its slow import.
    around_mean = units - units.mean()
    spread = float(np.sum(around_mean**2))
    slope = float(np.sum(around_mean * (returns - returns.mean()))) / spread
    residuals = returns - returns.mean() - slope * around_mean
    variance = float(np.sum(residuals**2)) / (len(returns) - 2)
    return Trend(
        slope=slope,
        change=slope * float(units[-1]),
        change_error=math.sqrt(variance / spread) * float(units[-1]),
        noise=math.sqrt(variance),
    )


# --- the verdict ------------------------------------------------------------------------------


class Verdict(StrEnum):
    """The shape of one config's learning curves, over its seeds."""

    STEADY = "steady"  # still rises, and the seeds agree
    NOISY = "noisy"  # fluctuation or disagreement between seeds hides what is learnt
    FLAT = "flat"  # no longer changes: converged, or never learnt
    FALLING = "falling"  # loses what it learnt
    DIVERGED = "diverged"  # a seed reached NaN or infinity
    UNKNOWN = "unknown"  # too little was measured


@dataclass(frozen=True)
class Stability:
    """A verdict and the reason for it, with numbers."""

    verdict: Verdict
    reason: str


def describe_reasons(reasons: Mapping[int, str]) -> str:
    """Return `seeds 0, 2: loss is NaN; seed 1: ...` for a mapping of seed -> reason."""
    seeds_of: dict[str, list[int]] = {}
    for seed in sorted(reasons):
        seeds_of.setdefault(reasons[seed], []).append(seed)
    return "; ".join(
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {reason}"
        for reason, seeds in seeds_of.items()
    )


def judge_stability(
    curves: Sequence[Curve], seeds: int, diverged: Mapping[int, str] | None = None
) -> Stability:
    """Judge one config by the learning curves of its completed runs.

    Fluctuation, disagreement and change are compared with one scale: the 5-95 percentile range of
    all returns, at least `SCALE_FLOOR_SHARE` of their mean size.

    Args:
        curves: one per completed run.
        seeds: number of planned runs, for the reason.
        diverged: seed -> reason for the runs that diverged. One such run decides the verdict.
    """
    if diverged:
        return Stability(
            Verdict.DIVERGED,
            f"{len(diverged)} of {seeds} seeds diverged ({describe_reasons(diverged)})",
        )
    if not curves:
        return Stability(Verdict.UNKNOWN, f"none of {seeds} seeds completed")
    trends = [trend for curve in curves if (trend := last_half_trend(curve)) is not None]
    if len(trends) < len(curves):
        return Stability(
            Verdict.UNKNOWN,
            f"{len(curves) - len(trends)} of {len(curves)} completed runs measured fewer than "
            f"{MIN_TREND_POINTS} returns over the last half",
        )
    return _judge_trends(curves, trends)


def _judge_trends(curves: Sequence[Curve], trends: Sequence[Trend]) -> Stability:
    returns = np.sort(np.concatenate([curve.returns for curve in curves]))
    low, high = np.percentile(returns, SCALE_PERCENTILES)
    scale = max(float(high - low), SCALE_FLOOR_SHARE * float(np.abs(returns).mean()))

    def share(amount: float) -> float:
        return amount / scale if scale > 0 else 0.0

    noise = math.sqrt(math.fsum(trend.noise**2 for trend in trends) / len(trends))
    change = math.fsum(trend.change for trend in trends) / len(trends)
    error = math.sqrt(math.fsum(trend.change_error**2 for trend in trends)) / len(trends)
    levels = np.sort([_last_half(curve).returns.mean() for curve in curves])
    disagreement = float(levels.std(ddof=1)) if len(levels) > 1 else 0.0

    of_scale = f"of the returns' scale of {scale:.3g}"
    if share(noise) > NOISY_SHARE:
        return Stability(
            Verdict.NOISY,
            f"returns fluctuate by {noise:.3g} around their trend over the last half, "
            f"{share(noise):.0%} {of_scale} (noisy above {NOISY_SHARE:.0%})",
        )
    if share(disagreement) > DISAGREEMENT_SHARE:
        return Stability(
            Verdict.NOISY,
            f"{len(levels)} seeds average {levels[0]:.3g} to {levels[-1]:.3g} over the last half, "
            f"a standard deviation of {share(disagreement):.0%} {of_scale} "
            f"(noisy above {DISAGREEMENT_SHARE:.0%})",
        )
    is_trend = abs(share(change)) > FLAT_SHARE and abs(change) > TREND_STANDARD_ERRORS * error
    amount = f"by {abs(change):.3g} over the last half, {abs(share(change)):.0%} {of_scale}"
    if is_trend and change > 0:
        why = f"the return rises {amount}, with {share(noise):.0%} noise"
        return Stability(Verdict.STEADY, why)
    if is_trend:
        why = f"the return falls {amount}: what was learnt is being lost"
        return Stability(Verdict.FALLING, why)
    start = math.fsum(curve.returns[0] for curve in curves) / len(curves)
    return Stability(
        Verdict.FLAT,
        f"the return changes by {change:+.3g} (standard error {error:.2g}) over the last half, "
        f"{abs(share(change)):.0%} {of_scale}; it began at {start:.3g} and stays near "
        f"{float(levels.mean()):.3g}",
    )


def _last_half(curve: Curve) -> Curve:
    late = curve.frames > curve.frames[-1] / 2
    return Curve(curve.frames[late], curve.returns[late])
