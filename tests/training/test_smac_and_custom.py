"""Training on SMAC, Skirmish and custom environments, with and without interruptions."""

from __future__ import annotations

import json

import pytest
from attempts import Crash, crash_at, results, rows
from engine_config import make_config

from heteromark.runs.record import Status
from heteromark.training.loop import train

SKIRMISH = {"scenario": "mini_MMM", "episode_limit": 15}
ENVIRONMENTS = {
    "fixed team": ("smac", "smac_stand_in:Battle"),
    "random teams": ("smac", "smac_stand_in:ScatteredBattle"),
    "seeded": ("smac", "smac_stand_in:SeedableBattle"),
    "custom": ("custom", "custom_environments:Foraging"),
    "forgetful": ("custom", "custom_environments:Forgetful"),
}


def on(environment, **overrides):
    env_type, task = ENVIRONMENTS[environment]
    return make_config(
        env_type=env_type, environment__task=task, environment__state=True, **overrides
    )


@pytest.mark.parametrize("algorithm", ["HAPPO", "MAPPO"])
def test_a_battle_trains(tmp_path, algorithm):
    config = on("fixed team", algorithm=algorithm, training__total_frames=128)
    assert train(config, tmp_path).status is Status.COMPLETED
    for row in rows(tmp_path):
        assert int(row["episodes"]) > 0
        assert 0 <= float(row["win_rate"]) <= 1
        assert float(row["episode_return"]) >= 0
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(evaluation["wins"]) == 3


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize("environment", ["seeded", "custom"])
def test_an_interrupted_run_ends_the_same(tmp_path, environment):
    config = on(environment, training__total_frames=3 * 64, training__num_epochs=1)
    train(config, tmp_path / "whole")
    with pytest.raises(Crash):
        train(config, tmp_path / "parts", on_progress=crash_at(3))
    assert not train(config, tmp_path / "parts").notes
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ("fixed team", "the environment cannot be seeded for each episode"),
        ("random teams", "the environment cannot be seeded for each episode"),
        ("forgetful", "the environment lacks running_episodes() and continue_episodes()"),
    ],
)
def test_episodes_that_cannot_be_repeated_are_replaced(tmp_path, caplog, environment, why):
    """As in StarCraft II, which would have to restart for every episode."""
    config = on(environment, training__total_frames=6 * 64, training__num_epochs=1)
    train(config, tmp_path / "whole")
    for iteration in (3, 5):
        with pytest.raises(Crash):
            train(config, tmp_path / "parts", on_progress=crash_at(iteration))
    outcome = train(config, tmp_path / "parts")
    assert outcome.status is Status.COMPLETED
    assert outcome.notes == tuple(
        f"resumed after iteration {iteration} with new episodes in 2 of 2 copies; copy 0: {why}"
        for iteration in (2, 4)
    )
    assert outcome.notes[1] in caplog.text
    whole, parts = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert parts[:2] == whole[:2]
    assert parts[2:] != whole[2:]
    # the new episodes are not those of the start again, nor those of the other resume
    returns = [parts[number]["episode_return"] for number in (0, 2, 4)]
    assert len(set(returns)) == 3


def on_skirmish(**settings):
    """Return a run on Skirmish with episodes shorter than its iterations."""
    return make_config(
        env_type="skirmish",
        environment__task=None,
        environment__skirmish={**SKIRMISH, **settings},
        environment__state=True,
        environment__num_parallel_envs=4,
        training__total_frames=3 * 64,
        training__num_epochs=1,
    )


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize("opponent", ["nearest", "policy"])
def test_an_interrupted_run_on_skirmish_ends_the_same(tmp_path, opponent):
    """The opponent is a script or a trained policy."""
    config = on_skirmish()
    if opponent == "policy":
        train(config, tmp_path / "first")
        checkpoint = str(tmp_path / "first" / "checkpoint.pt")
        config = on_skirmish(opponent="policy", checkpoint=checkpoint)
    train(config, tmp_path / "whole")
    with pytest.raises(Crash):
        train(config, tmp_path / "parts", on_progress=crash_at(3))
    train(config, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
