import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from heteromark.workflow.statistics import (
    MAX_RESAMPLES,
    Interval,
    bootstrap_interval,
    coefficient_of_variation,
    score,
)

returns = st.floats(-1e6, 1e6, allow_nan=False)
seeds_of_returns = st.lists(returns, min_size=2, max_size=12)


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
    scores = np.random.default_rng(1).normal(size=30)
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
