"""Mean curves and interval bands over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from heteromark.ui.data.metrics import MAX_POINTS, band_of, line_of
from heteromark.workflow.statistics import bootstrap_interval


def line(values, step=100.0):
    return step * np.arange(1, len(values) + 1), np.array(values, dtype=float)


def test_band_of_three_seeds_is_their_range():
    band = band_of([line([1, 2]), line([2, 4]), line([6, 3])])
    assert band.to_dict("records") == [
        {"x": 100, "mean": 3, "low": 1, "high": 6, "seeds": 3},
        {"x": 200, "mean": 3, "low": 2, "high": 4, "seeds": 3},
    ]


def test_band_is_the_bootstrap_interval_of_the_workflow():
    values = [1.0, 4.0, 2.0, 8.0, 5.0]
    row = band_of([line([value]) for value in values]).iloc[0]
    assert (row["low"], row["high"]) == bootstrap_interval(values, "mean")


def test_one_seed_has_no_band():
    band = band_of([line([1, 2, 3])])
    assert band["mean"].tolist() == [1, 2, 3]
    assert band[["low", "high"]].isna().all(axis=None)


def test_seed_that_ended_early_counts_up_to_its_last_point():
    band = band_of([line([1, 1, 1, 1]), line([3, 3])])
    assert band["seeds"].tolist() == [2, 2, 1, 1]
    assert band["mean"].tolist() == [2, 2, 1, 1]


def test_seeds_are_interpolated_but_not_extrapolated():
    band = band_of(
        [(np.array([0.0, 10.0]), np.array([0.0, 10.0])), (np.array([5.0]), np.array([9.0]))]
    )
    assert band["x"].tolist() == [0, 5, 10]
    assert band["mean"].tolist() == [0, 7, 10]
    assert band["seeds"].tolist() == [1, 2, 1]


def test_long_comparison_has_at_most_max_points():
    rng = np.random.default_rng(0)
    lines = [(np.sort(rng.random(150)), rng.random(150)) for _ in range(3)]
    assert len(band_of(lines)) <= MAX_POINTS


def test_band_without_values_is_empty():
    assert band_of([]).empty
    assert band_of([(np.empty(0), np.empty(0))]).empty


@pytest.mark.parametrize(("axis", "x"), [("frames", [100, 200]), ("time", [1.5, 3.0])])
def test_line_over_frames_or_wall_clock_time(axis, x):
    table = pd.DataFrame(
        {"frames": [100, 200], "time_elapsed": [1.5, 3.0], "kl_approx/a": [1.0, 2.0]}
    )
    found_x, found_y = line_of(table, "kl_approx", axis)
    assert (found_x.tolist(), found_y.tolist()) == (x, [1, 2])


def test_run_without_rows_has_an_empty_line():
    x, y = line_of(pd.DataFrame(), "episode_return", "frames")
    assert len(x) == len(y) == 0
