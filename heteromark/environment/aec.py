"""PettingZoo AEC environments, in which agents take turns, as one batched TorchRL environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pettingzoo import AECEnv

from heteromark.config.components import OpponentConfig
from heteromark.environment.batched import BatchedEnv
from heteromark.environment.copies import CopySettings, make_copy
from heteromark.environment.description import describe
from heteromark.environment.opponent_pool import OpponentPool
from heteromark.environment.seeds import stream_seed
from heteromark.environment.turn_copies import TurnCopies


class PettingZooAECEnv(BatchedEnv):
    """N copies of a PettingZoo AEC environment; one frame is one turn of one learning agent.

    Keys and shapes are those of `make_specs`; besides:
        (group, "active"): only the agent whose turn it is. In `next` at an episode's end: the
            agents that only ran out of time, who see the true final state that a critic may value.
        (group, "observation"), (group, "action_mask"): of that agent; zeros, and all True, for
            those who wait.
        ("next", group, "reward"): what each agent, waiting or not, got since the frame before; or
            with `team_reward` the mean over all agents. Rewards from before the first frame count
            to it.
        "episode_return": the mean over the agents that learn.
        "won": 1 if the agent that learns has the strictly largest sum of rewards of all agents, and
            it is positive; else 0, so also for a draw. Unknown where several agents learn, because
            then one of them wins whatever they have learnt.

    Agents that are out of the episode are taken away without a frame (the dead steps of AEC). An
    episode is done when all are: terminated if every agent still there has terminated, truncated
    otherwise.

    With an opponent of another kind than "self", one agent learns, the first or the second of
    `possible_agents`; with seat "alternate" they change with every episode, and every other copy
    starts with the second. The other agents are played within the step, from a random stream of
    each copy, so that a frame runs from the learner's turn to its next. They are never active.

    Args:
        make_env: returns a fresh AEC environment; with `num_workers`, it must be possible to send
            it to another process.
        num_envs: number of copies N.
        opponent: who plays the seats that do not learn.
        num_workers, group_by, groups, split, team_reward, with_state, name, render, first_env: see
            `PettingZooParallelEnv`.

    Attributes:
        opponent_pool: where past policies play: the policies; else None.

    Raises:
        TypeError: `make_env` returns something that is no AEC environment.
        ValueError, ModuleNotFoundError: groups, spaces, the state or the opponent do not fit;
            later, see `TurnCopies`.
        WorkerDied: a worker process ended.
    """

    def __init__(
        self,
        make_env: Callable[..., AECEnv],
        num_envs: int,
        *,
        opponent: OpponentConfig | None = None,
        num_workers: int = 0,
        group_by: str = "prefix",
        groups: Mapping[str, Sequence[str]] | None = None,
        split: bool = False,
        team_reward: bool = False,
        with_state: bool = False,
        name: str = "environment",
        render: bool = False,
        first_env: Any = None,
    ) -> None:
        first_env = first_env or make_copy(make_env, name, drawing=render)
        if not isinstance(first_env, AECEnv):
            raise TypeError(
                f"the factory of environment {name!r} returned {type(first_env).__name__}, not a "
                "pettingzoo.AECEnv"
            )
        description = describe(first_env, name, with_state)
        opponent = opponent or OpponentConfig()
        if opponent.kind != "self" and len(description.agents) < 2:
            raise ValueError(
                f"environment.opponent.kind is {opponent.kind}, but environment {name!r} has one "
                f"agent only, {description.agents[0]}; set environment.opponent.kind=self"
            )
        settings = CopySettings(
            make_env=make_env,
            name=name,
            description=description,
            groups=description.group(group_by, groups, split),
            team_reward=team_reward,
            opponent=opponent,
            render=render,
        )
        super().__init__(TurnCopies, settings, num_envs, num_workers, first_env)
        if opponent.kind == "past_self":
            self.opponent_pool = OpponentPool(opponent.pool_size)

    def reseed(self, seed: int, *stream: int | str) -> None:
        """See `BatchedEnv.reseed`; opponents, too, play from these seeds."""
        super().reseed(seed, *stream)
        if self.opponent_pool is not None:
            self.opponent_pool.reseed(stream_seed(seed, *stream, "past policies"))

    def _settle(self) -> None:
        if self.opponent_pool is None:
            return
        while self.opponent_pool.act(self._asked, self._actions, self.groups):
            self._copies.answer()
