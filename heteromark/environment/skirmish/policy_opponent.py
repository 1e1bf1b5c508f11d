"""A trained policy that commands the other side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_structure, tree_unflatten

from heteromark.environment.groups import Group
from heteromark.environment.skirmish.layout import Layout, Notes
from heteromark.environment.skirmish.moments import Episode, Moment, View, select
from heteromark.environment.skirmish.orders import (
    Orders,
    mirrored,
    mirrored_pairs,
    mirrored_roster,
    orders_of,
    others_first,
)
from heteromark.environment.skirmish.places import AgentMap, as_agents_see
from heteromark.environment.skirmish.randomness import uniform

# purposes of random numbers; see also `battles` and `starts`
_ACT, _SPOT = 110, 111


class Player(Protocol):
    """Chooses actions for the units of one side."""

    def __call__(self, view: View, kind: Tensor, steps: Tensor, luck: Tensor) -> Tensor:
        """Return the actions, int64 [B, A].

        Args:
            view: what the units observe; the state is empty.
            kind: int64 [A, B], their types.
            steps: int64 [B], steps of the episode so far.
            luck: [A, B], random numbers from 0 to 1, new at each step.
        """


class PolicyOpponent:
    """The other side with observations and actions like the agents'.

    It stores the notes of its units.

    Args:
        layout: layout of the other side.
        player: chooses the other side's actions.
    """

    def __init__(self, layout: Layout, player: Player) -> None:
        self._layout, self._player = layout, player
        self._notes: Notes | None = None

    def state(self) -> dict[str, Any]:
        """Return what it remembers of the running battles, as tensors and containers."""
        notes = None if self._notes is None else tree_leaves(self._notes)
        return {"notes": notes, "memory": dict(getattr(self._player, "memory", {}))}

    def load_state(self, state: Mapping[str, Any], like: Tensor) -> None:
        """Continue from a `state`; `like` is [U, B], on the device of the battles."""
        notes = state["notes"]
        if notes is not None:
            leaves = [leaf.to(like.device) for leaf in notes]
            notes = tree_unflatten(leaves, tree_structure(self._layout.fresh_notes(like)))
        self._notes = notes
        if hasattr(self._player, "memory"):
            memory = {name: each.to(like.device) for name, each in state["memory"].items()}
            self._player.memory = memory

    def orders(self, now: Moment, episode: Episode) -> Orders:
        """Return orders in the other side's view; see `mirrored_orders`."""
        layout, n = self._layout, self._layout.n_enemies
        units = mirrored(now.units, n)
        roster = mirrored_roster(episode.roster, n)
        pairs = mirrored_pairs(episode.pairs, n)
        fresh = layout.fresh_notes(units.x)
        notes = fresh if self._notes is None else select(now.steps == 0, fresh, self._notes)
        side, notes = layout.watch(
            units, roster, pairs, notes, key=episode.key, steps=now.steps, purpose=_SPOT
        )
        observation = layout.observe(units, roster, others_first(episode.bits, n), side, notes)
        alive = units.alive[: layout.n_agents]
        row = torch.arange(layout.n_agents, device=units.x.device)[:, None]
        luck = uniform(episode.key, _ACT, now.steps, row, dtype=units.x.dtype)
        nothing = observation.new_empty(0)
        seen = (observation, side.options.offered, nothing, alive)
        view = View(*(part.movedim(-1, 0) for part in seen))
        kind = roster.kind[: layout.n_agents].expand(-1, now.steps.shape[0])
        actions = self._player(view, kind, now.steps, luck)
        orders, self._notes = orders_of(actions.T, side.options, units, roster, layout, notes)
        return orders


class ActorPlayer:
    """A player that samples actions from actors, by group.

    Args:
        actors: by group; each returns a distribution over discrete actions.
        groups: groups of the environment that the actors were trained in.
        agent_map: the agents they play.
        layout: layout of these agents' observations and actions.

    Attributes:
        memory: hidden states of recurrent actors by group, [B, n, hidden_size].

    Raises:
        ValueError: the actors were trained for other agents, observations or actions.
    """

    def __init__(
        self,
        actors: Mapping[str, ProbabilisticTensorDictSequential],
        groups: Mapping[str, Group],
        agent_map: AgentMap,
        layout: Layout,
    ) -> None:
        _require_fit(groups, agent_map, layout)
        self._actors, self._agent_map, self._n_actions = actors, agent_map, layout.n_actions
        self._rows = {
            name: [agent_map.agents.index(agent) for agent in group.agents]
            for name, group in groups.items()
        }
        self.memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, view: View, kind: Tensor, steps: Tensor, luck: Tensor) -> Tensor:
        """See `Player`."""
        luck = luck.T
        assignment = None if self._agent_map.is_fixed else self._agent_map.assign(kind)
        observation, offered, active = as_agents_see(view, assignment)
        if assignment is not None:
            luck = assignment.by_agent(luck)
        actions = torch.zeros(active.shape, dtype=torch.int64, device=active.device)
        for name, rows in self._rows.items():
            inputs: dict[str, Any] = {
                "observation": observation[:, rows],
                "active": active[:, rows],
                "action_mask": offered[:, rows],
            }
            seen = TensorDict(
                {name: inputs, "step_count": steps.unsqueeze(1)}, batch_size=[len(steps)]
            )
            chances = self._chances(name, seen, steps == 0)
            # the first action whose cumulative probability exceeds the random number
            below = chances.cumsum(-1) <= luck[:, rows].unsqueeze(-1) * chances.sum(-1, True)
            actions[:, rows] = below.sum(-1).clamp(max=self._n_actions - 1)
        return actions if assignment is None else assignment.by_unit(actions)

    def _chances(self, name: str, seen: TensorDict, begins: Tensor) -> Tensor:
        """Return the action probabilities of one group, [B, n, actions]."""
        actor = self._actors[name]
        remembers = (name, "hidden") in actor.in_keys
        if remembers:
            if name not in self.memory:
                size = next(m.hidden_size for m in actor.modules() if hasattr(m, "hidden_size"))
                shape = (*seen[name, "active"].shape, size)
                self.memory[name] = seen[name, "observation"].new_zeros(shape)
            memory = torch.where(begins[:, None, None], 0.0, self.memory[name])
            seen[name, "hidden"] = memory
        *networks, head = actor.module
        for network in networks:
            seen = network(seen)
        if remembers:
            self.memory[name] = seen["next", name, "hidden"]
        return head.get_dist(seen).probs


def _require_fit(groups: Mapping[str, Group], agent_map: AgentMap, layout: Layout) -> None:
    trained = sorted(agent for group in groups.values() for agent in group.agents)
    if trained != sorted(agent_map.agents):
        raise ValueError(
            f"the opponent's policy was trained as {', '.join(trained)}, but the units of the "
            f"other side are {', '.join(sorted(agent_map.agents))}; use a policy that was trained "
            "in this scenario with these units"
        )
    for what, own, expected in (
        ("observations", {g.observation_size for g in groups.values()}, layout.observation_size),
        ("actions", {g.action_size for g in groups.values()}, layout.n_actions),
    ):
        if own != {expected}:
            raise ValueError(
                f"the opponent's policy was trained with {', '.join(map(str, own))} {what} per "
                f"agent, but this environment has {expected}; use a policy that was trained with "
                "the same environment.skirmish settings"
            )
