"""PettingZoo AEC environments, in which agents take turns, as one batched TorchRL environment."""

from __future__ import annotations

from pettingzoo import AECEnv

from heteromark.environment.errors import OpponentMisfit
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.copies import CopySettings
from heteromark.environment.pettingzoo.turn_copies import TurnCopies
from heteromark.seeds import stream_seed


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

    Args, Attributes, Raises: see `BatchedEnv`; later, see `TurnCopies`.
    """

    _copies_class = TurnCopies
    _environment_class = AECEnv

    @staticmethod
    def _check_opponent(settings: CopySettings) -> None:
        kind, agents = settings.opponent.kind, settings.description.agents
        if kind != "self" and len(agents) < 2:
            raise OpponentMisfit(
                kind,
                f"environment {settings.name!r} has one agent only, {agents[0]}; it must be self",
            )

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
