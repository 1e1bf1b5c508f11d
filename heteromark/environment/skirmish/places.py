"""Which agent is which unit: by slot, or by type where teams change from episode to episode."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.scenarios import RandomTeams, Scenario


class Places:
    """The agents' names, and the units that they are in each battle.

    By slot, agent k is unit k. By type, agents are named after unit types and counted within them;
    where teams are random, there are places for as many of each type as a team may have, and those
    without a unit are empty.

    Args:
        scenario: who fights.
        by_type: name agents by type.

    Attributes:
        agents: names, in order.
        is_fixed: agent k is always unit k.
    """

    def __init__(self, scenario: Scenario, by_type: bool) -> None:
        self.is_fixed = not (by_type and scenario.is_random)
        n = scenario.n_agents
        if not isinstance(scenario.teams, RandomTeams):
            names = scenario.teams[0] if by_type else ("ally",) * n
            self.agents = tuple(f"{name}_{names[:k].count(name)}" for k, name in enumerate(names))
            return
        if not by_type:
            self.agents = tuple(f"ally_{k}" for k in range(n))
            return
        alone = scenario.teams.not_alone
        sizes = {name: n - (name in alone) for name in scenario.types}
        self.agents = tuple(f"{name}_{k}" for name in scenario.types for k in range(sizes[name]))
        kinds = [kind for kind, name in enumerate(scenario.types) for _ in range(sizes[name])]
        self._kind = torch.tensor(kinds)
        self._rank = torch.tensor([k for name in scenario.types for k in range(sizes[name])])
        self._first = torch.tensor(
            [kinds.index(kind) if sizes[name] else 0 for kind, name in enumerate(scenario.types)]
        )
        alphabet = sorted(scenario.types)
        self._earlier = torch.tensor(
            [
                [alphabet.index(other) < alphabet.index(name) for other in scenario.types]
                for name in scenario.types
            ]
        )

    def seats(self, kind: Tensor) -> Seats:
        """Who sits where in these battles.

        Args:
            kind: int64 [A, B], types of the agents' units, sorted by the types' names.
        """
        device = kind.device
        which = torch.arange(len(self._first), device=device)[:, None, None]
        count = (kind == which).sum(1)  # [types, B]
        begins = (self._earlier.to(device).unsqueeze(-1) * count).sum(1)  # [types, B]
        of_place, rank = self._kind.to(device), self._rank.to(device)[:, None]
        exists = rank < count[of_place]
        slot = torch.where(exists, begins[of_place] + rank, 0)
        number = torch.arange(kind.shape[0], device=device)[:, None]
        place = self._first.to(device)[kind] + number - begins.gather(0, kind)
        return Seats(slot.T.contiguous(), exists.T.contiguous(), place.T.contiguous())


class Seats(NamedTuple):
    """Which unit each agent is; P agents, A units of their side.

    Attributes:
        slot: int64 [B, P], the number of the unit; 0 where there is none.
        exists: bool [B, P].
        place: int64 [B, A], the number of each unit's agent.
    """

    slot: Tensor
    exists: Tensor
    place: Tensor

    def by_agent(self, of_units: Tensor) -> Tensor:
        """[B, A, …] of units as [B, P, …] of agents; what is in empty places is not laid down."""
        battle = torch.arange(self.slot.shape[0], device=self.slot.device)[:, None]
        return of_units[battle, self.slot]

    def by_unit(self, of_agents: Tensor) -> Tensor:
        """[B, P] of agents as [B, A] of units."""
        return of_agents.gather(1, self.place)
