import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from run_folders import make_candidate, make_config, write_run

from heteromark.config.models.params import SelectionParams
from heteromark.runs.record import Status
from heteromark.workflow.aggregate import aggregate
from heteromark.workflow.plots import (
    LINE_STYLES,
    LINES,
    PALETTE,
    draw_learning_curves,
    draw_long_run,
    draw_selection,
    save_figure,
)
from heteromark.workflow.select import select


@pytest.fixture
def candidates(tmp_path):
    diverged = make_candidate(tmp_path, "diverged")
    for seed in diverged.folders:
        write_run(diverged, seed, None, [], status=Status.DIVERGED, reason="loss is NaN")
    return [
        make_config(tmp_path, "low", [1.0, 2.0, 3.0]),
        make_config(tmp_path, "high", [5.0, 6.0, 7.0]),
        diverged,
    ]


@pytest.fixture
def smoke(candidates):
    return aggregate(candidates)


@pytest.fixture
def selection(smoke, candidates):
    return select(smoke, candidates, SelectionParams())


@pytest.fixture
def long(tmp_path):
    return aggregate([make_config(tmp_path / "train", "high", [8.0])])


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_learning_curves_show_every_config(smoke):
    figure = draw_learning_curves(smoke)
    assert legend(figure) == ["low (steady)", "high (steady)", "diverged (diverged 3)"]
    axes = figure.axes[0]
    np.testing.assert_array_equal(
        axes.lines[0].get_ydata(), smoke.curves[smoke.curves["config"] == "low"]["mean"]
    )
    assert axes.get_xlabel() == "environment frames"
    assert axes.get_ylabel() == "training return (reward per episode)"
    assert axes.get_title(loc="left").endswith("band: their range")


def test_the_selection_shows_scores_seeds_and_reasons(selection):
    axes = draw_selection(selection).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["high", "low", "diverged"]
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    assert [list(line.get_xdata()) for line in stars] == [[6.0]]
    texts = [text.get_text() for text in axes.texts]
    assert "6" in texts
    assert any(text.startswith("diverged: 0 of 3 seeds completed") for text in texts)


def test_the_legend_names_the_range_of_few_seeds(tmp_path, selection):
    assert legend(draw_selection(selection))[-1] == "range of the seeds"
    four = [make_config(tmp_path, "four", [1.0, 2.0, 3.0, 4.0])]
    drawn = draw_selection(select(aggregate(four), four, SelectionParams()))
    assert legend(drawn)[-1] == "95% interval"


def test_the_long_run_is_drawn_with_the_end_of_its_smoke(selection, smoke, long):
    figure = draw_long_run(selection, smoke, long)
    assert legend(figure) == ["high: long run", "high: end of the smoke (-62)"]


def test_a_plot_without_completed_runs_says_so(tmp_path, selection, smoke):
    absent = aggregate([make_candidate(tmp_path / "train", "high", seeds=[0])])
    figure = draw_long_run(selection, smoke, absent)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no completed run"]
    assert legend(figure) == ["high (missing 1)"]
    draw_learning_curves(aggregate([]))


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_identical_tables_give_identical_bytes(tmp_path, smoke, selection, long, kind):
    for folder in ("first", "second"):
        save_figure(draw_learning_curves(smoke), tmp_path / folder / f"curves.{kind}")
        save_figure(draw_selection(selection), tmp_path / folder / f"selection.{kind}")
        save_figure(draw_long_run(selection, smoke, long), tmp_path / folder / f"long_run.{kind}")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
        if kind == "svg":
            ElementTree.parse(path)


def test_other_file_formats_are_an_error(tmp_path, selection):
    with pytest.raises(ValueError, match=r"saved as \.svg or \.png"):
        save_figure(draw_selection(selection), tmp_path / "selection.pdf")


def test_the_line_styles_of_many_configs_differ():
    number = len(PALETTE) * len(LINE_STYLES)
    styles = {tuple(style.values()) for style in LINES}
    assert len(styles) == number
