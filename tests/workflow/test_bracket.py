"""The plot of successive halving."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from run_folders import make_config

from heteromark.config.models.params import SelectionParams
from heteromark.workflow.aggregate import aggregate
from heteromark.workflow.bracket import draw_bracket
from heteromark.workflow.select import select


def ranking(root, rung, frames, returns):
    """Return the ranking after a rung of configs with these evaluation returns."""
    candidates = [
        replace(make_config(root / str(rung), name, values), rung=rung, frames=frames)
        for name, values in returns.items()
    ]
    return select(aggregate(candidates), candidates, SelectionParams())


@pytest.fixture
def rungs(tmp_path):
    return [
        ranking(tmp_path, 1, 100, {"a": [1, 1], "b": [2, 2], "c": [2, 2], "d": [9, 9]}),
        ranking(tmp_path, 2, 400, {"c": [5, 5], "d": [4, 4]}),
    ]


def test_every_config_has_a_line_up_to_its_last_rung(rungs):
    figure = draw_bracket(rungs)
    axes = figure.axes[0]
    paths = [list(zip(*line.get_data(), strict=True)) for line in axes.lines]
    for path in ([(100, 1)], [(100, 2)], [(100, 2), (400, 5)], [(100, 9), (400, 4)]):
        assert path in paths
    assert sorted(text.get_text() for text in axes.texts) == ["a", "b", "c", "d"]
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights["b"] != heights["a"]
    assert [line.get_marker() for line in axes.lines].count("*") == 1
    # 4 configs with 2 seeds train 100 frames; 2 of them continue to 400
    title = axes.get_title(loc="left")
    assert "2,000 frames instead of a grid's 3,200 (1.6 times fewer)" in title


def test_names_at_one_rung_do_not_overlap(tmp_path):
    crowd = {f"config_{number}": [3, 3] for number in range(8)}
    axes = draw_bracket([ranking(tmp_path, 1, 100, crowd)]).axes[0]
    heights = sorted(text.xy[1] for text in axes.texts)
    low, high = axes.get_ylim()
    gaps = [above - below for below, above in itertools.pairwise(heights)]
    assert min(gaps) > 0.03 * (high - low)
