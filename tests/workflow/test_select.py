import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import make_candidate, make_config, write_run

from heteromark.config.models.params import SelectionParams
from heteromark.runs.record import Status
from heteromark.workflow.aggregate import aggregate, read_tables, write_tables
from heteromark.workflow.select import NoWinner, Selection, select


def selected(candidates, **params) -> Selection:
    return select(aggregate(candidates), candidates, SelectionParams(**params))


def ranking(selection):
    return [candidate.names[0] for candidate in selection.candidates]


# --- the winner


def test_the_best_score_wins_and_the_margin_is_given(tmp_path):
    candidates = [
        make_config(tmp_path, "low", [1.0, 2.0, 3.0]),
        make_config(tmp_path, "high", [5.0, 6.0, 7.0]),
    ]
    selection = selected(candidates)
    winner, loser = selection.candidates
    assert selection.winner.name == "high"
    assert selection.winner.config_path == "config/agents/high.yaml"
    assert selection.winner.score == 6.0
    assert selection.winner.why == winner.why
    assert winner.why == (
        "won: iqm of evaluation_return over 3 seeds is 6, 4 above low (2); "
        "the 95% intervals (with few seeds: their range) do not overlap; "
        "a run of the winner beats a run of low with probability 1, over 9 pairs"
    )
    assert loser.why == (
        "ranked 2: iqm of evaluation_return over 3 seeds is 2, 4 below high (6); "
        "the 95% intervals (with few seeds: their range) do not overlap; "
        "a run of the winner beats a run of this config with probability 1, over 9 pairs"
    )
    assert (winner.rank, loser.rank) == (1, 2)
    assert winner.interval == (5.0, 7.0)
    assert winner.values == {0: 5.0, 1: 6.0, 2: 7.0}


def test_overlapping_intervals_are_mentioned(tmp_path):
    candidates = [make_config(tmp_path, "a", [1.0, 4.0]), make_config(tmp_path, "b", [2.0, 4.0])]
    assert (
        "the 95% intervals (with few seeds: their range) overlap, so more seeds may change the order"
    ) in selected(candidates).winner.why


def test_the_interval_of_more_than_three_seeds_is_not_called_a_range(tmp_path):
    candidates = [
        make_config(tmp_path, "a", [1.0, 2.0, 3.0, 4.0]),
        make_config(tmp_path, "b", [5.0, 6.0, 7.0, 8.0]),
    ]
    assert "the 95% intervals do not overlap" in selected(candidates).winner.why


# --- the probability of improvement


def test_the_probability_that_the_winner_improves_on_each_config_is_given(tmp_path):
    candidates = [
        make_config(tmp_path, "first", [3.0, 5.0, 10.0]),
        make_config(tmp_path, "second", [1.0, 4.0, 5.0]),
        make_config(tmp_path, "third", [0.0, 11.0, -6.0]),
    ]
    first, second, third = selected(candidates).candidates
    assert first.improvement is None
    # 3 beats 1; 5 beats 1 and 4, ties with 5; 10 beats all: 6.5 of 9 pairs.
    assert second.improvement == 6.5 / 9
    assert third.improvement == 6 / 9
    assert first.why.endswith("beats a run of second with probability 0.72, over 9 pairs")
    assert second.why.endswith("beats a run of this config with probability 0.72, over 9 pairs")
    assert third.why.endswith("beats a run of this config with probability 0.67, over 9 pairs")


def test_a_low_probability_of_improvement_is_given(tmp_path):
    candidates = [
        make_config(tmp_path, "usual", [1.0, 1.0, 1.0]),
        make_config(tmp_path, "lucky", [0.0, 0.0, 99.0]),
    ]
    lucky, usual = selected(candidates).candidates
    assert lucky.why.endswith("beats a run of usual with probability 0.33, over 9 pairs")
    assert usual.improvement == 3 / 9


def test_configs_with_equal_scores_are_compared_run_by_run(tmp_path):
    candidates = [make_config(tmp_path, "a", [2.0, 2.0]), make_config(tmp_path, "b", [2.0, 2.0])]
    selection = selected(candidates)
    assert selection.candidates[1].improvement == 0.5
    assert selection.winner.why.endswith(
        "equal to b; alphabetical order decides; "
        "a run of the winner beats a run of b with probability 0.5, over 4 pairs"
    )


@pytest.mark.parametrize("best", [[9.0], [9.0, 9.0, 9.0]])
def test_no_probability_is_given_with_one_seed(tmp_path, best):
    candidates = [make_config(tmp_path, "high", best), make_config(tmp_path, "low", [1.0])]
    high, low = selected(candidates, min_seeds=1).candidates
    for candidate in (high, low):
        assert candidate.why.endswith(
            "a single seed gives no interval, so chance cannot be ruled out"
        )
    assert low.improvement == 1.0


def test_runs_are_compared_by_the_selection_metric(tmp_path):
    candidates = [
        make_config(tmp_path, "a", [1.0, 1.0], win_rate=0.9),
        make_config(tmp_path, "b", [5.0, 5.0], win_rate=0.1),
    ]
    assert selected(candidates, metric="win_rate").candidates[1].improvement == 1.0
    assert selected(candidates).candidates[1].names == ("a",)


def test_candidates_that_are_left_out_are_not_compared(tmp_path):
    candidates = [make_config(tmp_path, "a", [1.0, 2.0]), make_config(tmp_path, "b", [0.0])]
    assert [each.improvement for each in selected(candidates).candidates] == [None, None]


# --- the settings


@pytest.mark.parametrize(
    ("statistic", "winner"),
    [("iqm", "even"), ("mean", "outlier"), ("median", "even"), ("min", "careful")],
)
def test_the_statistic_decides(tmp_path, statistic, winner):
    candidates = [
        make_config(tmp_path, "even", [3.0, 6.0, 6.0, 7.0]),
        make_config(tmp_path, "outlier", [0.0, 0.0, 1.0, 99.0]),
        make_config(tmp_path, "careful", [4.0, 4.0, 4.0, 4.0]),
    ]
    assert selected(candidates, statistic=statistic).winner.name == winner


@pytest.mark.parametrize(
    ("metric", "winner"),
    [("evaluation_return", "a"), ("final_return", "b"), ("win_rate", "c")],
)
def test_the_metric_decides(tmp_path, metric, winner):
    candidates = [
        make_config(tmp_path, "a", [9.0, 9.0], curve=[1.0] * 8, win_rate=0.1),
        make_config(tmp_path, "b", [1.0, 1.0], curve=[9.0] * 8, win_rate=0.2),
        make_config(tmp_path, "c", [2.0, 2.0], curve=[2.0] * 8, win_rate=0.9),
    ]
    assert selected(candidates, metric=metric).winner.name == winner


# --- ties


@pytest.mark.parametrize(
    ("tie_break", "winner", "words"),
    [
        (["slope"], "rising", "its larger slope decides (2 against 0)"),
        (["coefficient_of_variation"], "even", "its smaller coefficient_of_variation decides"),
        (
            ["frames_per_second"],
            "rising",
            "its larger frames_per_second decides (6000 against 5000)",
        ),
        (["name"], "even", "alphabetical order decides"),
        ([], "even", "alphabetical order decides"),
        (["name", "slope"], "even", "alphabetical order decides"),
    ],
)
def test_equal_scores_are_decided_by_the_tie_break(tmp_path, tie_break, winner, words):
    candidates = [
        make_config(tmp_path, "rising", [1.0, 3.0], frames_per_second=6000.0),
        make_config(tmp_path, "even", [2.0, 2.0], curve=[1.0] * 20),
    ]
    selection = selected(candidates, tie_break=tie_break)
    assert selection.winner.name == winner
    assert words in selection.winner.why
    assert "equal to" in selection.candidates[1].why


def test_the_next_criterion_decides_when_the_first_ties_too(tmp_path):
    candidates = [make_config(tmp_path, "b", [1.0, 3.0]), make_config(tmp_path, "a", [0.0, 4.0])]
    selection = selected(candidates, tie_break=["slope", "coefficient_of_variation", "name"])
    assert selection.winner.name == "b"
    assert "coefficient_of_variation decides" in selection.winner.why


def test_an_unmeasured_tie_breaker_comes_last(tmp_path):
    candidates = [
        make_config(tmp_path, "a", [2.0, 2.0], curve=[1.0, 2.0]),  # too short for a slope
        make_config(tmp_path, "b", [2.0, 2.0]),
    ]
    assert selected(candidates, tie_break=["slope"]).winner.name == "b"


# --- left out


def test_too_few_completed_seeds_are_left_out(tmp_path):
    good = make_config(tmp_path, "good", [1.0, 1.0, 1.0])
    failed = make_candidate(tmp_path, "failed")
    write_run(failed, 0, 50.0)
    write_run(failed, 1, None, [], status=Status.FAILED, reason="out of memory")
    selection = selected([failed, good])
    assert selection.winner.name == "good"
    assert selection.winner.why.endswith("no other candidate is eligible")
    left_out = selection.candidates[1]
    assert not left_out.eligible
    assert (left_out.rank, left_out.score, left_out.completed, left_out.seeds) == (2, 50.0, 1, 3)
    assert left_out.why.startswith("1 of 3 seeds completed, selection.min_seeds is 2")
    assert "seed 1: failed, out of memory" in left_out.why
    assert "seed 2: missing, no run.json in" in left_out.why


def test_diverged_configs_rank_last(tmp_path):
    diverged = make_candidate(tmp_path, "diverged")
    for seed in (0, 1):
        write_run(diverged, seed, None, [], status=Status.DIVERGED, reason="loss is NaN")
    write_run(diverged, 2, 99.0)
    absent = make_candidate(tmp_path, "absent")
    good = make_config(tmp_path, "good", [1.0, 1.0])
    selection = selected([diverged, absent, good])
    assert ranking(selection) == ["good", "absent", "diverged"]
    assert selection.candidates[2].why == (
        "diverged: 1 of 3 seeds completed, selection.min_seeds is 2 "
        "(seeds 0, 1: diverged, loss is NaN)"
    )


def test_a_lost_seed_of_the_winner_is_mentioned(tmp_path):
    candidate = make_candidate(tmp_path, "a")
    write_run(candidate, 0, 1.0)
    write_run(candidate, 1, 1.0)
    write_run(candidate, 2, None, [], status=Status.DIVERGED, reason="loss is NaN")
    assert "(1 of 3 seeds did not count)" in selected([candidate]).winner.why


# --- no winner


def test_if_all_diverged_the_error_says_what_to_do(tmp_path):
    candidates = [
        make_candidate(tmp_path, "fast", seeds=[0], learning_rate=0.1),
        make_candidate(tmp_path, "faster", seeds=[0], learning_rate=1.0),
    ]
    for candidate in candidates:
        write_run(candidate, 0, None, [], status=Status.DIVERGED, reason="loss is NaN")
    with pytest.raises(NoWinner) as raised:
        selected(candidates, min_seeds=1)
    assert str(raised.value) == (
        "no config can be selected from 2 candidates; each needs 1 completed seed with "
        "evaluation_return:\n"
        "  fast: left out, diverged: 0 of 1 seeds completed, selection.min_seeds is 1 "
        "(seed 0: diverged, loss is NaN)\n"
        "  faster: left out, diverged: 0 of 1 seeds completed, selection.min_seeds is 1 "
        "(seed 0: diverged, loss is NaN)\n"
        "What to do next:\n"
        "  diverged: lower learning_rate (now 0.1, 1) or ppo.max_grad_norm"
    )


def test_the_error_without_a_winner_names_the_log(tmp_path):
    candidate = make_candidate(tmp_path, "a")
    with pytest.raises(NoWinner) as raised:
        selected([candidate])
    log = candidate.folders[0] / "train.log"
    assert f"not finished: read {log.as_posix()} and 2 more" in str(raised.value)


def test_the_error_without_a_winner_mentions_an_unmeasured_metric(tmp_path):
    with pytest.raises(NoWinner) as raised:
        selected([make_config(tmp_path, "a", [1.0, 2.0])], metric="win_rate")
    assert "0 of 2 seeds completed and measured win_rate" in str(raised.value)
    assert "win_rate needs an environment that reports wins" in str(raised.value)


def test_the_error_without_a_winner_mentions_too_few_seeds(tmp_path):
    with pytest.raises(NoWinner, match=r"add to smoke\.seeds or lower selection\.min_seeds"):
        selected([make_config(tmp_path, "a", [1.0])])


def test_no_winner_without_candidates():
    with pytest.raises(NoWinner, match="there are no candidates"):
        selected([])


# --- the file


def test_selection_json_is_read_back(tmp_path):
    candidates = [make_config(tmp_path, "a", [1.0, 2.0]), make_candidate(tmp_path, "b")]
    selection = selected(candidates)
    path = tmp_path / "selected" / "selection.json"
    selection.write(path)
    assert Selection.read(path) == selection
    content = json.loads(path.read_text())
    assert content["settings"]["metric"] == "evaluation_return"
    assert content["candidates"][0]["interval"] == [1.0, 2.0]
    assert content["candidates"][1]["score"] is None
    assert content["candidates"][1]["improvement"] is None


def test_tables_read_from_files_give_the_same_selection(tmp_path):
    candidates = [
        make_config(tmp_path, "a", [1 / 3, 0.1, 0.7]),
        make_candidate(tmp_path, "b"),
        make_config(tmp_path, "c", [0.1, 0.7, 1 / 3]),
    ]
    write_tables(aggregate(candidates), tmp_path / "tables")
    read = select(read_tables(tmp_path / "tables"), candidates, SelectionParams())
    assert read == selected(candidates)


# --- properties

sweeps = st.lists(
    st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=4), min_size=2, max_size=4
)
statistics = st.sampled_from(["iqm", "mean", "median", "min"])
few_examples = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])


@contextlib.contextmanager
def run_folders(sweep):
    """Yield candidates config_0, config_1, ... with the given evaluation returns."""
    with tempfile.TemporaryDirectory() as root:
        yield [
            make_config(Path(root), f"config_{index}", returns)
            for index, returns in enumerate(sweep)
        ]


@few_examples
@given(sweeps, statistics, st.data())
def test_the_order_of_candidates_and_seeds_changes_no_rank(sweep, statistic, data):
    params = {"statistic": statistic, "min_seeds": 1}
    with run_folders(sweep) as candidates:
        expected = selected(candidates, **params)
        for candidate, returns in zip(candidates, sweep, strict=True):
            for seed, value in enumerate(data.draw(st.permutations(returns))):
                write_run(candidate, seed, value)
        result = selected(data.draw(st.permutations(candidates)), **params)
    assert [(each.names, each.score, each.improvement, each.why) for each in result.candidates] == [
        (each.names, each.score, each.improvement, each.why) for each in expected.candidates
    ]


@few_examples
@given(sweeps, statistics, st.data())
def test_a_better_run_never_lowers_the_rank_of_its_config(sweep, statistic, data):
    # Break ties only by name: a better run may increase the variation, another tie-break criterion.
    params = {"statistic": statistic, "min_seeds": 1, "tie_break": ["name"]}
    index = data.draw(st.integers(0, len(sweep) - 1))
    with run_folders(sweep) as candidates:
        name = candidates[index].name
        before = ranking(selected(candidates, **params)).index(name)
        write_run(candidates[index], 0, sweep[index][0] + data.draw(st.integers(0, 9)))
        assert ranking(selected(candidates, **params)).index(name) <= before


@few_examples
@given(sweeps, statistics, st.data())
def test_removing_a_loser_keeps_the_winner(sweep, statistic, data):
    params = {"statistic": statistic, "min_seeds": 1}
    with run_folders(sweep) as candidates:
        winner = selected(candidates, **params).winner
        loser = data.draw(st.sampled_from([c for c in candidates if c.name != winner.name]))
        rest = selected([c for c in candidates if c is not loser], **params).winner
    assert (rest.name, rest.score) == (winner.name, winner.score)
