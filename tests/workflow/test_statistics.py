import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromark.workflow.statistics import (
    MAX_RESAMPLES,
    RANGE_SEEDS,
    Interval,
    bootstrap_interval,
    coefficient_of_variation,
    improvement_interval,
    normalised,
    performance_profile,
    performance_profile_intervals,
    probability_of_improvement,
    score,
)

returns = st.floats(-1e6, 1e6, allow_nan=False)
seeds_of_returns = st.lists(returns, min_size=2, max_size=12)
few_levels = st.integers(-3, 3).map(float)  # so that ties are frequent


@st.composite
def score_tables(draw, configs=1, elements=few_levels):
    """Scores `[seeds, tasks]` of each config, on the same tasks, with 2 to 5 seeds."""
    tasks = draw(st.integers(1, 3))
    rows = st.lists(elements, min_size=tasks, max_size=tasks)
    return [np.array(draw(st.lists(rows, min_size=2, max_size=5))) for _ in range(configs)]


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


@given(seeds_of_returns, st.sampled_from(["iqm", "mean", "median"]), st.data())
def test_scores_scale_with_their_inputs(scores, statistic, data):
    factor, shift = data.draw(st.floats(-100, 100)), data.draw(returns)
    moved = score([factor * each + shift for each in scores], statistic)
    # Rounding errors are relative to the largest intermediate number: 100 * 1e6 + 1e6.
    assert moved == pytest.approx(factor * score(scores, statistic) + shift, abs=1e-6)


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


def test_without_seeds_there_is_no_score():
    assert score([]) is None
    assert bootstrap_interval([]) is None
    assert coefficient_of_variation([]) is None
    assert probability_of_improvement([], [1.0]) is None
    assert probability_of_improvement([1.0], []) is None
    assert improvement_interval([], [1.0, 2.0]) is None


@pytest.mark.parametrize(
    "function",
    [
        score,
        bootstrap_interval,
        coefficient_of_variation,
        lambda scores: probability_of_improvement([1.0], scores),
        lambda scores: improvement_interval(scores, [1.0, 2.0]),
        lambda scores: performance_profile(scores, [0.0]),
        lambda scores: performance_profile([0.0], scores),
        lambda scores: normalised(scores, 0, 1),
    ],
)
def test_scores_must_be_finite(function):
    with pytest.raises(ValueError, match="finite"):
        function([1.0, float("nan")])


def test_scores_have_at_most_two_axes():
    with pytest.raises(ValueError, match=r"\[seeds\] or \[seeds, tasks\], got shape \(2, 2, 2\)"):
        score(np.zeros((2, 2, 2)))


# --- intervals


def test_one_seed_has_no_interval():
    assert bootstrap_interval([3.0]) is None


@given(
    st.lists(returns, min_size=2, max_size=RANGE_SEEDS),
    st.sampled_from(["iqm", "mean", "median", "min"]),
)
def test_the_interval_of_two_or_three_seeds_is_their_range(scores, statistic):
    assert bootstrap_interval(scores, statistic) == Interval(min(scores), max(scores))


def test_the_interval_of_four_seeds_is_not_their_range():
    low, high = bootstrap_interval([0.0, 1.0, 2.0, 3.0], "mean")
    assert 0 < low < high < 3


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_range_of_few_seeds_contains_the_median_less_often_than_95_percent(seeds):
    # 1 - 2**(1 - n), see the module. Over 4,000 trials, the standard error is 0.8 %.
    trials = np.random.default_rng(0).normal(size=(4000, seeds))
    held = [low <= 0 <= high for low, high in map(bootstrap_interval, trials)]
    assert np.mean(held) == pytest.approx(1 - 2.0 ** (1 - seeds), abs=0.03)


def test_the_interval_of_few_seeds_is_exact():
    # The median of four draws is 0 if three or four of them are 0: C(4,3) * 3 + 1 = 13 of the
    # 4**4 = 256 resamples, 5.08 %. That is more than the tail of 2.5 %. The same holds for 3.
    assert bootstrap_interval([0.0, 1.0, 2.0, 3.0], "median") == Interval(0.0, 3.0)
    # It is also more than the tail of 5 %, but less than the tail of 5.5 %.
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
    # The seeds of a task are equal, so there is no uncertainty, although the tasks differ.
    assert bootstrap_interval([[0.0, 100.0]] * 3, "mean") == Interval(50.0, 50.0)


def test_intervals_overlap():
    assert Interval(0, 2).overlaps(Interval(1, 3))
    assert Interval(1, 3).overlaps(Interval(0, 1))
    assert not Interval(0, 1).overlaps(Interval(2, 3))


def test_coefficient_of_variation_by_hand():
    assert coefficient_of_variation([-1.0, -3.0]) == pytest.approx(np.sqrt(2) / 2)
    assert coefficient_of_variation([5.0]) is None
    assert coefficient_of_variation([-1.0, 1.0]) is None


# --- normalised scores


def test_scores_are_normalised_task_by_task():
    scores = [[-80.0, 5.0], [-20.0, 20.0]]
    np.testing.assert_array_equal(
        normalised(scores, low=[-80, 10], high=[-40, 20]), [[0.0, -0.5], [1.5, 1.0]]
    )
    np.testing.assert_array_equal(normalised([1.0, 3.0], 1, 5), [0.0, 0.5])
    np.testing.assert_array_equal(normalised(scores, 0, 20)[1], [-1.0, 1.0])


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([0, 3], [1, 3], r"task 1: .* low < high, got low 3, high 3"),
        ([0, 4], [1, 3], r"task 1: .* got low 4, high 3"),
        ([math.nan, 0], [1, 3], r"task 0: .* finite numbers .* got low nan, high 1"),
        (0, [math.inf, 3], r"task 0: .* got low 0, high inf"),
        ([0, 0, 0], 1, r"low must be one number or 2, one per task, got \[0.0, 0.0, 0.0\]"),
        (0, [[1, 1]], r"high must be one number or 2"),
    ],
)
def test_invalid_bounds_are_an_error(low, high, message):
    with pytest.raises(ValueError, match=message):
        normalised([[1.0, 2.0], [3.0, 4.0]], low, high)


def test_one_task_has_one_number_per_bound():
    with pytest.raises(ValueError, match=r"high must be one number, got \[1.0, 2.0\]"):
        normalised([1.0, 2.0], 0, [1, 2])
    with pytest.raises(
        ValueError, match=r"^low and high must be finite numbers .* got low 2, high 1"
    ):
        normalised([1.0, 2.0], 2, 1)


@given(score_tables())
def test_normalising_commutes_with_scoring_one_task(table):
    scores = table[0][:, 0]
    expected = normalised([score(scores)], -5, 7)[0]
    assert score(normalised(scores, -5, 7)) == pytest.approx(expected, abs=1e-12)


# --- the probability of improvement


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1.0], [0.0], 1.0),
        ([1.0], [1.0], 0.5),
        ([2.0, 4.0], [1.0, 3.0], 3 / 4),  # only 2 does not beat 3
        ([3.0, 5.0, 10.0], [1.0, 4.0, 5.0], 6.5 / 9),
        ([1.0, 2.0], [0.0, 2.0, 2.0], (1 + 1 + 2 * 0.5) / 6),
        # Two tasks: 3/4 and 0 of the pairs.
        ([[2.0, 0.0], [4.0, 0.0]], [[1.0, 9.0], [3.0, 9.0]], 3 / 8),
    ],
)
def test_probability_of_improvement_by_hand(x, y, expected):
    assert probability_of_improvement(x, y) == expected


def test_improvement_needs_the_same_tasks():
    with pytest.raises(ValueError, match="the same tasks, got 2 and 1 tasks"):
        probability_of_improvement([[1.0, 2.0]], [1.0])


@given(score_tables(configs=2))
def test_the_probabilities_of_both_directions_add_up_to_one(tables):
    x, y = tables
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)


@given(
    st.lists(returns, min_size=1, max_size=6), st.lists(returns, min_size=1, max_size=6), st.data()
)
def test_adding_a_constant_never_lowers_the_probability_of_improvement(x, y, data):
    constant = data.draw(st.floats(0, 1e6))
    raised = [each + constant for each in x]
    assert probability_of_improvement(raised, y) >= probability_of_improvement(x, y)
    assert probability_of_improvement(y, raised) <= probability_of_improvement(y, x)


@given(score_tables(configs=2, elements=returns), st.data())
def test_the_order_of_seeds_changes_no_bit_of_a_comparison(tables, data):
    x, y = tables
    permuted_x, permuted_y = (np.array(data.draw(st.permutations(list(each)))) for each in (x, y))
    for function in (probability_of_improvement, improvement_interval):
        assert function(permuted_x, permuted_y) == function(x, y)


@given(score_tables(configs=2))
def test_the_interval_contains_the_probability_of_improvement(tables):
    low, high = improvement_interval(*tables)
    assert 0 <= low <= probability_of_improvement(*tables) <= high <= 1


@pytest.mark.parametrize(("x", "y"), [([3.0], [1.0, 2.0]), ([1.0, 2.0], [3.0]), ([1.0], [2.0])])
def test_one_seed_has_no_interval_of_improvement(x, y):
    assert improvement_interval(x, y) is None


@given(st.permutations(range(4)))
def test_two_seeds_each_give_an_uninformative_interval(scores):
    x, y = scores[:2], scores[2:]
    wins = probability_of_improvement(x, y)
    assert improvement_interval(x, y) == ((wins, wins) if wins in (0, 1) else (0, 1))


@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_configs_often_differ_by_chance(seeds):
    # See the docstring: a third of the cases with two seeds, a tenth with three.
    trials = np.random.default_rng(0).normal(size=(4000, 2, seeds))
    wins = [probability_of_improvement(x, y) in (0, 1) for x, y in trials]
    assert np.mean(wins) == pytest.approx(2 / math.comb(2 * seeds, seeds), abs=0.03)


def test_the_configs_are_resampled_independently():
    # With the same resamples for both, a config would always beat itself with probability 0.5.
    for seeds in (3, 8):  # all resamples (3), random ones (8)
        low, high = improvement_interval(np.arange(seeds), np.arange(seeds))
        assert low < 0.3
        assert high > 0.7


def test_the_interval_of_improvement_of_few_seeds_is_exact():
    # All 27 * 27 resamples, counted one by one.
    x, y = [1.0, 2.0, 5.0], [0.0, 2.0, 3.0]
    every = [np.array(np.meshgrid(*[each] * 3)).reshape(3, -1).T for each in (x, y)]
    resampled = sorted(probability_of_improvement(a, b) for a in every[0] for b in every[1])
    for confidence in (0.5, 0.9, 0.95):
        low = resampled[math.ceil(729 * (1 - confidence) / 2) - 1]
        high = resampled[math.ceil(729 * (1 + confidence) / 2) - 1]
        assert improvement_interval(x, y, confidence) == (low, high)


# --- performance profiles


def test_a_performance_profile_by_hand():
    scores = [[0.0, 1.0], [0.5, 1.0]]
    np.testing.assert_array_equal(
        performance_profile(scores, [-1.0, 0.0, 0.5, 0.9, 1.0]), [1.0, 0.75, 0.5, 0.5, 0.0]
    )
    # Only the runs of the first task differ: drawing only one of them moves the share below 0.5 by a
    # quarter.
    assert performance_profile_intervals(scores, [-1.0, 0.0, 0.5, 1.0]) == [
        (1.0, 1.0),
        (0.5, 1.0),
        (0.5, 0.5),
        (0.0, 0.0),
    ]


def test_a_profile_without_scores_or_of_one_seed():
    with pytest.raises(ValueError, match="needs scores"):
        performance_profile([], [0.0])
    assert performance_profile_intervals([1.0], [0.0]) is None
    assert performance_profile_intervals([[1.0, 2.0]], [0.0]) is None


@given(
    score_tables(elements=returns), st.lists(returns, min_size=1, max_size=8).map(sorted), st.data()
)
def test_a_profile_falls_within_its_intervals(tables, thresholds, data):
    profile = performance_profile(tables[0], thresholds)
    low, high = np.array(performance_profile_intervals(tables[0], thresholds)).T
    assert (low <= profile).all()
    assert (profile <= high).all()
    for each in (low, profile, high):
        assert (np.diff(each) <= 0).all()
    permuted = np.array(data.draw(st.permutations(list(tables[0]))))
    assert performance_profile(permuted, thresholds).tolist() == profile.tolist()
    assert np.array(performance_profile_intervals(permuted, thresholds)).T.tolist() == [
        low.tolist(),
        high.tolist(),
    ]
