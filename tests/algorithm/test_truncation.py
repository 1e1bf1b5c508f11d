"""Ends of episodes, from the environment to the critic's loss, calculated by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_config import make_config
from gymnasium import spaces
from pettingzoo import ParallelEnv

from heteromark.training.components import ComponentFactory


class TwoSteps(ParallelEnv):
    """One agent, which observes 4, then 2, then 10 at the end; each step has reward 1.

    Args:
        ends: "terminated" or "truncated".
    """

    metadata = {"name": "two_steps"}  # noqa: RUF012 - PettingZoo's way

    def __init__(self, ends: str) -> None:
        self.possible_agents = ["walker_0"]
        self.agents = []
        self.ends = ends

    def observation_space(self, agent):
        return spaces.Box(0, 10, (1,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents = ["walker_0"]
        self.unseen = [2.0, 10.0]
        return {"walker_0": np.array([4.0], np.float32)}, {"walker_0": {}}

    def step(self, actions):
        seen = {"walker_0": np.array([self.unseen.pop(0)], np.float32)}
        over = not self.unseen
        if over:
            self.agents = []
        flags = [{"walker_0": over and self.ends == kind} for kind in ("terminated", "truncated")]
        return seen, {"walker_0": 1.0}, *flags, {"walker_0": {}}


# The value equals the observation; gamma and lambda are 1/2.
#   Last step:      terminated: 1 - 2 = -1            truncated: 1 + 10/2 - 2 = 4
#   Previous step:  1 + 2/2 - 4 = -2, plus a quarter of the advantage of the last step
@pytest.mark.parametrize(
    ("ends", "advantages", "targets"),
    [
        ("terminated", [-2.25, -1.0], [1.75, 1.0]),
        ("truncated", [-1.0, 4.0], [3.0, 6.0]),
    ],
)
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("HAPPO", {}),
        ("HAPPO", {"policy__critic": "group"}),
        ("MAPPO", {}),
        ("IPPO", {}),
        ("IPPO", {"environment__reward": "individual"}),
        ("MaskablePPO", {}),
    ],
)
def test_advantages_and_targets_at_the_end_of_episodes(
    algorithm, options, ends, advantages, targets
):
    config = make_config(
        algorithm=algorithm,
        environment__task=f"{__name__}:TwoSteps",
        environment__kwargs={"ends": ends},
        policy__hidden_sizes=[1],
        policy__activation="relu",
        loss__gamma=0.5,
        loss__gae_lambda=0.5,
        loss__normalize_value=False,
        loss__normalize_advantage=False,
        collector__frames_per_batch=8,
        replay_buffer__minibatch_size=8,
        training__num_epochs=1,
        **options,
    )
    components = ComponentFactory(config).create()
    (critic,) = components.learner.critics.values()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.fill_(1.0 if parameter.dim() == 2 else 0.0)
    components.collector.restart(0)
    batch = components.collector.collect()
    assert batch["walker", "observation"].flatten(1).tolist() == [[4.0, 2.0] * 2] * 2
    metrics = components.algorithm.update(batch, 0)

    assert batch["walker", "counts"].all()
    assert batch["walker", "advantage"].flatten(1).tolist() == [advantages * 2] * 2
    (name,) = components.learner.critics
    target = batch["value_target"] if name == "team" else batch[name, "value_target"]
    assert target.flatten(1).tolist() == [targets * 2] * 2
    column = "loss_critic" if name == "team" else f"loss_critic/{name}"
    half_squares = [advantage**2 / 2 for advantage in advantages]
    assert metrics[column] == pytest.approx(0.5 * sum(half_squares) / 2)
