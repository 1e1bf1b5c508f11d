"""Reading metrics.csv, also while a run writes it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from heteromark.ui.data.metrics import (
    MAX_POINTS,
    columns_of,
    metric_names,
    metric_values,
    newest_row,
    read_metrics,
    thinned,
)

HEADER = "iteration,frames,episode_return,entropy/a,entropy/b\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def test_rows_are_read_with_nan_where_nothing_was_measured(path):
    path.write_text(HEADER + "1,100,,1.5,\n2,200,3.5,1.25,2.0\n")
    table = read_metrics(path)
    assert table["frames"].tolist() == [100, 200]
    assert np.isnan(table["episode_return"][0])
    assert newest_row(path) == {
        "iteration": 2,
        "frames": 200,
        "episode_return": 3.5,
        "entropy/a": 1.25,
        "entropy/b": 2.0,
    }


def test_incomplete_last_row_is_ignored(path):
    path.write_text(HEADER + "1,100,1.0,1.5,2.5\n2,200,1.")
    assert len(read_metrics(path)) == 1
    assert newest_row(path)["frames"] == 100


@pytest.mark.parametrize("content", ["", "iteration,fra", HEADER])
def test_run_that_has_just_started(path, content):
    path.write_text(content)
    assert read_metrics(path).empty
    assert newest_row(path) == {}


def test_newest_row_of_a_file_longer_than_the_tail(path):
    rows = [f"{index},{100 * index},1.0,1.0,1.0" for index in range(1, 20_001)]
    path.write_text(HEADER + "\n".join(rows) + "\n")
    assert newest_row(path)["frames"] == 2_000_000


def test_row_with_wrong_number_of_cells_is_an_error(path):
    path.write_text(HEADER + "1,100\n")
    with pytest.raises(ValueError, match="2 cells for 5 columns"):
        newest_row(path)


def test_text_values_are_an_error(path):
    path.write_text("a,b\n1,x\n")
    with pytest.raises(ValueError, match="x"):
        read_metrics(path)


def test_metrics_and_their_groups():
    table = pd.DataFrame({"frames": [1.0], "entropy/a": [1.0], "entropy/b": [3.0]})
    assert metric_names(table) == ["frames", "entropy"]
    assert columns_of(table, "entropy") == {"a": "entropy/a", "b": "entropy/b"}
    assert columns_of(table, "frames") == {"": "frames"}
    assert metric_values(table, "entropy").tolist() == [2.0]
    assert np.isnan(metric_values(table, "win_rate")).all()


def test_group_without_values_is_excluded_from_the_mean():
    table = pd.DataFrame({"entropy/a": [1.0, np.nan], "entropy/b": [np.nan, np.nan]})
    assert metric_values(table, "entropy")[0] == 1.0
    assert np.isnan(metric_values(table, "entropy")[1])


def test_short_lines_only_lose_missing_points():
    x, y = thinned(np.array([1.0, 2.0, 3.0]), np.array([1.0, np.nan, 5.0]))
    assert (x.tolist(), y.tolist()) == ([1, 3], [1, 5])


def test_long_lines_become_bin_means():
    x = np.arange(10_000.0)
    short_x, short_y = thinned(x, 2 * x)
    assert len(short_x) == MAX_POINTS
    np.testing.assert_allclose(short_y, 2 * short_x)
    assert short_x[0] == x[:50].mean()
