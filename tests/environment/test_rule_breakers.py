"""Environments that break PettingZoo's rules: they work, or one sentence says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_environments import ToyBattle, ToyRelay

from heteromark.environment.pettingzoo.aec import PettingZooAECEnv
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv


class NeverClears(ToyBattle):
    """All agents end, but stay in the list of agents."""

    def reset(self, seed=None, options=None):
        result = super().reset(seed, options)
        self.alive = list(self.agents)
        return result

    def step(self, actions):
        self.agents = self.alive
        result = super().step(actions)
        self.alive, self.agents = self.agents, list(self.possible_agents)
        return result


class Changed(ToyBattle):
    """A ToyBattle with other results of reset() and step()."""

    def __init__(self, reset=lambda *r: r, step=lambda *r: r) -> None:
        super().__init__()
        self._change_reset, self._change_step = reset, step

    def reset(self, seed=None, options=None):
        return self._change_reset(*super().reset(seed, options))

    def step(self, actions):
        return self._change_step(*super().step(actions))


class NoSeed(ToyBattle):
    def reset(self, options=None):
        return super().reset()


def play(env, steps):
    outputs, taken = env.reset(), []
    for _ in range(steps):
        outputs["archer", "action"] = torch.full((1, 2), 3)
        outputs["healer", "action"] = torch.zeros(1, 1, dtype=torch.int64)
        stepped, outputs = env.step_and_maybe_reset(outputs)
        taken.append(stepped["next"])
    return torch.stack(taken, 1)


def made(make):
    env = PettingZooParallelEnv(make, 1, name="odd")
    env.reseed(0)
    return env


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_who_ends_is_gone_whatever_the_list_says(ends):
    plain = play(made(lambda: ToyBattle(ends=ends)), 12)
    kept = play(made(lambda: NeverClears(ends=ends)), 12)
    for key in ("done", "terminated", "truncated", "step_count", "episode_return"):
        assert torch.equal(kept[key], plain[key]), key
    for group in ("archer", "healer"):
        for key in ("active", "observation", "reward"):
            assert torch.equal(kept[group, key], plain[group, key]), (group, key)


def rewards_as(change):
    return lambda seen, rewards, *rest: (
        seen,
        {agent: change(value) for agent, value in rewards.items()},
        *rest,
    )


@pytest.mark.parametrize(
    "change",
    [lambda r: np.array([r]), np.float32, lambda r: np.array(r), lambda r: torch.tensor(r), int],
)
def test_a_reward_of_one_number_is_taken(change):
    expected = play(made(ToyBattle), 4)["episode_return"]
    found = play(made(lambda: Changed(step=rewards_as(change))), 4)["episode_return"]
    assert torch.equal(found, expected)


ODD = "environment 'odd'"
GAVE = f"{ODD} gave agent 'archer_0' of copy 0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Changed(step=rewards_as(lambda r: [r, r])),
            f"{GAVE} the reward [1.0, 1.0]; a reward must be one number",
        ),
        (
            lambda: Changed(step=rewards_as(lambda r: None)),
            f"{GAVE} the reward None; a reward must be one number",
        ),
        (
            lambda: Changed(step=rewards_as(str)),
            f"{GAVE} the reward '1.0'; a reward must be one number",
        ),
        (
            lambda: Changed(step=lambda seen, rewards, *rest: (seen, {"archer": 1.0}, *rest)),
            f"{ODD} returned rewards for 'archer' in copy 0, but its possible_agents are archer_0, "
            "archer_1, healer_0",
        ),
        (
            lambda: Changed(step=lambda seen, rewards, *rest: (seen, {}, *rest)),
            f"{GAVE} the reward None",
        ),
        (
            lambda: Changed(step=lambda *r: (*r[:4], dict.fromkeys(r[4]))),
            f"{GAVE} the info None; an info must be a dictionary, which may be empty",
        ),
        (
            lambda: Changed(step=lambda *r: r[:4]),
            f"step() of {ODD}, copy 0, returned a tuple of 4 (dict, dict, dict, dict), but must "
            "return five dictionaries",
        ),
        (
            lambda: Changed(step=lambda *r: (*r[:2], True, False, {})),
            f"step() of {ODD}, copy 0, returned a tuple of 5 (dict, dict, bool, bool, dict)",
        ),
        (
            lambda: Changed(reset=lambda seen, infos: seen),
            f"reset() of {ODD}, copy 0, returned a dict, but must return two dictionaries by agent",
        ),
        (
            lambda: Changed(reset=lambda seen, infos: (seen, None)),
            f"reset() of {ODD}, copy 0, returned a tuple of 2 (dict, NoneType)",
        ),
        (
            lambda: Changed(reset=lambda seen, infos: (seen, dict.fromkeys(infos))),
            f"{GAVE} the info None; an info must be a dictionary",
        ),
        (NoSeed, f"{ODD} cannot be seeded: its reset() takes no seed"),
    ],
)
def test_one_sentence_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match="odd") as error:
        play(made(make), 3)
    assert message in str(error.value)


class Undead(ToyRelay):
    """Its step(None) does not remove an agent that has terminated."""

    def step(self, action):
        if action is not None:
            super().step(action)


class ArrayRelay(ToyRelay):
    """Its rewards are arrays."""

    def step(self, action):
        super().step(action)
        self.rewards = {agent: np.array([reward]) for agent, reward in self.rewards.items()}


def relay(make, steps):
    env = PettingZooAECEnv(make, 1, name="odd")
    env.reseed(0)
    outputs = env.reset()
    for _ in range(steps):
        for name, group in env.groups.items():
            legal = outputs[name, "action_mask"].int()
            outputs[name, "action"] = group.action_size - 1 - legal.flip(-1).argmax(-1)
        stepped, outputs = env.step_and_maybe_reset(outputs)
    return stepped["next", "episode_return"]


def test_turn_based_environments_are_checked_too():
    assert torch.equal(relay(ArrayRelay, 6), relay(ToyRelay, 6))
    with pytest.raises(ValueError, match=r"'odd' did not remove agent .* its step\(None\) must"):
        relay(Undead, 30)
