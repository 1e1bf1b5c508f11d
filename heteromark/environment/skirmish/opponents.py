"""Scripts that command the other side.

A commander sees the battle as if its units were the agents' (see `mirrored`) and gives orders once
per step. Under all commanders except `random`, healers heal the nearest damaged ally, or follow the
nearest ally.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.layout import Layout
from heteromark.environment.skirmish.mechanics import on_grid, on_map
from heteromark.environment.skirmish.orders import (
    Orders,
    mirrored_pairs,
    orders_of,
    standing_orders,
)
from heteromark.environment.skirmish.state import Pairs, Roster, Units

_ARRIVED = 2.0  # maximum distance from the objective, in map units
_RANGED = 1.0  # units whose weapon has a longer range step back
_RETREAT = 2.0  # map units per retreat
_COOLING = 4.0  # minimum remaining cooldown for a retreat, in game loops


class Situation(NamedTuple):
    """Input of a commander; its n units come first, then their m foes."""

    units: Units  # of the battle, mirrored
    roster: Roster  # mirrored
    pairs: Pairs  # of the battle, not mirrored; see `mirrored_pairs`
    objective: Tensor  # [2, B], mean start position of its foes
    luck: Tensor  # [n, B], random numbers from 0 to 1, new at each step


Commander = Callable[[Situation, Layout], Orders]


def nearest(situation: Situation, layout: Layout) -> Orders:
    """Let idle units attack the nearest foe until it is dead.

    Source: the trigger in SMACv2's map, which runs every half second, that is, once per step.
    """
    now = standing_orders(situation.units, layout.n_agents)
    distance = _to_foes(situation, layout)
    target = torch.where(now.target >= 0, now.target, _index_of_lowest(distance, layout.n_agents))
    return _attack(target, now, situation, layout)


def focus_fire(situation: Situation, layout: Layout) -> Orders:
    """Let units attack the weakest foe in range, or else the nearest."""
    n, roster = layout.n_agents, situation.roster
    now = standing_orders(situation.units, n)
    distance = _to_foes(situation, layout)
    strength = (situation.units.health + situation.units.shield)[n:]
    in_range = distance <= (roster.range + roster.radius)[:n].unsqueeze(1) + roster.radius[n:]
    weakest = _index_of_lowest(torch.where(in_range, strength, math.inf), n)
    target = torch.where(weakest >= 0, weakest, _index_of_lowest(distance, n))
    return _attack(target, now, situation, layout)


def attack_move(situation: Situation, layout: Layout) -> Orders:
    """Let units walk to the foes' start position and attack foes in sight on the way.

    They keep a target while it lives and is in sight. After arriving, they attack the nearest foe.
    """
    n, units = layout.n_agents, situation.units
    now = standing_orders(units, n)
    distance = _to_foes(situation, layout)
    to_x, to_y = (part.expand_as(now.to_x) for part in situation.objective.unsqueeze(1))
    dx, dy = to_x - units.x[:n], to_y - units.y[:n]
    arrived = dx * dx + dy * dy <= _ARRIVED**2
    in_sight = distance < situation.roster.sight[:n].unsqueeze(1)
    foe = torch.arange(n, n + layout.n_enemies, device=distance.device)[:, None]
    stays = ((now.target.unsqueeze(1) == foe) & in_sight).any(1)
    seen = torch.where(in_sight | arrived.unsqueeze(1), distance, math.inf)
    target = torch.where(stays, now.target, _index_of_lowest(seen, n))
    walks = now._replace(walking=(target < 0).to(to_x.dtype), to_x=to_x, to_y=to_y)
    return _attack(target, walks, situation, layout)


def kite(situation: Situation, layout: Layout) -> Orders:
    """Let ranged units step back from a close foe while their weapon cools down."""
    n, units, roster = layout.n_agents, situation.units, situation.roster
    now = standing_orders(units, n)
    distance = _to_foes(situation, layout)
    target = _index_of_lowest(distance, n)
    foe = torch.arange(n, n + layout.n_enemies, device=distance.device)[:, None]
    at = target.unsqueeze(1) == foe

    def of_target(values: Tensor) -> Tensor:
        return (at * values[n:]).sum(1)

    dx, dy = units.x[:n] - of_target(units.x), units.y[:n] - of_target(units.y)
    gap = torch.sqrt(dx * dx + dy * dy)
    needed = roster.range[:n] + roster.radius[:n] + of_target(roster.radius)
    cools = (units.cooldown[:n] > _COOLING) & (roster.range[:n] > _RANGED)
    retreats = cools & (target >= 0) & (gap < needed)
    share = _RETREAT / gap.clamp(min=1e-6)
    back = now._replace(
        walking=retreats.to(dx.dtype),
        to_x=on_map(units.x[:n] + on_grid(dx * share)),
        to_y=on_map(units.y[:n] + on_grid(dy * share)),
    )
    return _attack(torch.where(retreats, -1, target), back, situation, layout)


def random(situation: Situation, layout: Layout) -> Orders:
    """Let each unit take a uniformly random legal action."""
    units, roster = situation.units, situation.roster
    notes = layout.fresh_notes(units.x)
    pairs = mirrored_pairs(situation.pairs, layout.n_enemies)
    side = layout.look(units, roster, pairs, notes)
    actions = pick_offered(side.options.offered, situation.luck)
    orders, _ = orders_of(actions, side.options, units, roster, layout, notes)
    return orders


COMMANDERS: dict[str, Commander] = {
    commander.__name__: commander for commander in (nearest, attack_move, focus_fire, kite, random)
}


def pick_offered(offered: Tensor, luck: Tensor) -> Tensor:
    """Return a legal action of each unit, int64 [A, B].

    Args:
        offered: legal actions, bool [A, actions, B].
        luck: random numbers from 0 to 1 that select the action, [A, B].
    """
    so_far = offered.to(torch.int64).cumsum(1)
    wanted = (luck * so_far[:, -1]).to(torch.int64).unsqueeze(1)
    return (so_far <= wanted).sum(1)


def _to_foes(situation: Situation, layout: Layout) -> Tensor:
    """Return the distance from own units to foes they can attack, else infinity; [n, m, B]."""
    n, units = layout.n_agents, situation.units
    dx, dy = units.x[n:] - units.x[:n].unsqueeze(1), units.y[n:] - units.y[:n].unsqueeze(1)
    m = layout.n_enemies
    possible = (situation.pairs.per_hit[m:, :m] > 0) & units.alive[n:]
    return torch.where(possible, torch.sqrt(dx * dx + dy * dy), math.inf)


def _index_of_lowest(values: Tensor, first: int) -> Tensor:
    """Return the index of the lowest value of [n, m, B] along m, counted from `first`.

    Returns -1 if no value is finite. Takes the first of equal values, which torch.argmin does not
    guarantee.
    """
    lowest = torch.full_like(values[:, 0], math.inf)
    number = torch.full(lowest.shape, -1, dtype=torch.int64, device=values.device)
    for k in range(values.shape[1]):
        lower = values[:, k] < lowest
        lowest = torch.where(lower, values[:, k], lowest)
        number = torch.where(lower, first + k, number)
    return number


def _attack(target: Tensor, otherwise: Orders, situation: Situation, layout: Layout) -> Orders:
    """Let units attack their targets, or follow `otherwise` without one; let healers heal."""
    orders = otherwise._replace(walking=otherwise.walking * (target < 0), target=target)
    if not layout.traits.heals:
        return orders
    n, units, roster = layout.n_agents, situation.units, situation.roster
    dx, dy = units.x[:n] - units.x[:n].unsqueeze(1), units.y[:n] - units.y[:n].unsqueeze(1)
    m = layout.n_enemies
    possible = (situation.pairs.can_heal[m:, m:] > 0) & units.alive[:n]
    distance = torch.where(possible, torch.sqrt(dx * dx + dy * dy), math.inf)
    damaged = (units.health < roster.max_health)[:n]
    patient = _index_of_lowest(torch.where(damaged, distance, math.inf), 0)
    patient = torch.where(patient >= 0, patient, _index_of_lowest(distance, 0))
    healer = roster.heals[:n] > 0
    return orders._replace(
        walking=orders.walking * ~healer, target=torch.where(healer, patient, orders.target)
    )
