import json
from dataclasses import replace

import pytest
from run_folders import make_candidate, make_config

from heteromark.config.models.params import SelectionParams
from heteromark.workflow.aggregate import aggregate
from heteromark.workflow.rank_check import rank_check
from heteromark.workflow.select import select


def selected(candidates):
    return select(aggregate(candidates), candidates, SelectionParams())


@pytest.fixture
def smokes(tmp_path):
    """Selection of b (6) over a (4), c (2); d is left out with a score of 5."""
    candidates = [
        make_config(tmp_path, "a", [4.0, 4.0]),
        make_config(tmp_path, "b", [6.0, 6.0]),
        make_config(tmp_path, "c", [2.0, 2.0]),
        make_config(tmp_path, "d", [5.0]),
    ]
    return selected(candidates)


def long_tables(tmp_path, **scores):
    return aggregate(
        [make_config(tmp_path / "train", name, [value]) for name, value in scores.items()]
    )


def test_a_better_long_run_confirms_the_smoke(tmp_path, smokes):
    check = rank_check(smokes, long_tables(tmp_path, b=10.0))
    assert check.verdict == "confirmed"
    assert check.why == (
        "the long run of b scores 10, 4 above its smoke's 6, "
        "and 5 above the best rival, the smoke of d"
    )
    assert check.spearman is None


def test_a_long_run_below_another_smoke_questions_it(tmp_path, smokes):
    check = rank_check(smokes, long_tables(tmp_path, b=4.5))
    assert check.verdict == "questioned"
    assert check.why.endswith("the smoke of d is better by 0.5: train that config long too")


def test_a_long_run_below_its_own_smoke_questions_it(tmp_path, smokes):
    check = rank_check(smokes, long_tables(tmp_path, b=5.5))
    assert check.verdict == "questioned"
    assert "0.5 below its smoke's 6: longer training made it worse" in check.why


def test_several_long_runs_are_correlated(tmp_path, smokes):
    same = rank_check(smokes, long_tables(tmp_path / "same", a=8.0, b=9.0, c=7.0))
    assert (same.verdict, same.spearman, same.kendall) == ("confirmed", 1.0, 1.0)
    # Smoke order b, a, c; long order a, c, b: two of three pairs are reversed.
    reversed_pairs = rank_check(smokes, long_tables(tmp_path / "reversed", a=9.0, b=7.0, c=8.0))
    assert reversed_pairs.verdict == "questioned"
    assert "the long run of a is better by 2" in reversed_pairs.why
    assert reversed_pairs.kendall == pytest.approx(-1 / 3)
    assert reversed_pairs.spearman == pytest.approx(-0.5)
    assert [run.config for run in reversed_pairs.runs] == ["b", "a", "c"]


def test_no_long_run_is_unknown(tmp_path, smokes):
    absent = aggregate([make_candidate(tmp_path / "train", "b")])
    check = rank_check(smokes, absent)
    assert check.verdict == "unknown"
    check.write(tmp_path / "rank_check.json")
    assert json.loads((tmp_path / "rank_check.json").read_text())["runs"] == [
        {"config": "b", "smoke": 6.0, "long": None}
    ]


def test_configs_with_two_names_are_matched_by_both(tmp_path):
    names = ("b", "b_same")
    smoke = replace(make_config(tmp_path, "b", [6.0, 6.0]), names=names)
    long = replace(make_config(tmp_path / "train", "b", [7.0]), names=names)
    check = rank_check(selected([smoke]), aggregate([long]))
    assert check.verdict == "confirmed"
    assert check.why.endswith("there is no other config to compare with")
