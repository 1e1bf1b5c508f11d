"""Custom environments by import path: supported types, and the contract of an EnvBase."""

from __future__ import annotations

import itertools

import pytest
import torch
from custom_environments import Foraging
from engine_config import make_config
from torchrl.data import Categorical, Unbounded

from heteromark.environment.contract import check_contract
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.modules.environment import EnvironmentFactory

MINE = "custom_environments"


def create(factory, num_envs=3):
    config = make_config(env_type="custom", environment__task=f"{MINE}:{factory}")
    return EnvironmentFactory().create(config, num_envs)


def test_an_envbase_creates_all_copies_itself():
    env = create("Foraging")
    assert isinstance(env, Foraging)
    assert env.batch_size == (3,)


@pytest.mark.parametrize(
    ("factory", "groups"),
    [("parallel", {"archer", "healer"}), ("smac", {"marine", "medivac"})],
)
def test_the_type_of_one_copy_decides_how_copies_are_created(factory, groups):
    env = create(factory)
    assert isinstance(env, PettingZooParallelEnv)
    assert env.batch_size == (3,)
    assert set(env.groups) == groups


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("nothing", TypeError, r"object, which is neither .*EnvBase .*ParallelEnv.* lacks reset"),
        ("nothing_for_all", TypeError, "has a parameter num_envs, so it must return a torchrl"),
        ("too_few", ValueError, r"batch_size is \[1\], but must be \[3\]; a factory with"),
    ],
)
def test_other_types_are_refused(factory, error, message):
    with pytest.raises(error, match=message):
        create(factory)


@pytest.mark.parametrize(
    ("overrides", "render", "message"),
    [
        ({"environment__groups": {"all": ["scout"]}}, False, "environment.groups is set"),
        ({"environment__group_by": "agent"}, False, "environment.group_by is agent"),
        ({"environment__smac": {"episode_limit": 9}}, False, "sets episode_limit = 9"),
        ({"environment__num_workers": 1}, False, "environment.num_workers is 1"),
        ({"policy__share_policy_params": False}, False, "have several agents: carrier"),
        ({"environment__state": True, "environment__task": f"{MINE}:Stateless"}, False, "no state"),
        ({}, True, r"it cannot render: it has no method render\(\)"),
    ],
)
def test_settings_an_envbase_cannot_follow_are_refused(overrides, render, message):
    config = make_config(
        **{"env_type": "custom", "environment__task": f"{MINE}:Foraging", **overrides}
    )
    with pytest.raises(ValueError, match=f"'test' is a .* creates all copies itself: .*{message}"):
        EnvironmentFactory().create(config, render=render)


def test_smac_settings_require_the_smac_api():
    config = make_config(
        env_type="custom",
        environment__task=f"{MINE}:parallel",
        environment__smac={"dead_agents": "active"},
    )
    with pytest.raises(ValueError, match=r"sets dead_agents = 'active', but .* is a ToyBattle"):
        EnvironmentFactory().create(config)


def test_an_envbase_controls_its_opponents_itself():
    factory = EnvironmentFactory()
    config = make_config(
        env_type="custom",
        environment__task=f"{MINE}:Foraging",
        environment__opponent={"kind": "random"},
    )
    with pytest.raises(ValueError, match=r"opponent\.kind is random, but .* must be self"):
        factory.create(config)


def test_a_shared_critic_requires_equal_rewards():
    def config(algorithm):
        return make_config(
            algorithm=algorithm, env_type="custom", environment__task=f"{MINE}:Selfish"
        )

    with pytest.raises(ValueError, match=r"violates the contract") as caught:
        EnvironmentFactory().create(config("MAPPO"))
    assert (
        "- rewards differ in copy 0: 0.0 for agent 'scout' of group 'scout', 1.0 for agent 'right' "
        "of group 'carrier'; with policy.critic=team all agents share one return"
    ) in str(caught.value)
    EnvironmentFactory().create(config("IPPO"))


def refused(change):
    """Return the error for a Foraging of two copies after `change`."""
    env = Foraging(2)
    change(env)
    with pytest.raises(ValueError, match=r"'mine' \(\w+\) violates the contract") as caught:
        check_contract(env, 2, "mine")
    return str(caught.value)


def test_everything_missing_is_listed_at_once():
    def strip(env):
        env.turn_based, env.state_size, env.groups = None, 0, {"scout": env.groups["carrier"]}
        env.reseed = None

    message = refused(strip)
    for line in (
        "groups['scout'] must be a Group with that name, but is Group(name='carrier'",
        "turn_based must be True or False",
        "state_size must be a positive integer, or None",
        "reseed(seed, *stream) is missing",
    ):
        assert f"- {line}" in message


def test_specs_must_match_the_groups():
    def spoil(env):
        observation = env.observation_spec.clone()
        del observation["scout", "active"]
        observation["carrier", "observation"] = Unbounded((2, 2, 7))
        observation["step_count"] = Unbounded((2, 1), dtype=torch.int32)
        env.observation_spec = observation
        action = env.full_action_spec.clone()
        action["carrier", "action"] = Categorical(4, shape=(2, 2), dtype=torch.int64)
        env.action_spec = action

    assert set(refused(spoil).splitlines()[1:]) == {
        "- observation_spec: ('carrier', 'observation') is float32 [2, 2, 7], must be float32 [2, 2, 2]",
        "- observation_spec lacks ('scout', 'active'): bool [2, 1]",
        "- observation_spec: 'step_count' is int32 [2, 1], must be int64 [2, 1]",
        "- action_spec: ('carrier', 'action') has 4 actions, but its Group has 3",
    }


def changed(method, change):
    """Return a function that makes an environment modify a method's result with `change`."""

    def spoil(env):
        original = getattr(env, method)

        def wrapped(tensordict=None, **kwargs):
            shown = original(tensordict, **kwargs)
            change(env, shown)
            return shown

        setattr(env, method, wrapped)

    return spoil


def forget_mask(env):
    original = env._reset
    env._reset = lambda tensordict=None, **_: original(None)


def unseeded(env):
    original, calls = env.reseed, itertools.count()
    env.reseed = lambda seed, *stream: original(next(calls), *stream)


def set_to(key, value):
    return lambda env, shown: shown.set(key, torch.full_like(shown[key], value))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            changed("_step", lambda env, shown: shown.set("step_count", env._steps + 4)),
            "'step_count' is [5, 5] after the first step",
        ),
        (
            changed("_step", lambda env, shown: shown.set("won", shown["won"][:, 0])),
            "step(): 'won' is int8 [2], must be int8 [2, 1]",
        ),
        (
            changed("_reset", lambda env, shown: shown["scout"].pop("observation")),
            "reset() lacks ('scout', 'observation'): float32 [2, 1, 1]",
        ),
        (
            changed("_reset", set_to(("carrier", "action_mask"), False)),
            "('carrier', 'action_mask') leaves an agent without a legal action",
        ),
        (
            changed("_step", set_to(("scout", "active"), False)),
            "('scout', 'observation') must be zeros where the agent is not active",
        ),
        (changed("_step", set_to("won", 1)), "'won' must be -1 until the episode ends"),
        (
            changed("_step", set_to(("carrier", "reward"), float("nan"))),
            "reward nan of agent 'left' of group 'carrier', agent 'right' of group 'carrier' in copy 0 "
            "is not finite",
        ),
        (
            changed("_reset", set_to(("scout", "observation"), float("nan"))),
            "reset(): agent 'scout' of group 'scout' in copy 0 observes [nan]; all values must be",
        ),
        (unseeded, "after the same reseed(0, 'contract'); all randomness must come from the seed"),
        (forget_mask, "after a step, a reset of only copy 0 through '_reset'"),
    ],
)
def test_outputs_must_follow_the_contract(spoil, message):
    assert message in refused(spoil)
