"""Who commands the other side, by a script.

A commander looks at a battle as if its units were the agents' (see `mirrored`), and gives them
orders once per step. Healers do alike under all of them but `random`: they heal the nearest damaged
ally, or keep to the nearest one.
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

_ARRIVED = 2.0  # map units from the objective
_RANGED = 1.0  # weapons of a longer range keep their distance
_RETREAT = 2.0  # how far at a time
_COOLING = 4.0  # game loops of cooldown that are worth a retreat


class Situation(NamedTuple):
    """What a commander knows; its n units come first, then their m foes."""

    units: Units  # of the battle, mirrored
    roster: Roster  # mirrored
    pairs: Pairs  # of the battle, not mirrored; see `mirrored_pairs`
    objective: Tensor  # [2, B], the middle of where its foes started
    luck: Tensor  # [n, B], random numbers from 0 to 1, new at each step


Commander = Callable[[Situation, Layout], Orders]


def nearest(situation: Situation, layout: Layout) -> Orders:
    """Idle units attack the nearest foe, and stay with it until it is dead.

    Source: the trigger of SMACv2's map, which orders so every half second, that is once per step.
    """
    now = standing_orders(situation.units, layout.n_agents)
    distance = _to_foes(situation, layout)
    target = torch.where(now.target >= 0, now.target, _number_of_lowest(distance, layout.n_agents))
    return _attack(target, now, situation, layout)


def focus_fire(situation: Situation, layout: Layout) -> Orders:
    """Units attack the weakest foe that their weapon reaches, or else the nearest."""
    n, roster = layout.n_agents, situation.roster
    now = standing_orders(situation.units, n)
    distance = _to_foes(situation, layout)
    strength = (situation.units.health + situation.units.shield)[n:]
    in_range = distance <= (roster.range + roster.radius)[:n].unsqueeze(1) + roster.radius[n:]
    weakest = _number_of_lowest(torch.where(in_range, strength, math.inf), n)
    target = torch.where(weakest >= 0, weakest, _number_of_lowest(distance, n))
    return _attack(target, now, situation, layout)


def attack_move(situation: Situation, layout: Layout) -> Orders:
    """Units walk to where their foes started and attack what comes in sight on the way.

    They stay with a target while it lives and is in sight. Those that arrived look for the nearest.
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
    target = torch.where(stays, now.target, _number_of_lowest(seen, n))
    walks = now._replace(walking=(target < 0).to(to_x.dtype), to_x=to_x, to_y=to_y)
    return _attack(target, walks, situation, layout)


def kite(situation: Situation, layout: Layout) -> Orders:
    """Units with a range step back while their weapon cools down, if a foe is too close."""
    n, units, roster = layout.n_agents, situation.units, situation.roster
    now = standing_orders(units, n)
    distance = _to_foes(situation, layout)
    target = _number_of_lowest(distance, n)
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
    """Each unit takes an action that is offered, all of them equally likely."""
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
    """One of the offered actions of each unit, int64 [A, B].

    Args:
        offered: bool [A, actions, B].
        luck: [A, B], from 0 to 1, chooses among them.
    """
    so_far = offered.to(torch.int64).cumsum(1)
    wanted = (luck * so_far[:, -1]).to(torch.int64).unsqueeze(1)
    return (so_far <= wanted).sum(1)


def _to_foes(situation: Situation, layout: Layout) -> Tensor:
    """Distance from each own unit to each foe that it can attack, else infinity; [n, m, B]."""
    n, units = layout.n_agents, situation.units
    dx, dy = units.x[n:] - units.x[:n].unsqueeze(1), units.y[n:] - units.y[:n].unsqueeze(1)
    m = layout.n_enemies
    possible = (situation.pairs.per_hit[m:, :m] > 0) & units.alive[n:]
    return torch.where(possible, torch.sqrt(dx * dx + dy * dy), math.inf)


def _number_of_lowest(values: Tensor, first: int) -> Tensor:
    """Which of values [n, m, B] along m is lowest, counted from `first`; -1 where none is finite.

    The first of several. (What torch.argmin takes then is not laid down.)
    """
    lowest = torch.full_like(values[:, 0], math.inf)
    number = torch.full(lowest.shape, -1, dtype=torch.int64, device=values.device)
    for k in range(values.shape[1]):
        lower = values[:, k] < lowest
        lowest = torch.where(lower, values[:, k], lowest)
        number = torch.where(lower, first + k, number)
    return number


def _attack(target: Tensor, otherwise: Orders, situation: Situation, layout: Layout) -> Orders:
    """Attack the targets; units without one follow the other orders, and healers heal."""
    orders = otherwise._replace(walking=otherwise.walking * (target < 0), target=target)
    if not layout.traits.heals:
        return orders
    n, units, roster = layout.n_agents, situation.units, situation.roster
    dx, dy = units.x[:n] - units.x[:n].unsqueeze(1), units.y[:n] - units.y[:n].unsqueeze(1)
    m = layout.n_enemies
    possible = (situation.pairs.can_heal[m:, m:] > 0) & units.alive[:n]
    distance = torch.where(possible, torch.sqrt(dx * dx + dy * dy), math.inf)
    damaged = (units.health < roster.max_health)[:n]
    patient = _number_of_lowest(torch.where(damaged, distance, math.inf), 0)
    patient = torch.where(patient >= 0, patient, _number_of_lowest(distance, 0))
    healer = roster.heals[:n] > 0
    return orders._replace(
        walking=orders.walking * ~healer, target=torch.where(healer, patient, orders.target)
    )
