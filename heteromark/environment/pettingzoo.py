"""PettingZoo environments as batched TorchRL environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pettingzoo import ParallelEnv

from heteromark.environment.batched import BatchedEnv
from heteromark.environment.copies import CopySettings, make_copy
from heteromark.environment.description import describe
from heteromark.environment.parallel_copies import ParallelCopies


class PettingZooParallelEnv(BatchedEnv):
    """N copies of a PettingZoo Parallel environment, stepped together; batch size [N].

    Observations go straight from the environments' dictionaries into one array per group, which
    costs a fraction of what wrapping every copy by itself does.

    Keys and shapes are those of `make_specs`; besides:
        (group, "observation"): flattened; zeros where the agent is not active.
        (group, "action_mask"): taken from the observation or the info; all True where the agent is
            not active.
        (group, "active"): in `next` it is False for agents that terminated, and stays True where
            only time ran out, because there the observation is a real state that a critic may
            value.
        ("next", group, "reward"): the agent's own reward, or with `team_reward` the mean over all
            agents of the environment, with 0 for the absent.
        "won": whether any agent's info says "battle_won" or "won" at the episode's end.

    An episode is done when no agent is left: terminated if every agent terminated, truncated
    otherwise. An agent that leaves before the others counts as terminated.

    Illegal actions are left to the environment.

    Args:
        make_env: returns a fresh Parallel environment; with `num_workers`, it must be possible to
            send it to another process.
        num_envs: number of copies N.
        num_workers: see `BatchedEnv`.
        group_by, groups, split: see `group_agents`.
        team_reward: train every agent on the mean of all agents' rewards.
        with_state: read the environment's global state.
        name: the environment's name in error messages.
        render: make copy 0 so that it can draw.
        first_env: a fresh environment to begin with, if there is one already.

    Raises:
        TypeError: `make_env` returns something that is no Parallel environment.
        ValueError: groups, spaces or the state do not fit; later, what a copy gives is not finite
            or not of its announced shape, or agents come and go against the rules.
        WorkerDied: a worker process ended.
    """

    def __init__(
        self,
        make_env: Callable[..., ParallelEnv],
        num_envs: int,
        *,
        num_workers: int = 0,
        group_by: str = "prefix",
        groups: Mapping[str, Sequence[str]] | None = None,
        split: bool = False,
        team_reward: bool = True,
        with_state: bool = False,
        name: str = "environment",
        render: bool = False,
        first_env: Any = None,
    ) -> None:
        first_env = first_env or make_copy(make_env, name, drawing=render)
        if not isinstance(first_env, ParallelEnv):
            raise TypeError(
                f"the factory of environment {name!r} returned {type(first_env).__name__}, not a "
                "pettingzoo.ParallelEnv; use the environment's parallel_env"
            )
        description = describe(first_env, name, with_state)
        settings = CopySettings(
            make_env=make_env,
            name=name,
            description=description,
            groups=description.group(group_by, groups, split),
            team_reward=team_reward,
            render=render,
        )
        super().__init__(ParallelCopies, settings, num_envs, num_workers, first_env)
