"""The state of battles as structures of arrays.

The batch dimension comes last: [U, B] for U units of B battles, the agents' units first, then their
enemies. Operations on pairs of units [U, U, B] then run along the batch, which is contiguous in
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.scenarios import Scenario
from heteromark.environment.skirmish.units import (
    MIN_SHOOT_RANGE,
    SWAPPED_MAX_COOLDOWNS,
    UnitType,
)


class Units(NamedTuple):
    """What changes in every game loop; [U, B], floats unless stated otherwise.

    Conditions are floats, 1 or 0, because compiled code loads and stores booleans slowly.
    """

    x: Tensor  # map units, multiples of 1/4096
    y: Tensor
    health: Tensor  # points
    shield: Tensor
    energy: Tensor
    cooldown: Tensor  # game loops until the weapon is ready
    calm: Tensor  # game loops since the last damage
    bursting: Tensor  # 1 if it was killed in the last game loop and bursts in the next, else 0
    walking: Tensor  # 1 if it has the order to go to (to_x, to_y), else 0
    to_x: Tensor
    to_y: Tensor
    target: Tensor  # int64; index of the unit it has the order to attack or heal; -1: none

    @property
    def alive(self) -> Tensor:
        """Whether units are alive, that is, have hit points; bool [U, B]."""
        return self.health > 0


class Roster(NamedTuple):
    """Constant properties of units in an episode; floats [U, B], or [U, 1] with fixed teams.

    Attributes: see `UnitType`, with times in game loops; in addition:
        kind: int64, index of the unit's type in the scenario's types.
        ground, air, cliff: 1 for the unit's plane, else 0.
        light, armored, biological: 1 if the unit has the attribute, else 0.
        bonus_light, bonus_armored: bonus damage per hit.
        line, burst: 1 for the unit's kind of splash, else 0.
        shoot_range: at least 2, as in SMACv2.
    """

    kind: Tensor
    max_health: Tensor
    max_shield: Tensor
    armour: Tensor
    speed: Tensor
    radius: Tensor
    separation: Tensor
    range: Tensor
    period: Tensor
    damage: Tensor
    hits: Tensor
    bonus_light: Tensor
    bonus_armored: Tensor
    hits_air: Tensor
    heals: Tensor
    line: Tensor
    burst: Tensor
    light: Tensor
    armored: Tensor
    biological: Tensor
    ground: Tensor
    air: Tensor
    cliff: Tensor
    regeneration: Tensor
    sight: Tensor
    shoot_range: Tensor
    max_cooldown: Tensor


class Pairs(NamedTuple):
    """Constant relations of a unit i to a unit j in an episode; [U, U, B] or [U, U, 1]."""

    room: Tensor  # distance of centres below which they push each other; 0: they never do
    per_hit: Tensor  # damage of a hit of i on j before armour; 0 if i cannot attack j
    can_heal: Tensor  # 1 if i can heal j, else 0


@dataclass(frozen=True)
class Traits:
    """Sizes of a scenario, and the features that at least one of its unit types has."""

    n_agents: int
    n_units: int  # U
    shields: bool
    heals: bool
    regenerates: bool
    line: bool
    burst: bool
    max_hits: int  # maximum number of hits per attack

    @classmethod
    def of(cls, scenario: Scenario, rules: str) -> Traits:
        """Return the traits of a scenario under a rule set."""
        types = scenario.unit_types(rules)
        return cls(
            n_agents=scenario.n_agents,
            n_units=scenario.n_units,
            shields=any(unit.shield > 0 for unit in types),
            heals=any(unit.heals for unit in types),
            regenerates=any(unit.regenerates > 0 for unit in types),
            line=any(unit.splash == "line" for unit in types),
            burst=any(unit.splash == "burst" for unit in types),
            max_hits=max(unit.hits for unit in types),
        )


def stat_table(types: tuple[UnitType, ...], parity: bool) -> Tensor:
    """Return the fields of `Roster` except `kind`, float64 [fields, types].

    Args:
        types: the scenario's unit types.
        parity: use SMACv2's table of cooldowns with its error.
    """
    return torch.tensor([_stats(unit, parity) for unit in types], dtype=torch.float64).T


def _stats(unit: UnitType, parity: bool) -> list[float]:
    derived = {
        "max_health": unit.health,
        "max_shield": unit.shield,
        "separation": unit.room,
        "bonus_light": unit.bonus.get("light", 0),
        "bonus_armored": unit.bonus.get("armored", 0),
        "shoot_range": max(unit.shoot_range, MIN_SHOOT_RANGE),
        **{splash: unit.splash == splash for splash in ("line", "burst")},
        **{name: name in unit.attributes for name in ("light", "armored", "biological")},
        **{plane: unit.plane == plane for plane in ("ground", "air", "cliff")},
    }
    if parity and unit.name in SWAPPED_MAX_COOLDOWNS:
        derived["max_cooldown"] = SWAPPED_MAX_COOLDOWNS[unit.name]
    stats = Roster._fields[1:]
    return [derived[name] if name in derived else getattr(unit, name) for name in stats]


def make_roster(kind: Tensor, table: Tensor) -> Roster:
    """Return the roster of units with these types.

    Args:
        kind: int64 [U, B] or [U, 1].
        table: [fields, types], from `stat_table`.
    """
    stats = torch.zeros(1, dtype=table.dtype, device=kind.device)
    for number, of_type in enumerate(table.unbind(1)):
        stats = torch.where(kind == number, of_type[:, None, None], stats)
    return Roster(kind, *stats.unbind(0))


def make_pairs(roster: Roster, n_agents: int) -> Pairs:
    """Return the relations between the units of a roster."""
    n_units, device = roster.kind.shape[0], roster.kind.device
    side = torch.arange(n_units, device=device) < n_agents
    foes = (side[:, None] ^ side[None, :]).unsqueeze(-1)
    others = ~torch.eye(n_units, dtype=torch.bool, device=device).unsqueeze(-1)

    def i(stat: Tensor) -> Tensor:
        return stat.unsqueeze(1)

    def j(stat: Tensor) -> Tensor:
        return stat.unsqueeze(0)

    together = sum(i(plane) * j(plane) for plane in (roster.ground, roster.air, roster.cliff))
    room = (i(roster.separation) + j(roster.separation)) * together * others
    bonus = i(roster.bonus_light) * j(roster.light) + i(roster.bonus_armored) * j(roster.armored)
    armed = (i(roster.damage) > 0) & ((i(roster.hits_air) > 0) | (j(roster.air) == 0)) & foes
    per_hit = torch.where(armed, i(roster.damage) + bonus, 0.0)
    can_heal = i(roster.heals) * j(roster.biological) * (~foes & others)
    return Pairs(room, per_hit, can_heal)
