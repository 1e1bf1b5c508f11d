"""The mapping from agents to units: by slot, or by type if teams change between episodes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.moments import View
from heteromark.environment.skirmish.scenarios import RandomTeams, Scenario


class AgentMap:
    """The agents' names, and their units in each battle.

    By slot, agent k is unit k. By type, agents are named after unit types and numbered within each
    type. With random teams there are as many agents of each type as a team can have, and some have
    no unit in a battle.

    Args:
        scenario: the teams.
        by_type: name agents by type.

    Attributes:
        agents: names, in order.
        is_fixed: agent k is always unit k.
    """

    def __init__(self, scenario: Scenario, by_type: bool) -> None:
        n, teams = scenario.n_agents, scenario.teams
        self.is_fixed = not (by_type and scenario.is_random)
        if not by_type:
            self.agents = _numbered(("ally",) * n)
        elif not isinstance(teams, RandomTeams):
            self.agents = _numbered(teams[0])
        else:
            sizes = {name: n - (name in teams.not_alone) for name in scenario.types}
            self.agents = tuple(
                f"{name}_{k}" for name in scenario.types for k in range(sizes[name])
            )
            starts = [0, *itertools.accumulate(sizes.values())]
            self._first = torch.tensor(starts[:-1])

    def assign(self, kind: Tensor) -> Assignment:
        """Assign units to agents: units of one type are taken in the order of their slots.

        Args:
            kind: int64 [A, B], types of the side's units.
        """
        number = torch.arange(kind.shape[0], device=kind.device)
        is_earlier = number[:, None] > number
        same = (kind.unsqueeze(1) == kind) & is_earlier.unsqueeze(-1)
        agent = self._first.to(kind.device)[kind] + same.sum(1)
        numbers = torch.arange(len(self.agents), device=kind.device)[:, None]
        matches = agent.unsqueeze(1) == numbers  # [A, P, B]
        unit = (matches * number[:, None, None]).sum(0)
        return Assignment(*(part.T.contiguous() for part in (unit, matches.any(0), agent)))


def _numbered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Number equal names: `marine, marine` → `marine_0, marine_1`."""
    return tuple(f"{name}_{names[:k].count(name)}" for k, name in enumerate(names))


class Assignment(NamedTuple):
    """Assignment of P agents to the A units of their side."""

    unit: Tensor  # int64 [B, P], index of each agent's unit; 0 without a unit
    exists: Tensor  # bool [B, P], whether the agent has a unit
    agent: Tensor  # int64 [B, A], index of each unit's agent

    def by_agent(self, of_units: Tensor) -> Tensor:
        """Reorder units [B, A, …] to agents [B, P, …]; agents without a unit get any values."""
        battle = torch.arange(self.unit.shape[0], device=self.unit.device)[:, None]
        return of_units[battle, self.unit]

    def by_unit(self, of_agents: Tensor) -> Tensor:
        """Reorder agents [B, P] to units [B, A]."""
        return of_agents.gather(1, self.agent)


def as_agents_see(view: View, assignment: Assignment | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the agents' observations, legal actions and active flags, [B, P, …].

    Inactive agents have zero observations, and all their actions are legal.

    Args:
        view: what units observe.
        assignment: the agents' units; None: agent k is unit k.
    """
    observation, offered, active = view.observation, view.offered, view.alive
    if assignment is not None:
        parts = (observation, offered, active)
        observation, offered, active = (assignment.by_agent(part) for part in parts)
        active = active & assignment.exists
        observation = observation * active.unsqueeze(2)
    return observation, offered | ~active.unsqueeze(2), active
