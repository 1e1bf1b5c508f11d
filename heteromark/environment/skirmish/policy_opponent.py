"""A trained policy that commands the other side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor

from heteromark.environment.groups import Group
from heteromark.environment.skirmish.layout import Layout, Notes
from heteromark.environment.skirmish.moments import Episode, Moment, View, chosen
from heteromark.environment.skirmish.orders import (
    Orders,
    mirrored,
    mirrored_pairs,
    mirrored_roster,
    orders_of,
    others_first,
)
from heteromark.environment.skirmish.places import Places, as_agents_see
from heteromark.environment.skirmish.randomness import uniform

# what random numbers are for, besides those of `battles` and `starts`
_ACT, _SPOT = 110, 111


class Player(Protocol):
    """Chooses actions for the units of one side."""

    def __call__(self, view: View, kind: Tensor, steps: Tensor, luck: Tensor) -> Tensor:
        """The actions, int64 [B, A].

        Args:
            view: what the units see; without a state.
            kind: int64 [A, B], their types.
            steps: int64 [B], of the episode so far.
            luck: [A, B], random numbers from 0 to 1, new at each step.
        """


class PolicyOpponent:
    """The other side, seeing and acting as agents do.

    Args:
        layout: theirs.
        player: who chooses their actions.

    What its units remember of an episode is kept here.
    """

    def __init__(self, layout: Layout, player: Player) -> None:
        self._layout, self._player = layout, player
        self._notes: Notes | None = None

    def orders(self, now: Moment, episode: Episode) -> Orders:
        """Orders as they read them, see `mirrored_orders`."""
        layout, n = self._layout, self._layout.n_enemies
        units = mirrored(now.units, n)
        roster = mirrored_roster(episode.roster, n)
        pairs = mirrored_pairs(episode.pairs, n)
        fresh = layout.fresh_notes(units.x)
        notes = fresh if self._notes is None else chosen(now.steps == 0, fresh, self._notes)
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
    """Actors by group, which sample their actions.

    Args:
        actors: by group; each gives a distribution over discrete actions.
        groups: of the environment that they were trained in.
        places: of the agents that they are to be.
        layout: of what these see.

    Raises:
        ValueError: the actors are others than those of these agents, or see or do other things.
    """

    def __init__(
        self,
        actors: Mapping[str, ProbabilisticTensorDictSequential],
        groups: Mapping[str, Group],
        places: Places,
        layout: Layout,
    ) -> None:
        _require_fit(groups, places, layout)
        self._actors, self._places, self._n_actions = actors, places, layout.n_actions
        self._rows = {
            name: [places.agents.index(agent) for agent in group.agents]
            for name, group in groups.items()
        }
        self._memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, view: View, kind: Tensor, steps: Tensor, luck: Tensor) -> Tensor:
        """See `Player`."""
        luck = luck.T
        seats = None if self._places.is_fixed else self._places.seats(kind)
        observation, offered, active = as_agents_see(view, seats)
        if seats is not None:
            luck = seats.by_agent(luck)
        actions = torch.zeros(active.shape, dtype=torch.int64, device=active.device)
        for name, rows in self._rows.items():
            shown: dict[str, Any] = {
                "observation": observation[:, rows],
                "active": active[:, rows],
                "action_mask": offered[:, rows],
            }
            seen = TensorDict(
                {name: shown, "step_count": steps.unsqueeze(1)}, batch_size=[len(steps)]
            )
            chances = self._chances(name, seen, steps == 0)
            # the first action up to which the probabilities exceed what was drawn
            below = chances.cumsum(-1) <= luck[:, rows].unsqueeze(-1) * chances.sum(-1, True)
            actions[:, rows] = below.sum(-1).clamp(max=self._n_actions - 1)
        return actions if seats is None else seats.by_unit(actions)

    def _chances(self, name: str, seen: TensorDict, begins: Tensor) -> Tensor:
        """Probabilities of the actions of one group, [B, n, actions]."""
        actor = self._actors[name]
        remembers = (name, "hidden") in actor.in_keys
        if remembers:
            if name not in self._memory:
                size = next(m.hidden_size for m in actor.modules() if hasattr(m, "hidden_size"))
                shape = (*seen[name, "active"].shape, size)
                self._memory[name] = seen[name, "observation"].new_zeros(shape)
            memory = torch.where(begins[:, None, None], 0.0, self._memory[name])
            seen[name, "hidden"] = memory
        *networks, head = actor.module
        for network in networks:
            seen = network(seen)
        if remembers:
            self._memory[name] = seen["next", name, "hidden"]
        return head.get_dist(seen).probs


def _require_fit(groups: Mapping[str, Group], places: Places, layout: Layout) -> None:
    trained = sorted(agent for group in groups.values() for agent in group.agents)
    if trained != sorted(places.agents):
        raise ValueError(
            f"the opponent's policy was trained as {', '.join(trained)}, but the units of the "
            f"other side are {', '.join(sorted(places.agents))}; take a policy that was trained "
            "in this scenario, with the other side's units"
        )
    for what, own, asked in (
        ("observations", {g.observation_size for g in groups.values()}, layout.observation_size),
        ("actions", {g.action_size for g in groups.values()}, layout.n_actions),
    ):
        if own != {asked}:
            raise ValueError(
                f"the opponent's policy was trained with {', '.join(map(str, own))} {what} per "
                f"agent, but has {asked} here; take one that was trained with the settings of this "
                "environment.skirmish"
            )
