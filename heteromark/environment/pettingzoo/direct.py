"""Step PettingZoo environments without their checking wrappers. Imports no torch.

PettingZoo's own environments are wrapped in layers that check every access. Most Parallel ones are
AEC environments underneath, and their conversion observes every agent twice per step. Together,
this takes over a third of the step time of the particle environments. Results are the same here:
only wrappers that change nothing are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, OrderEnforcingWrapper

_CHECKING_WRAPPERS = (OrderEnforcingWrapper, AssertOutOfBoundsWrapper)


def without_checks(env: AECEnv) -> AECEnv:
    """Return the environment below the checking wrappers, for stepping; reset `env` itself."""
    while type(env) in _CHECKING_WRAPPERS:
        env = env.env
    return env


def direct_parallel(env: ParallelEnv) -> Any:
    """Return a faster equivalent of a Parallel environment, or the environment itself."""
    return _DirectParallel(env) if type(env) is aec_to_parallel_wrapper else env


class _DirectParallel:
    """`aec_to_parallel` without checking wrappers and with one observation per agent."""

    def __init__(self, env: aec_to_parallel_wrapper) -> None:
        self._env = env
        self._inner = without_checks(env.aec_env)
        self.agents: list[str] = []

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `ParallelEnv.reset`."""
        observations_and_infos = self._env.reset(seed=seed)
        self.agents = self._env.agents
        return observations_and_infos

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """See `ParallelEnv.step`."""
        env = self._inner
        rewards = dict.fromkeys(env.agents, 0.0)
        for agent in env.agents:
            if agent != env.agent_selection:
                raise ValueError(
                    f"agent {agent!r} should act, but it is the turn of {env.agent_selection!r}; "
                    "in an environment converted to Parallel, agents must act in a fixed cycle"
                )
            env.step(actions[agent])
            for rewarded, reward in env.rewards.items():
                rewards[rewarded] += reward
        flags = dict(env.terminations), dict(env.truncations), dict(env.infos)
        observations = {agent: env.observe(agent) for agent in env.agents}
        while env.agents and (
            env.terminations[env.agent_selection] or env.truncations[env.agent_selection]
        ):
            env.step(None)
        self.agents = env.agents
        return observations, rewards, *flags
