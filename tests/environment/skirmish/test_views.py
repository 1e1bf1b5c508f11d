"""The same battles with the PettingZoo and SMAC interfaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test

from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.environment.skirmish import SkirmishEnv, SkirmishParallelEnv, SkirmishSMAC
from heteromark.environment.smac.adapter import SMACParallelEnv, missing_from_smac_api
from heteromark.import_paths import Task


@pytest.mark.parametrize("scenario", ["mini_MMM", "10gen_zerg"])
def test_pettingzoos_own_tests_pass(scenario):
    parallel_api_test(SkirmishParallelEnv(scenario, episode_limit=40), num_cycles=200)
    parallel_seed_test(lambda: SkirmishParallelEnv(scenario, episode_limit=40), num_cycles=60)


def test_the_pettingzoo_interface_plays_the_same_battle():
    view, env = SkirmishParallelEnv("mini_MMM"), SkirmishEnv("mini_MMM", group_by="agent")
    observations, infos = view.reset(seed=4)
    env.reseed(4)
    now = env.reset()
    generator = np.random.default_rng(0)
    for _ in range(30):
        assert np.array_equal(view.state(), now["state"][0].numpy())
        actions = {}
        for agent in view.agents:
            assert np.array_equal(observations[agent], now[agent, "observation"][0, 0].numpy())
            actions[agent] = int(generator.choice(np.flatnonzero(infos[agent]["action_mask"])))
        for agent in env.groups:
            now[agent, "action"] = torch.tensor([[actions.get(agent, 0)]])
        observations, rewards, terminations, _, infos = view.step(actions)
        now = env.step(now)["next"]
        for agent, reward in rewards.items():
            assert reward == float(now[agent, "reward"])
            assert terminations[agent] is not bool(now[agent, "active"])
        if not view.agents:
            return


def test_the_pettingzoo_interface_can_be_batched():
    env = PettingZooParallelEnv(SkirmishParallelEnv, 2, with_state=True)
    assert list(env.groups) == ["marine", "marauder", "medivac"]
    assert env.rollout(5).shape == (2, 5)
    env.close()


def test_smac_code_plays_an_episode():
    battle = SkirmishSMAC("10gen_protoss", seed=1)
    assert not missing_from_smac_api(battle)
    info = battle.get_env_info()
    assert (info["n_agents"], info["n_actions"], info["obs_shape"], info["state_shape"]) == (
        *(5, 11, 92, 130),
    )
    generator = np.random.default_rng(0)
    for _ in range(2):
        battle.reset()
        over, steps = False, 0
        while not over:
            assert np.asarray(battle.get_obs()).shape == (5, 92)
            assert battle.get_state().shape == (130,)
            actions = [
                int(generator.choice(np.flatnonzero(legal))) for legal in battle.get_avail_actions()
            ]
            _, over, step_info = battle.step(actions)
            steps += 1
        assert steps <= info["episode_limit"]
        assert "episode_limit" not in step_info
    assert battle.get_stats()["battles_game"] == 2
    battle.reset()
    with pytest.raises(ValueError, match="illegal action"):
        battle.step([0] * 5)


def test_timeouts_are_reported_with_continuing_episode():
    battle = SkirmishSMAC("mini_MMM", continuing_episode=True, episode_limit=2)
    battle.reset()
    assert battle.step([1] * 5)[1:] == (
        False,
        {"battle_won": False, "dead_allies": 0, "dead_enemies": 0},
    )
    _, over, info = battle.step([1] * 5)
    assert over
    assert info["episode_limit"]


def test_the_smac_adapter_accepts_it():
    make = Task("heteromark.environment.skirmish:SkirmishSMAC", {"scenario": "2s3z"})
    env = SMACParallelEnv(make)
    observations, _ = env.reset(seed=3)
    assert list(observations) == [f"ally_{k}" for k in range(5)]
    again, _ = env.reset(seed=3)
    assert np.array_equal(observations["ally_4"], again["ally_4"])
