"""Gymnasium environments with a Tuple of spaces become PettingZoo environments."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo.test import parallel_api_test

from heteromark.environment.pettingzoo.gymnasium_team import GymnasiumTeam, make
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.import_paths import import_path

ID = "HeteroMARK-Lifting-v0"


class Lifting(gymnasium.Env):
    """Three agents see the step and a random number, and earn their actions; 5 steps.

    Args:
        each: rewards and flags have one entry per agent.
        ends: "terminated" or "truncated"; or "alone": agent_0 in the first step.
        parts: agents in the observation space.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's way

    def __init__(self, each=True, ends="truncated", parts=3, render_mode=None):
        self.observation_space = spaces.Tuple([spaces.Box(-9, 9, (2,), np.float32)] * parts)
        self.action_space = spaces.Tuple([spaces.Discrete(4)] * 3)
        self.each, self.ends, self.render_mode = each, ends, render_mode

    def observe(self):
        return tuple(
            np.array([self.t, self.np_random.random()], np.float32) for _ in self.observation_space
        )

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, actions):
        self.t += 1
        over = self.t == 5
        if self.ends == "alone":
            return self.observe(), [0.0] * 3, [True, False, False], [False] * 3, {}
        flags = [over and self.ends == "terminated", over and self.ends == "truncated"]
        rewards = [float(action) for action in actions]
        if self.each:
            flags = [[flag] * 3 for flag in flags]
        else:
            rewards = sum(rewards)
        return self.observe(), rewards, *flags, {"note": self.t}

    def render(self):
        return np.zeros((4, 5, 3), np.uint8)


gymnasium.register(ID, Lifting)


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_a_team_of_gymnasium_is_a_pettingzoo_environment(each, ends):
    parallel_api_test(make(ID, each=each, ends=ends), num_cycles=20)
    env = PettingZooParallelEnv(lambda: make(ID, each=each, ends=ends), 2)
    env.reseed(1)
    first = env.reset()
    assert list(env.groups) == ["agent"]
    assert env.groups["agent"].agents == ("agent_0", "agent_1", "agent_2")
    for t in range(5):
        first["agent", "action"] = first["agent", "active"].long() + t % 2
        stepped, first = env.step_and_maybe_reset(first)
        seen, present = (stepped["next", "agent", key] for key in ("observation", "active"))
        assert (seen[present][:, 0] == t + 1).all()
        reward = stepped["next", "agent", "reward"]
        assert (reward == (1 + t % 2) * (1 if each else 3)).all()
    assert stepped["next", ends].all()
    assert not stepped["next", "terminated" if ends == "truncated" else "truncated"].any()
    env.reseed(1)
    again = env.reset()
    env.reseed(2)
    assert (env.reset()["agent", "observation"] != again["agent", "observation"]).any()


def test_an_environment_without_one_space_per_agent_is_refused():
    with pytest.raises(TypeError, match=r"observation space .* is Box.* must be a Tuple"):
        GymnasiumTeam(gymnasium.make("CartPole-v1"))
    with pytest.raises(TypeError, match="has 2 observation and 3 action spaces"):
        make(ID, parts=2)


def test_agents_that_end_alone_are_refused():
    env = make(ID, ends="alone")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"agent 'agent_0' of .* ended before the others"):
        env.step(dict.fromkeys(env.possible_agents, 0))


def test_a_team_renders():
    env = make(ID, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (4, 5, 3)


def test_a_missing_module_is_reported_with_its_nearest_name():
    with pytest.raises(
        ModuleNotFoundError, match=r"did you mean mpe2\.simple_tag_v3\? Correct env"
    ):
        import_path("mpe2.simple_tag_v2:parallel_env", "environment.task")


@pytest.mark.parametrize(("package", "extra"), [("vmas", "vmas"), ("lbforaging", "lbf")])
def test_a_missing_package_is_reported_with_its_extra(package, extra, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'heteromark\[{extra}\]'"):
        import_path(f"{package}.anything:make", "environment.task")
