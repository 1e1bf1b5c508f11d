"""Comparison of agents over several environments."""

from __future__ import annotations

import pytest
from made_history import RunSpec, agent, make_run, run_config

from heteromark.runs.record import RunRecord, Status
from heteromark.ui.data.across import across_table, compare_across, profiles
from heteromark.ui.data.history import History

RETURNS = {
    # (agent, environment) -> evaluation returns of seeds 0, 1, …
    ("happo_agent_v1", "skirmish"): (20.0, 16.0),
    ("happo_agent_v1", "simple_spread"): (-10.0, -20.0),
    ("ppo_agent_v1", "skirmish"): (12.0, 10.0),
    ("ppo_agent_v1", "simple_spread"): (-15.0, -30.0),
}


@pytest.fixture
def compared(store, tmp_path):
    """Compare completed runs with these evaluation returns."""

    def compare(returns: dict):
        for (file, environment), values in returns.items():
            for seed, value in enumerate(values):
                config = run_config(agent(file), environment, seed=seed)
                status = Status.FAILED if value is None else Status.COMPLETED
                folder = make_run(store, RunSpec(config, status=status))
                record = RunRecord.read(folder)
                summary = record.summary.model_copy(update={"evaluation_return": value})
                record.model_copy(update={"summary": summary}).write(folder)
        return compare_across(History(store, tmp_path / "results").runs())

    return compare


def test_scores_are_normalised_within_each_environment(compared):
    found = compared(RETURNS)
    assert found.environments == ("simple_spread", "skirmish")
    assert found.left_out == ()
    assert list(found.scores) == ["happo_agent_v1", "ppo_agent_v1"]
    assert found.scores["happo_agent_v1"].tolist() == [[1.0, 1.0], [0.5, 0.6]]
    assert found.scores["ppo_agent_v1"].tolist() == [[0.75, 0.2], [0.0, 0.0]]


def test_table_has_probability_that_the_best_agent_beats_each_agent(compared):
    table = across_table(compared(RETURNS)).set_index("agent")
    first, second = table.loc["happo_agent_v1"], table.loc["ppo_agent_v1"]
    # the IQM of four scores drops the lowest and the highest
    assert first["iqm"] == pytest.approx((0.6 + 1.0) / 2)
    assert second["iqm"] == pytest.approx((0.0 + 0.2) / 2)
    assert first["low"] < first["iqm"] <= first["high"]
    # skirmish: wins all four pairs; simple_spread: 1.0 beats both scores, 0.5 beats one
    assert second["beaten"] == pytest.approx((4 / 4 + 3 / 4) / 2)
    assert second["beaten_low"] <= second["beaten"] <= second["beaten_high"]
    assert first[["beaten", "beaten_low", "beaten_high"]].isna().all()


def test_profile_is_the_share_of_runs_above_each_score(compared):
    found = profiles(compared(RETURNS)).set_index(["label", "threshold"])
    shares = found.loc["ppo_agent_v1"]["share"]
    assert (shares.iloc[0], shares.iloc[-1]) == (0.5, 0.0)  # 0.75 and 0.2 are above 0
    assert shares[0.5] == 0.25
    assert (found["low"] <= found["share"]).all()


def test_one_seed_has_no_intervals(compared):
    found = compared({key: values[:1] for key, values in RETURNS.items()})
    table = across_table(found)
    assert table["iqm"].tolist() == [1.0, 0.0]
    assert table[["low", "high", "beaten_low", "beaten_high"]].isna().all(axis=None)
    assert profiles(found)[["low", "high"]].isna().all(axis=None)


def test_only_seeds_completed_everywhere_count(compared):
    found = compared(RETURNS | {("ppo_agent_v1", "skirmish"): (12.0, None)})
    assert len(found.scores["ppo_agent_v1"]) == 1
    assert len(found.scores["happo_agent_v1"]) == 2


def test_agents_that_cannot_be_compared_are_left_out_with_the_reason(compared):
    found = compared(
        {
            **RETURNS,
            ("ppo_agent_v1", "skirmish"): (),
            ("happo_agent_sweep_lr_low", "skirmish"): (None, 11.0),
            ("happo_agent_sweep_lr_low", "simple_spread"): (-12.0, None),
            ("happo_agent_v1", "speaker_listener"): (-3.0, -3.0),
        }
    )
    assert list(found.scores) == ["happo_agent_v1"]
    reasons = "\n".join(found.left_out)
    assert "speaker_listener: fewer than two distinct returns" in reasons
    assert "ppo_agent_v1: no completed run in skirmish" in reasons
    assert "happo_agent_lr_low: no seed completed in every environment" in reasons


def test_several_configs_of_one_agent_in_an_environment_are_not_mixed(compared, store, tmp_path):
    compared(RETURNS)
    make_run(store, RunSpec(run_config(agent("ppo_agent_v1"), "skirmish", mode="full", seed=0)))
    found = compare_across(History(store, tmp_path / "results").runs())
    assert list(found.scores) == ["happo_agent_v1"]
    assert "ppo_agent_v1: several runs of one seed in skirmish" in found.left_out[0]


def test_without_completed_runs_the_comparison_is_empty(compared):
    found = compared({("happo_agent_v1", "skirmish"): (None,)})
    assert (found.environments, dict(found.scores), found.left_out) == ((), {}, ())
