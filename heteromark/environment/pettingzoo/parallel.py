"""PettingZoo environments as batched TorchRL environments."""

from __future__ import annotations

from pettingzoo import ParallelEnv

from heteromark.environment.errors import OpponentMisfit
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.copies import CopySettings
from heteromark.environment.pettingzoo.parallel_copies import ParallelCopies


class PettingZooParallelEnv(BatchedEnv):
    """N copies of a PettingZoo Parallel environment, stepped together; batch size [N].

    Observations go straight from the environments' dictionaries into one array per group, which
    costs a fraction of what wrapping every copy by itself does.

    Keys and shapes are those of `make_specs`; besides:
        (group, "observation"): flattened.
        (group, "action_mask"): taken from the observation or the info.
        (group, "active"): stays True where only time ran out, because there the observation is a
            real state that a critic may value.
        ("next", group, "reward"): the agent's own reward, or with `team_reward` the mean over all
            agents of the environment, with 0 for the absent.
        "won": whether any agent's info says "battle_won" or "won" at the episode's end.

    An episode is done when no agent is left: terminated if every agent terminated, truncated
    otherwise. An agent that leaves before the others counts as terminated.

    Illegal actions are left to the environment. An agent must not come and go against the rules,
    and what a copy gives must be finite and of its announced shape; see `ParallelCopies`.

    Args, Raises: see `BatchedEnv`; an opponent that is to play raises ValueError.
    """

    _copies_class = ParallelCopies
    _environment_class = ParallelEnv

    @staticmethod
    def _check_opponent(settings: CopySettings) -> None:
        if settings.opponent.kind != "self":
            raise OpponentMisfit(
                settings.opponent.kind,
                f"in environment {settings.name!r} all agents act at once; opponents play in "
                "turn-based (AEC) environments only, so it must be self",
            )
