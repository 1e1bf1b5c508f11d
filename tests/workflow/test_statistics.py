import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from heteromark.workflow.statistics import (
    MAX_RESAMPLES,
    SLOPE_UNIT_FRAMES,
    Curve,
    Interval,
    Verdict,
    bootstrap_interval,
    coefficient_of_variation,
    judge_stability,
    last_half_trend,
    score,
)

returns = st.floats(-1e6, 1e6, allow_nan=False)
seeds_of_returns = st.lists(returns, min_size=2, max_size=12)


def curve(values, frames_per_iteration=1000):
    return Curve(
        frames_per_iteration * np.arange(1.0, len(values) + 1), np.asarray(values, dtype=float)
    )


def noise(seed, size=40):
    return np.random.default_rng(seed).normal(size=size)


# --- scores


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 9.0], 4.0),  # floor(3 / 4) = 0 are cut: the mean
        ([0.0, 1.0, 3.0, 100.0], 2.0),  # one at each end
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),
        ([-9.0, -8.0, 1.0, 2.0, 3.0, 6.0, 50.0, 60.0], 3.0),  # two at each end
    ],
)
def test_interquartile_mean_by_hand(scores, expected):
    assert score(scores, "iqm") == expected


@given(st.lists(returns, min_size=1, max_size=40))
def test_interquartile_mean_is_that_of_rliable(scores):
    expected = scipy.stats.trim_mean(scores, proportiontocut=0.25, axis=None)
    assert score(scores, "iqm") == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(st.lists(returns, min_size=1, max_size=40), st.sampled_from(["iqm", "mean", "median"]))
def test_a_score_lies_between_the_worst_and_the_best_seed(scores, statistic):
    assert min(scores) <= score(scores, statistic) <= max(scores)


@given(seeds_of_returns, st.sampled_from(["iqm", "mean", "median", "min"]), st.data())
def test_a_better_seed_never_lowers_a_score(scores, statistic, data):
    index = data.draw(st.integers(0, len(scores) - 1))
    better = list(scores)
    better[index] += data.draw(st.floats(0, 1e6))
    assert score(better, statistic) >= score(scores, statistic)


@given(seeds_of_returns, st.sampled_from(["iqm", "mean", "median", "min"]), st.data())
def test_the_order_of_seeds_changes_no_bit(scores, statistic, data):
    permuted = data.draw(st.permutations(scores))
    assert score(permuted, statistic) == score(scores, statistic)
    assert bootstrap_interval(permuted, statistic) == bootstrap_interval(scores, statistic)
    assert coefficient_of_variation(permuted) == coefficient_of_variation(scores)


def test_several_tasks_are_pooled():
    assert score([[0.0, 1.0], [3.0, 100.0]], "iqm") == 2.0


def test_no_score_without_seeds():
    assert score([]) is None
    assert bootstrap_interval([]) is None
    assert coefficient_of_variation([]) is None


@pytest.mark.parametrize("function", [score, bootstrap_interval, coefficient_of_variation])
def test_scores_must_be_finite(function):
    with pytest.raises(ValueError, match="finite"):
        function([1.0, float("nan")])


# --- intervals


def test_one_seed_has_no_interval():
    assert bootstrap_interval([3.0]) is None


@given(st.lists(returns, min_size=2, max_size=3))
def test_the_interval_of_two_or_three_seeds_is_their_range(scores):
    assert bootstrap_interval(scores) == Interval(min(scores), max(scores))


def test_the_interval_of_few_seeds_is_exact():
    # The median of four draws is 0 when three or four of them are: C(4,3) * 3 + 1 = 13 of the
    # 4**4 = 256 resamples, 5.08 %. That is above the tail of 2.5 %. Likewise for 3.
    assert bootstrap_interval([0.0, 1.0, 2.0, 3.0], "median") == Interval(0.0, 3.0)
    # It is also above the tail of 5 %, but below that of 5.5 %.
    assert bootstrap_interval([0.0, 1.0, 2.0, 3.0], "median", 0.90) == Interval(0.0, 3.0)
    assert bootstrap_interval([0.0, 1.0, 2.0, 3.0], "median", 0.89) == Interval(0.5, 2.5)


@given(seeds_of_returns, st.sampled_from(["iqm", "mean", "median", "min"]))
def test_the_interval_contains_the_score(scores, statistic):
    low, high = bootstrap_interval(scores, statistic)
    assert low <= score(scores, statistic) <= high


def test_many_seeds_are_drawn_with_a_fixed_generator():
    scores = noise(seed=1, size=30)
    interval = bootstrap_interval(scores, "mean")
    assert interval == bootstrap_interval(scores, "mean")
    error = scores.std(ddof=1) / np.sqrt(30)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert 5**5 <= MAX_RESAMPLES < 6**6


def test_the_bootstrap_is_stratified_by_task():
    # Seeds do not differ within a task, so nothing is uncertain, however much the tasks differ.
    assert bootstrap_interval([[0.0, 100.0]] * 3, "mean") == Interval(50.0, 50.0)


def test_intervals_overlap():
    assert Interval(0, 2).overlaps(Interval(1, 3))
    assert Interval(1, 3).overlaps(Interval(0, 1))
    assert not Interval(0, 1).overlaps(Interval(2, 3))


def test_coefficient_of_variation_by_hand():
    assert coefficient_of_variation([-1.0, -3.0]) == pytest.approx(np.sqrt(2) / 2)
    assert coefficient_of_variation([5.0]) is None
    assert coefficient_of_variation([-1.0, 1.0]) is None


# --- trends


def test_the_trend_is_that_of_the_last_half():
    # Ten iterations: 6,000 to 10,000 frames are the last half. The first half would be steeper.
    trend = last_half_trend(curve([0, 100, 200, 300, 400, 500, 503, 506, 509, 512]))
    assert trend.slope == pytest.approx(3.0)  # per 1,000 frames
    assert trend.change == pytest.approx(12.0)
    assert trend.noise == pytest.approx(0.0, abs=1e-9)


def test_the_trend_is_scipys_regression():
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
def test_no_trend_through_fewer_than_three_points(values):
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


def test_a_falling_curve_is_not_called_steady():
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
def test_a_verdict_is_always_found_and_ignores_the_order_of_seeds(values, data):
    curves = [curve(each) for each in values]
    permuted = data.draw(st.permutations(curves))
    assert judge_stability(curves, 4).verdict == judge_stability(permuted, 4).verdict
