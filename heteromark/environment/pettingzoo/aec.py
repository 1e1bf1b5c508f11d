"""Turn-based PettingZoo environments (AEC) as one batched TorchRL environment."""

from __future__ import annotations

from pettingzoo import AECEnv

from heteromark.environment.errors import IncompatibleOpponent
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.copies import CopySettings
from heteromark.environment.pettingzoo.turn_copies import TurnCopies
from heteromark.environment.pettingzoo.workers import WorkerPool
from heteromark.seeds import stream_seed


class PettingZooAECEnv(BatchedEnv):
    """N copies of a PettingZoo AEC environment; one frame is one turn of one learning agent.

    Keys and shapes are those of `make_specs`. In addition:
        (group, "active"): only the agent whose turn it is. In `next` at the end of an episode: the
            agents that only ran out of time. They observe the true final state, so a critic may
            estimate its value.
        (group, "observation"), (group, "action_mask"): of the active agent; waiting agents have
            zeros and all True.
        ("next", group, "reward"): each agent's reward since the previous frame, also for waiting
            agents; with `team_reward` the mean over all agents. Rewards before the first frame are
            added to it.
        "episode_return": the mean over the learning agents.
        "won": 1 if a learning agent has the strictly largest sum of rewards of all agents, and
            that sum is positive; else 0, also for a draw. -1 if all agents learn: one of them then
            wins regardless of what they learned.

    Agents that have left the episode are removed without a frame (the dead steps of AEC). An
    episode is done when all agents are: terminated if every remaining agent has terminated,
    truncated otherwise.

    With an opponent other than "self", one agent learns: the first or the second of
    `possible_agents`. With seat "alternate" the two change after every episode, and every other
    copy starts with the second. The other agents act within the step, with random numbers from
    each copy's own stream, so a frame lasts from one turn of the learner to the next. Those agents
    are never active.

    Args, Attributes, Raises: see `BatchedEnv`; errors while stepping: see `TurnCopies`.
    """

    _copies_class = TurnCopies
    _environment_class = AECEnv
    _copies: TurnCopies | WorkerPool

    @staticmethod
    def _check_opponent(settings: CopySettings) -> None:
        kind, agents = settings.opponent.kind, settings.description.agents
        if kind != "self" and len(agents) < 2:
            raise IncompatibleOpponent(
                kind,
                f"environment {settings.name!r} has only one agent, {agents[0]}; the opponent must "
                "be self",
            )

    def reseed(self, seed: int, *stream: int | str) -> None:
        """See `BatchedEnv.reseed`; the opponents' seeds are derived from the same seed."""
        super().reseed(seed, *stream)
        if self.opponent_pool is not None:
            self.opponent_pool.reseed(stream_seed(seed, *stream, "past policies"))

    def _play_opponents(self) -> None:
        if self.opponent_pool is None:
            return
        while self.opponent_pool.act(self._requests, self._actions, self.groups):
            self._copies.answer()
