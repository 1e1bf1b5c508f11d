"""PettingZoo Parallel environments as one batched TorchRL environment."""

from __future__ import annotations

from pettingzoo import ParallelEnv

from heteromark.environment.errors import IncompatibleOpponent
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.copies import CopySettings
from heteromark.environment.pettingzoo.parallel_copies import ParallelCopies


class PettingZooParallelEnv(BatchedEnv):
    """N copies of a PettingZoo Parallel environment, stepped together; batch size [N].

    Observations are written directly from the environments' dictionaries into one array per group,
    which is much faster than wrapping every copy separately.

    Keys and shapes are those of `make_specs`. In addition:
        (group, "observation"): flattened.
        (group, "action_mask"): taken from the observation or the info.
        (group, "active"): stays True for agents that only ran out of time: their observation is a
            real state, so a critic may estimate its value.
        ("next", group, "reward"): the agent's own reward; with `team_reward` the mean over all
            agents of the environment, where absent agents count as 0.
        "won": whether any agent's info has a true "battle_won" or "won" at the end of the episode.

    An episode is done when no agent is left: terminated if every agent terminated, truncated
    otherwise. An agent that leaves before the others counts as terminated.

    Illegal actions are passed on to the environment. Agents must not return after they left, and
    outputs must be finite and have the declared shapes; see `ParallelCopies`.

    Args, Raises: see `BatchedEnv`; every opponent kind but self raises ValueError.
    """

    _copies_class = ParallelCopies
    _environment_class = ParallelEnv

    @staticmethod
    def _check_opponent(settings: CopySettings) -> None:
        if settings.opponent.kind != "self":
            raise IncompatibleOpponent(
                settings.opponent.kind,
                f"in environment {settings.name!r} all agents act at once; opponents can play only "
                "in turn-based (AEC) environments, so the opponent must be self",
            )
