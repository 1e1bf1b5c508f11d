"""The statistics over seeds compared with rliable, the reference implementation of the paper."""

import importlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rliable import metrics

from heteromark.workflow.statistics import (
    MAX_RESAMPLES,
    bootstrap_interval,
    improvement_interval,
    performance_profile,
    performance_profile_intervals,
    probability_of_improvement,
    score,
)


@pytest.fixture(scope="module")
def rliable_library():
    """rliable's bootstrap and profiles.

    rliable needs the package `arch` before 8. At import, that package uses a private decorator of
    pandas whose signature changed in pandas 3; it is replaced here, because only plots need it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pandas.util._decorators.deprecate_kwarg",
            lambda *_arguments, **_keywords: lambda function: function,
        )
        return importlib.import_module("rliable.library")


@pytest.fixture
def reps():
    """The number of resamples of rliable, whose random generator (numpy's global one) is seeded."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    yield 2000
    np.random.set_state(state)  # noqa: NPY002


def assert_same_interval(found, interval_at, reps):
    """Check that rliable's interval lies between ours at slightly lower and higher confidence.

    The p-quantile of n random resamples is an exact quantile at a level with a standard error of
    `sqrt(p (1 - p) / n)`. The check allows four standard errors for rliable's resamples and for
    ours. It works for any scale of the scores and any number of distinct resampled values.
    """
    tail = 0.025
    slack = 4 * math.sqrt(tail * (1 - tail) * (1 / reps + 1 / MAX_RESAMPLES))
    inner, outer = interval_at(1 - 2 * (tail + slack)), interval_at(1 - 2 * (tail - slack))
    rounding = 1e-9
    assert outer.low - rounding <= found[0] <= inner.low + rounding
    assert inner.high - rounding <= found[1] <= outer.high + rounding


def example(seeds, tasks, shift=0.0):
    """Return scores of tasks with different levels, spreads and signs of skew."""
    noise = np.random.default_rng([seeds, tasks, int(10 * shift)]).gumbel(size=(seeds, tasks))
    return shift + np.arange(tasks) + noise * np.resize([0.5, -1.0], tasks)


SHAPES = [(2, 1), (3, 1), (5, 1), (12, 1), (2, 4), (3, 5), (10, 3)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_interquartile_means_equal_rliables(scores):
    expected = metrics.aggregate_iqm(np.array(scores))
    assert score(scores, "iqm") == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(st.integers(1, 3), st.data())
def test_probabilities_of_improvement_equal_rliables(tasks, data):
    level = st.integers(-3, 3).map(float)  # few levels, so that ties are frequent
    runs = st.lists(st.lists(level, min_size=tasks, max_size=tasks), min_size=1, max_size=6)
    x, y = np.array(data.draw(runs)), np.array(data.draw(runs))
    expected = metrics.probability_of_improvement(x, y)
    assert probability_of_improvement(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("statistic", "metric"), [("iqm", metrics.aggregate_iqm), ("mean", metrics.aggregate_mean)]
)
def test_intervals_agree_with_rliables(rliable_library, reps, shape, statistic, metric):
    scores = example(*shape)
    points, intervals = rliable_library.get_interval_estimates(
        {"x": scores}, lambda resampled: np.array([metric(resampled)]), reps=reps
    )
    assert score(scores, statistic) == pytest.approx(points["x"][0], rel=1e-12)
    assert_same_interval(
        intervals["x"][:, 0],
        lambda confidence: bootstrap_interval(scores, statistic, confidence),
        reps,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds_x", "seeds_y", "tasks"), [(3, 3, 1), (2, 5, 1), (8, 6, 1), (3, 4, 3)]
)
def test_intervals_of_improvement_agree_with_rliables(
    rliable_library, reps, seeds_x, seeds_y, tasks
):
    x, y = example(seeds_x, tasks, shift=0.5), example(seeds_y, tasks)
    _, intervals = rliable_library.get_interval_estimates(
        {"x": (x, y)},
        lambda *resampled: np.array([metrics.probability_of_improvement(*resampled)]),
        reps=reps,
    )
    assert_same_interval(
        intervals["x"][:, 0], lambda confidence: improvement_interval(x, y, confidence), reps
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_performance_profiles_agree_with_rliables(rliable_library, reps, shape):
    scores = example(*shape)
    thresholds = np.linspace(scores.min() - 0.1, scores.max() + 0.1, 9)
    profiles, intervals = rliable_library.create_performance_profile(
        {"x": scores}, thresholds, reps=reps
    )
    np.testing.assert_allclose(performance_profile(scores, thresholds), profiles["x"], rtol=1e-12)
    for index in range(len(thresholds)):
        assert_same_interval(
            intervals["x"][:, index],
            lambda confidence, index=index: performance_profile_intervals(
                scores, thresholds, confidence
            )[index],
            reps,
        )
