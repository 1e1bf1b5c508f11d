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
    "custom": ("custom", "custom_environments:Foraging"),
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


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_interrupted_run_ends_the_same(tmp_path, environment):
    config = on(environment, training__total_frames=3 * 64, training__num_epochs=1)
    train(config, tmp_path / "whole")
    with pytest.raises(Crash):
        train(config, tmp_path / "parts", on_progress=crash_at(3))
    train(config, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


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
