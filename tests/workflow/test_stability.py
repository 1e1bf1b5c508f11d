import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from heteromark.workflow.stability import (
    SLOPE_UNIT_FRAMES,
    Curve,
    Verdict,
    judge_stability,
    last_half_trend,
)

returns = st.floats(-1e6, 1e6, allow_nan=False)


def curve(values, frames_per_iteration=1000):
    return Curve(
        frames_per_iteration * np.arange(1.0, len(values) + 1), np.asarray(values, dtype=float)
    )


def noise(seed, size=40):
    return np.random.default_rng(seed).normal(size=size)


# --- trends


def test_the_trend_is_over_the_last_half():
    # Ten iterations: 6,000 to 10,000 frames are the last half. The first half is steeper.
    trend = last_half_trend(curve([0, 100, 200, 300, 400, 500, 503, 506, 509, 512]))
    assert trend.slope == pytest.approx(3.0)  # per 1,000 frames
    assert trend.change == pytest.approx(12.0)
    assert trend.noise == pytest.approx(0.0, abs=1e-9)


def test_the_trend_equals_scipys_regression():
    returns = np.random.default_rng(0).normal(size=20) + 0.1 * np.arange(20)
    trend = last_half_trend(curve(returns, frames_per_iteration=500))
    frames = 500 * np.arange(11, 21) / SLOPE_UNIT_FRAMES
    line = scipy.stats.linregress(frames, returns[10:])
    length = frames[-1] - frames[0]
    assert trend.slope == pytest.approx(line.slope)
    assert trend.change == pytest.approx(line.slope * length)
    assert trend.change_error == pytest.approx(line.stderr * length)


def test_the_slope_is_per_thousand_frames():
    assert last_half_trend(curve(range(20), frames_per_iteration=500)).slope == pytest.approx(2.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0, 4.0]])
def test_fewer_than_three_points_have_no_trend(values):
    assert last_half_trend(curve(values)) is None


# --- verdicts


def verdict(*curves):
    return judge_stability(curves, seeds=len(curves)).verdict


@pytest.mark.parametrize("level", [0.0, -20.0, 1000.0])
def test_constant_curves_are_flat(level):
    assert verdict(curve([level] * 20), curve([level] * 20)) == Verdict.FLAT


def test_a_rounding_error_is_not_noise():
    assert verdict(curve(1000 + 1e-6 * noise(0))) == Verdict.FLAT


def test_rising_curves_are_steady():
    rise = np.linspace(-80, -20, 40)
    stability = judge_stability([curve(rise + noise(0)), curve(rise + noise(1))], seeds=2)
    assert stability.verdict == Verdict.STEADY
    assert "rises by" in stability.reason


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("level", [0.0, -20.0])
def test_random_curves_are_noisy(seed, level):
    stability = judge_stability([curve(level + 5 * noise(10 * seed + i)) for i in range(3)], 3)
    assert stability.verdict == Verdict.NOISY
    assert "fluctuate" in stability.reason


def test_a_plateau_is_flat():
    plateau = -80 + 60 * np.minimum(np.arange(40) / 10, 1)
    assert verdict(curve(plateau + noise(0)), curve(plateau + noise(1))) == Verdict.FLAT


def test_seeds_that_disagree_are_noisy():
    learnt, stuck = curve(np.linspace(-80, -20, 40)), curve(np.full(40, -80.0))
    stability = judge_stability([learnt, learnt, stuck], seeds=3)
    assert stability.verdict == Verdict.NOISY
    assert "3 seeds average -80 to -34.6" in stability.reason


def test_a_falling_curve_is_falling():
    assert verdict(curve(np.linspace(-20, -80, 40))) == Verdict.FALLING


def test_one_diverged_seed_makes_a_config_diverged():
    rising = curve(np.linspace(-80, -20, 40))
    stability = judge_stability([rising], seeds=3, diverged={2: "loss is NaN", 0: "loss is NaN"})
    assert stability.verdict == Verdict.DIVERGED
    assert stability.reason == "2 of 3 seeds diverged (seeds 0, 2: loss is NaN)"


def test_too_little_measured_is_unknown():
    assert judge_stability([], seeds=3).reason == "none of 3 seeds completed"
    assert verdict(curve([1.0, 2.0]), curve(range(20))) == Verdict.UNKNOWN


@given(st.lists(st.lists(returns, min_size=6, max_size=12), min_size=1, max_size=4), st.data())
def test_there_is_always_a_verdict_independent_of_the_order_of_seeds(values, data):
    curves = [curve(each) for each in values]
    permuted = data.draw(st.permutations(curves))
    assert judge_stability(curves, 4).verdict == judge_stability(permuted, 4).verdict
