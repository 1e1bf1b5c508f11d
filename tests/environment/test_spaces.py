"""Every kind of observation and action space that PettingZoo environments have."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from engine_config import make_config
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.commands.launch import train_run
from heteromark.environment.groups import Image
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.policy import PolicyFactory

DISCRETE = spaces.Discrete(3)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
PICTURE = spaces.Box(0, 255, (8, 10, 3), np.uint8)


class Mirror(ParallelEnv):
    """Two agents observe samples of a space, and earn 1 for the action `best`.

    Args:
        observed, acted: the spaces of every agent.
        outside: an observation that all agents get instead.
    """

    metadata = {"name": "mirror"}  # noqa: RUF012 - PettingZoo's way
    possible_agents = ["left_0", "left_1"]  # noqa: RUF012

    def __init__(self, observed=BOX, acted=DISCRETE, best=None, outside=None):
        self.spaces = observed, acted
        self.best, self.outside = best, outside
        self.given = []

    def observation_space(self, agent):
        return self.spaces[0]

    def action_space(self, agent):
        return self.spaces[1]

    def observe(self):
        if self.outside is not None:
            return dict.fromkeys(self.agents, self.outside)
        return {agent: self.spaces[0].sample() for agent in self.agents}

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.spaces[0].seed(seed)
        self.agents, self.t = list(self.possible_agents), 0
        self.seen = self.observe()
        return self.seen, {agent: {} for agent in self.agents}

    def step(self, actions):
        self.given.append(actions)
        self.t += 1
        now, over = list(self.agents), self.t >= 4
        rewards = {a: float(np.array_equal(actions[a], self.best)) for a in now}
        self.seen = self.observe()
        self.agents = [] if over else now
        flags = dict.fromkeys(now, False), dict.fromkeys(now, over)
        return self.seen, rewards, *flags, {agent: {} for agent in now}


OBSERVATIONS = {
    "discrete": (spaces.Discrete(5, start=2), 5),
    "multi_discrete": (spaces.MultiDiscrete([2, 4]), 6),
    "multi_binary": (spaces.MultiBinary([2, 3]), 6),
    "dict": (spaces.Dict(place=BOX, goal=spaces.Discrete(3)), 5),
    "tuple": (spaces.Tuple((BOX, spaces.Dict(flag=spaces.MultiBinary(2)))), 4),
    "named_observation": (spaces.Dict(observation=BOX, goal=BOX), 4),
    "matrix": (spaces.Box(-1.0, 1.0, (2, 3), np.float32), 6),
    "integers": (spaces.Box(0, 9, (2, 2), np.int64), 4),
}


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_observations_are_flattened_as_gymnasium_flattens_them(kind):
    space, size = OBSERVATIONS[kind]
    made = []

    def make():
        made.append(Mirror(space))
        return made[-1]

    env = PettingZooParallelEnv(make, 2)
    seen = env.reset()["left", "observation"]
    assert seen.shape == (2, 2, size)
    for copy, each in enumerate(made):
        for row, agent in enumerate(each.possible_agents):
            expected = spaces.flatten(space, each.seen[agent])
            np.testing.assert_array_equal(seen[copy, row].numpy(), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("space", "outside"),
    [
        (spaces.Discrete(3), 7),
        (spaces.Dict(place=BOX), {"elsewhere": np.zeros(2)}),
        (spaces.Tuple((BOX, BOX)), (np.zeros(2, np.float32),)),
        (spaces.MultiBinary(3), np.ones(2)),
    ],
)
def test_observations_outside_their_space_are_refused(space, outside):
    env = PettingZooParallelEnv(functools.partial(Mirror, space, outside=outside), 1, name="mirror")
    with pytest.raises(
        ValueError, match=r"'mirror' gave agent 'left_0' of copy 0 an observation outside its space"
    ):
        env.reset()


ACTIONS = {
    "multi_discrete": (spaces.MultiDiscrete([2, 3], start=[0, 5]), np.array([1, 7])),
    "multi_binary": (spaces.MultiBinary(3), np.array([0, 1, 1])),
    "matrix": (spaces.Box(-2.0, 2.0, (2, 2), np.float32), None),
    "fixed_dimension": (
        spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 0.0], np.float32)),
        None,
    ),
}


@pytest.mark.parametrize("bounds", ["tanh", "clip"])
@pytest.mark.parametrize("kind", ACTIONS)
def test_environments_receive_actions_within_their_space(kind, bounds):
    space, _ = ACTIONS[kind]
    made = []

    def make():
        made.append(Mirror(acted=space))
        return made[-1]

    env = PettingZooParallelEnv(make, 2)
    config = make_config(
        policy__gaussian={"bounds": bounds, "initial_std": 3.0, "std": "by_observation"}
    )
    policies = PolicyFactory().create(config, env.groups)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        env.rollout(5, policies.actors["left"], break_when_any_done=False)
    given = [action for each in made for actions in each.given for action in actions.values()]
    assert len(given) == 2 * 2 * 5
    for action in given:
        assert action.shape == space.shape
        assert space.contains(action.astype(space.dtype)), action
    if kind != "fixed_dimension":
        assert len({tuple(action.ravel().tolist()) for action in given}) > 3


@pytest.mark.parametrize("kind", ["multi_discrete", "multi_binary"])
@pytest.mark.parametrize("aggregation", ["prod", "mean"])
def test_a_team_learns_combined_choices(kind, aggregation, tmp_path, monkeypatch):
    space, best = ACTIONS[kind]
    monkeypatch.setattr("test_spaces.TASK", functools.partial(Mirror, acted=space, best=best))
    config = make_config(
        environment__task="test_spaces:make_task",
        environment__num_parallel_envs=8,
        loss__action_aggregation=aggregation,
        agent__happo={"action_aggregation": aggregation},
        optimizer__learning_rate=0.02,
        collector__frames_per_batch=64,
        training__total_frames=64 * 12,
        training__num_epochs=8,
    )
    record, _ = train_run(config, target=tmp_path / "run")
    assert record.summary.final_return > 3.0  # of 4; random play: 0.67 or 0.5


TASK = Mirror


def make_task():
    return TASK()


def test_pictures_need_a_convolutional_policy():
    config = make_config(environment__task="test_spaces:make_task")
    for picture, image in (
        (PICTURE, Image((8, 10, 3), channels_first=False)),
        (spaces.Box(0, 255, (3, 8, 10), np.uint8), Image((3, 8, 10), channels_first=True)),
        (spaces.Box(0, 255, (8, 10), np.uint8), Image((8, 10, 1), channels_first=False)),
    ):
        groups = PettingZooParallelEnv(functools.partial(Mirror, picture), 1).groups
        assert groups["left"].image == image
        with pytest.raises(ValueError, match=r"observes pictures .* set policy_type=cnn .*SuperS"):
            PolicyFactory().create(config, groups)
    vectors = EnvironmentFactory().create(config).groups
    convolutional = make_config(environment__task="test_spaces:make_task", policy_type="cnn")
    with pytest.raises(ValueError, match=r"group 'left' .* observes 2 numbers; set policy\.groups"):
        PolicyFactory().create(convolutional, vectors)


@pytest.mark.parametrize(
    ("observed", "acted", "message"),
    [
        (spaces.Dict(view=PICTURE, speed=BOX), DISCRETE, "with a picture in 'view'"),
        (spaces.Sequence(BOX), DISCRETE, "which Gymnasium cannot flatten"),
        (
            BOX,
            spaces.Box(np.array([-1.0, -np.inf], np.float32), 1.0),
            r"dimensions \[1\] have no finite bounds",
        ),
        (BOX, spaces.Dict(a=DISCRETE), "supported are Discrete, MultiDiscrete, MultiBinary and"),
        (
            spaces.Dict(observation=BOX, action_mask=spaces.MultiBinary(4)),
            spaces.MultiDiscrete([2, 2]),
            "masks are supported for Discrete actions only",
        ),
    ],
)
def test_other_spaces_are_refused_before_training(observed, acted, message):
    with pytest.raises(ValueError, match=message):
        PettingZooParallelEnv(functools.partial(Mirror, observed, acted), 1)


class Compass(Mirror):
    """The left or the right half of the picture is bright; the action says which, 1 is right."""

    def __init__(self, channels_first=False):
        shape = (3, 8, 10) if channels_first else (8, 10, 3)
        super().__init__(spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(2))
        self.channels_first = channels_first
        self.rng = np.random.default_rng()

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        return super().reset(seed, options)

    def observe(self):
        self.sides = {agent: int(self.rng.integers(2)) for agent in self.agents}
        seen = {}
        for agent, side in self.sides.items():
            picture = self.rng.integers(0, 60, self.spaces[0].shape, np.uint8)
            columns = slice(5 * side, 5 * side + 5)
            picture[(..., columns) if self.channels_first else (slice(None), columns)] += 150
            seen[agent] = picture
        return seen

    def step(self, actions):
        wanted = dict(self.sides)
        observations, rewards, *rest = super().step(actions)
        rewards = {agent: float(actions[agent] == wanted[agent]) for agent in rewards}
        return observations, rewards, *rest


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("algorithm", ["HAPPO", "IPPO"])
def test_a_convolutional_policy_learns_from_pictures(
    channels_first, algorithm, tmp_path, monkeypatch
):
    monkeypatch.setattr("test_spaces.TASK", functools.partial(Compass, channels_first))
    config = make_config(
        algorithm=algorithm,
        environment__task="test_spaces:make_task",
        environment__num_parallel_envs=8,
        environment__reward="individual" if algorithm == "IPPO" else "team",
        policy_type="cnn",
        policy__cnn={"channels": [4, 8]},
        policy__activation="relu",
        optimizer__learning_rate=0.003,
        collector__frames_per_batch=256,
        replay_buffer__minibatch_size=64,
        training__total_frames=256 * 8,
        training__num_epochs=4,
        agent__n_steps=256,
        agent__batch_size=64,
    )
    record, _ = train_run(config, target=tmp_path / "run")
    assert record.summary.final_return > 3.2  # of 4; guessing: 2


def test_a_picture_passes_through_the_filters_of_its_kind_only():
    """A critic of all observations uses the same filters for all pictures of a group."""
    config = make_config(environment__task="test_spaces:make_task", policy_type="cnn")
    env = PettingZooParallelEnv(functools.partial(Mirror, PICTURE), 2)
    policies = PolicyFactory().create(config, env.groups)
    seen = env.reset()
    critic = policies.critics["team"]
    value = critic(seen.clone())["state_value"]
    assert value.shape == (2, 1)
    swapped = seen.clone()
    swapped["left", "observation"] = seen["left", "observation"].flip(1)
    assert (critic(swapped)["state_value"] != value).all()
    filters = sum(
        p.numel()
        for m in critic.modules()
        if isinstance(m, torch.nn.Conv2d)
        for p in m.parameters()
    )
    assert filters == 3 * 16 * 9 + 16 + 16 * 32 * 9 + 32 + 32 * 32 * 9 + 32
