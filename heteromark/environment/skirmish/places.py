"""Which agent is which unit: by slot, or by type where teams change from episode to episode."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.moments import View
from heteromark.environment.skirmish.scenarios import Scenario


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
        if self.is_fixed:
            names = scenario.teams[0] if by_type else ("ally",) * n
            self.agents = tuple(f"{name}_{names[:k].count(name)}" for k, name in enumerate(names))
            return
        alone = scenario.teams.not_alone
        sizes = {name: n - (name in alone) for name in scenario.types}
        self.agents = tuple(f"{name}_{k}" for name in scenario.types for k in range(sizes[name]))
        starts = [0, *itertools.accumulate(sizes.values())]
        self._first = torch.tensor(starts[:-1])

    def seats(self, kind: Tensor) -> Seats:
        """Who sits where in these battles: units of one type in the order of their slots.

        Args:
            kind: int64 [A, B], types of the side's units.
        """
        number = torch.arange(kind.shape[0], device=kind.device)
        is_earlier = number[:, None] > number
        same = (kind.unsqueeze(1) == kind) & is_earlier.unsqueeze(-1)
        place = self._first.to(kind.device)[kind] + same.sum(1)
        agent = torch.arange(len(self.agents), device=kind.device)[:, None]
        sits = place.unsqueeze(1) == agent  # [A, P, B]
        slot = (sits * number[:, None, None]).sum(0)
        return Seats(*(part.T.contiguous() for part in (slot, sits.any(0), place)))


class Seats(NamedTuple):
    """Which unit each agent is; P agents, A units of their side."""

    slot: Tensor  # int64 [B, P], the number of the unit; 0 where there is none
    exists: Tensor  # bool [B, P]
    place: Tensor  # int64 [B, A], the number of each unit's agent

    def by_agent(self, of_units: Tensor) -> Tensor:
        """[B, A, …] of units as [B, P, …] of agents; what is in empty places is not laid down."""
        battle = torch.arange(self.slot.shape[0], device=self.slot.device)[:, None]
        return of_units[battle, self.slot]

    def by_unit(self, of_agents: Tensor) -> Tensor:
        """[B, P] of agents as [B, A] of units."""
        return of_agents.gather(1, self.place)


def as_agents_see(view: View, seats: Seats | None) -> tuple[Tensor, Tensor, Tensor]:
    """Observations, offered actions and who is active, [B, P, …].

    Those who are not active see nothing, and may do anything: nobody listens.

    Args:
        view: what units see.
        seats: who is which unit; None: agent k is unit k.
    """
    observation, offered, active = view.observation, view.offered, view.alive
    if seats is not None:
        parts = (observation, offered, active)
        observation, offered, active = (seats.by_agent(part) for part in parts)
        active = active & seats.exists
        observation = observation * active.unsqueeze(2)
    return observation, offered | ~active.unsqueeze(2), active
