"""Reading a sweep from its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_history import RunSpec, agent, make_run, run_config
from made_sweep import make_sweep

from heteromark.runs.store import RunStore
from heteromark.ui.data.candidates import Sweep, candidates_table, coordinates, read_sweep
from heteromark.ui.data.history import History


@pytest.fixture
def results(store, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    make_sweep(store, folder)
    return folder


def test_without_a_selection_there_is_no_sweep(tmp_path):
    assert read_sweep(tmp_path) is None


def test_candidates_by_rank(results):
    sweep = read_sweep(results)
    table = candidates_table(sweep)
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table["config"][0] == sweep.selection.winner.name == "happo_agent_gamma_high"
    assert table["completed"].tolist() == ["3 of 3", "3 of 3", "3 of 3", "1 of 3"]
    assert (table["low"] <= table["score"]).tolist() == [True, True, True, False]
    assert table["verdict"][3] == "diverged"
    assert "selection.min_seeds" in table["why"][3]
    assert sweep.rank_check.verdict == "confirmed"
    assert sweep.errors == ()


def test_candidates_have_probability_of_improvement_and_frames(results):
    table = candidates_table(read_sweep(results))
    assert table["beaten"].isna().tolist() == [True, False, False, True]  # the winner; left out
    assert table["beaten"][1:3].between(0.5, 1).all()
    assert set(table["frames"]) == {read_sweep(results).selection.candidates[0].frames}


def test_bracket_is_read_after_successive_halving(store, results, tmp_path):
    assert read_sweep(results).bracket is None
    make_sweep(RunStore(tmp_path / "other"), tmp_path / "halved", halving=True)
    assert read_sweep(tmp_path / "halved").bracket.count("</svg>") == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"winner": 1}'])
def test_unreadable_selection_is_reported(results, content):
    (results / "selected" / "selection.json").write_text(content)
    assert "selection.json" in read_sweep(results)


def test_other_unreadable_files_are_reported_and_skipped(results):
    (results / "tables" / "summary.csv").write_text("a,b\n")
    (results / "model" / "rank_check.json").write_text("{")
    sweep = read_sweep(results)
    assert isinstance(sweep, Sweep)
    assert (sweep.summary, sweep.rank_check) == (None, None)
    assert ["tables" in error or "rank_check" in error for error in sweep.errors] == [True, True]
    assert candidates_table(sweep)["verdict"].isna().all()


def test_before_the_long_run_there_is_no_rank_check(results):
    (results / "model" / "rank_check.json").unlink()
    sweep = read_sweep(results)
    assert (sweep.rank_check, sweep.errors) == (None, ())


def test_coordinates_of_sorted_values(store, results):
    data = coordinates(read_sweep(results), History(store, results).runs())
    positions = data.set_index(["label", "key"])["position"]
    assert positions["happo_agent_v1", "learning_rate"] == 0.5
    assert positions["happo_agent_lr_low", "learning_rate"] == 0
    assert positions["happo_agent_lr_high", "learning_rate"] == 1
    assert positions["happo_agent_gamma_high", "gamma"] == 1
    assert set(data["key"]) == {"learning_rate", "gamma"}


def test_coordinates_without_the_runs_of_the_candidates_are_empty(store, results, tmp_path):
    sweep = read_sweep(results)
    assert coordinates(sweep, []).empty
    make_run(store, RunSpec(run_config(agent("ppo_agent_v1"))))
    assert coordinates(sweep, History(store, tmp_path / "none").runs()[:1]).empty
