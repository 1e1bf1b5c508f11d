"""The real packages smac and smacv2; only the process of StarCraft II is replaced.

They are not on the package index; docs/environments.md says how to install them.
"""

from __future__ import annotations

import heteromark.environment.smac  # isort: skip - before protobuf

import numpy as np
import pytest
import torch
from projects import ROOT

from heteromark.commands.request import TrainRequest, resolve_request
from heteromark.modules.environment import EnvironmentFactory

pytestmark = pytest.mark.compat
for package in ("pysc2", "smac", "smacv2"):
    pytest.importorskip(package, reason="see docs/environments.md")

from starcraft_game import ALLY, install  # noqa: E402

assert heteromark.environment.smac
PRESETS = ["smac_mmm", "smacv2_terran_5v5"]
STOP, FIRST_TARGET = 1, 6


@pytest.fixture
def installation(monkeypatch):
    return install(monkeypatch)


def config_of(preset, *assignments):
    request = TrainRequest(
        ROOT / "config/agents/happo_agent_v1.yaml",
        total_frames=256,
        environment=preset,
        device="cpu",
        num_envs=2,
        assignments=(
            *("n_steps=64", "batch_size=64", "n_epochs=1", "network.net_arch=[8]"),
            *("environment.num_workers=0", *assignments),
        ),
    )
    return resolve_request(request, ROOT)[0]


def create(preset, num_envs=1):
    return EnvironmentFactory().create(config_of(preset), num_envs)


def battle_of(env, copy=0):
    return env._copies._envs[copy].battle


def play(env, steps, choose):
    """Return a rollout [N, steps] after `reset`."""
    now, taken = env.reset(), []
    for _ in range(steps):
        for group in env.groups:
            now[group, "action"] = choose(now[group, "action_mask"])
        stepped, now = env.step_and_maybe_reset(now)
        taken.append(stepped)
    return torch.stack(taken, 1)


def aggressive(mask):
    """Shoot the last target in reach, or else stop."""
    last = mask.shape[-1] - 1 - mask.flip(-1).int().argmax(-1)
    return torch.where(last >= FIRST_TARGET, last, passive(mask))


def passive(mask):
    return mask[..., STOP].long() * STOP


@pytest.mark.parametrize("preset", PRESETS)
def test_sizes_are_those_of_the_package(installation, preset):
    env = create(preset)
    info = battle_of(env).get_env_info()
    groups = env.groups.values()
    assert sum(len(group.agents) for group in groups) == info["n_agents"]
    assert {group.action_size for group in groups} == {info["n_actions"]}
    assert {group.observation_size for group in groups} == {info["obs_shape"]}
    assert env.state_size == info["state_shape"]


def test_groups_of_mmm_are_the_unit_types_of_the_game(installation):
    env = create("smac_mmm")
    env.reseed(0)
    env.reset()
    battle = battle_of(env)
    sizes = {name: len(group.agents) for name, group in env.groups.items()}
    assert sizes == {"marauder": 2, "marine": 7, "medivac": 1}
    types = [battle.agents[i].unit_type for i in range(battle.n_agents)]
    numbers = [battle.marauder_id] * 2 + [battle.marine_id] * 7 + [battle.medivac_id]
    assert types == numbers


@pytest.mark.parametrize("preset", PRESETS)
def test_masks_and_observations_are_those_of_the_package(installation, preset):
    env = create(preset)
    env.reseed(1)
    env.reset()
    battle, returned = battle_of(env), []
    get_obs = battle.get_obs  # in SMACv2, a second call draws whom the units notice again
    battle.get_obs = lambda: returned.append(get_obs()) or returned[-1]
    now = env.reset()
    rows = {agent: i for i, agent in enumerate(env._copies._envs[0].possible_agents)}
    for _ in range(5):
        for name, group in env.groups.items():
            where = [rows[agent] for agent in group.agents]
            legal = np.array(battle.get_avail_actions())[where]
            assert np.array_equal(now[name, "action_mask"][0].numpy(), legal.astype(bool))
            observed = np.array(returned[-1], np.float32)[where]
            assert np.array_equal(now[name, "observation"][0].numpy(), observed)
            now[name, "action"] = aggressive(now[name, "action_mask"])
        _, now = env.step_and_maybe_reset(now)


@pytest.mark.parametrize("preset", PRESETS)
def test_battles_are_won_and_lost(installation, preset):
    env = create(preset)
    env.reseed(2)
    won = play(env, 60, aggressive)["next"]
    first = won["done"][0, :, 0].tolist().index(True)
    assert won["terminated"][0, first, 0]
    assert won["won"][0, first, 0] == 1
    lost = play(env, 300, passive)["next"]
    ended = lost["done"][0, :, 0]
    assert ended.any()
    assert not (lost["won"][0, ended, 0] == 1).any()


def test_a_crash_of_the_game_truncates_the_episode(installation, caplog):
    env = create("smac_mmm")
    env.reseed(3)
    play(env, 60, aggressive)  # in its first episode, the package would start two games
    game = installation.games[-1]
    game.crashes_at = game.steps + 4
    before = len(installation.games)
    episode = play_on(env, 6)
    ended = episode["done"][0, :, 0].tolist()
    assert ended.index(True) == 3
    assert episode["truncated"][0, 3, 0]
    assert not episode["terminated"][0, 3, 0]
    assert len(installation.games) == before + 1
    assert "crashed and restarted; the episode is truncated" in caplog.text


def play_on(env, steps):
    """Continue the episode that runs."""
    now, taken = env._read_outputs(with_reward=False), []
    for _ in range(steps):
        for group in env.groups:
            now[group, "action"] = passive(now[group, "action_mask"])
        stepped, now = env.step_and_maybe_reset(now)
        taken.append(stepped["next"])
    return torch.stack(taken, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_seed_reaches_the_game_and_what_python_draws(installation, preset):
    def episode(seed):
        env = create(preset)
        env.reseed(seed)
        return play(env, 5, passive), env

    one, env = episode(4)
    assert installation.seeds[-1] == battle_of(env)._seed
    same, _ = episode(4)
    other, _ = episode(5)
    for name in env.groups:
        key = (name, "observation")
        assert torch.equal(one[key], same[key])
        assert not torch.equal(one[key], other[key])


def test_smacv2_draws_a_new_team_each_episode_and_trains_with_both(installation, tmp_path):
    from heteromark.training.loop import train

    env = create("smacv2_terran_5v5")
    env.reseed(6)
    teams = set()
    for _ in range(6):
        env.reset()
        battle = battle_of(env)
        teams.add(tuple(battle.agents[i].unit_type for i in range(battle.n_agents)))
        units = installation.games[-1].observe().observation.raw_data.units
        assert sum(unit.owner == ALLY for unit in units) == 5
    assert len(teams) > 1
    for preset in PRESETS:
        config = config_of(preset, "smoke.eval_episodes=2", "evaluation.max_steps=20")
        assert train(config, tmp_path / preset).summary.frames == 256
