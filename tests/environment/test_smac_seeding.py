"""The seed determines everything in a battle, for all ways of seeding the object."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from engine_config import make_config
from tensordict import assert_close

from heteromark.environment.smac.seeding import SeededBattle
from heteromark.import_paths import Task
from heteromark.modules.environment import EnvironmentFactory

# ruff: noqa: NPY002 - the global generator is what is tested

LITE = {"environment__smac": {"episode_limit": 8}}
BATTLES = {"Battle": {}, "SeedableBattle": {}, "ScatteredBattle": {}, "wrapped_lite": LITE}


def create(battle, num_envs=2, **overrides):
    config = make_config(
        env_type="smac",
        environment__task=f"smac_stand_in:{battle}",
        environment__state=True,
        **BATTLES[battle],
        **overrides,
    )
    return EnvironmentFactory().create(config, num_envs)


def play(env, steps=25, seed=0, stream=("test",)):
    """Return a rollout of random legal actions, equal for every number of copies."""
    env.reseed(seed, *stream)
    now, taken = env.reset(), []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for name, group in env.groups.items():
            scores = torch.rand(len(group.agents), group.action_size, generator=generator)
            now[name, "action"] = (scores * now[name, "action_mask"]).argmax(-1)
        stepped, now = env.step_and_maybe_reset(now)
        taken.append(stepped)
    return torch.stack(taken, 1)


@pytest.mark.parametrize("battle", BATTLES)
def test_the_seed_determines_everything_regardless_of_earlier_episodes(battle):
    first = play(create(battle))
    assert first["next", "done"].sum() > 2, "the rollout includes later episodes"
    env = create(battle)
    play(env, steps=7, seed=5)
    random.random()
    np.random.rand()
    assert_close(play(env), first, rtol=0, atol=0)
    group = next(iter(env.groups))
    other = play(env, stream=("test", 1))
    assert (other[group, "observation"] != first[group, "observation"]).any()
    assert (first[group, "observation"][0, 0] != first[group, "observation"][1, 0]).any()


@pytest.mark.parametrize("battle", BATTLES)
def test_copies_do_not_affect_each_other_or_the_process(battle):
    env = create(battle, num_envs=3)
    random.seed(0)
    np.random.seed(0)
    expected = random.random(), np.random.rand()
    random.seed(0)
    np.random.seed(0)
    three = play(env)
    assert (random.random(), np.random.rand()) == expected
    assert_close(play(create(battle, num_envs=1)), three[:1], rtol=0, atol=0)


def test_workers_change_nothing():
    env = create("ScatteredBattle", environment__num_workers=2)
    try:
        assert_close(play(env), play(create("ScatteredBattle")), rtol=0, atol=0)
    finally:
        env.close()


def test_an_object_is_closed_before_it_is_constructed_again():
    seeded = SeededBattle(Task("smac_stand_in:Battle"), "test")
    first = seeded.battle
    seeded.reseed(3)
    assert first.closed
    assert not seeded.battle.closed
    assert seeded.battle.seed() == 3


def test_the_kwargs_of_the_config_are_not_modified():
    config = make_config(
        env_type="smac",
        environment__task="smac_stand_in:WritesIntoItsTeam",
        environment__kwargs={"units": ["marine", "medivac"]},
    )
    EnvironmentFactory().create(config, 2).reset()
    assert config.environment.kwargs == {"units": ["marine", "medivac"]}
