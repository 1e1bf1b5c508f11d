"""One game loop of all battles.

Each game loop does the following, in this order:

1. Clocks: cooldowns run down; hit points, shields and energy regenerate.
2. Without moving, units fire if their target is in range and their weapon is ready; healers heal
   their target. A weapon is ready again after its period plus a random delay.
3. Units out of range of their target walk towards it until it is in range. Units with a move order
   walk. Nobody leaves the map.
4. Overlapping units of one plane push each other apart, each by half the overlap. Units at the same
   point move north and south, in the order of their indices.
5. Healing, then hits. Shields absorb hits first and have no armour. Armour reduces the rest of a
   hit, but to no less than half a point. Hits on one unit land in the order of the attackers'
   indices.
6. Units without hit points are dead. A baneling that was killed bursts in the next loop.

All units act simultaneously: two units that kill each other both die. Positions are multiples of
1/4096 map unit, as in StarCraft II. Sums of pushes are therefore exact, and do not depend on their
order or the batch size.

Not modelled: wind-up of attacks, flight of missiles (hits land at once), acceleration, turning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.scenarios import MAP_SIZE
from heteromark.environment.skirmish.state import Pairs, Roster, Traits, Units
from heteromark.environment.skirmish.units import (
    BURST_RADIUS,
    ENERGY_PER_HP,
    ENERGY_REGENERATION,
    HEALING,
    LINE_HALF_LENGTH,
    LINE_RADIUS,
    MAX_ENERGY,
    MIN_DAMAGE,
    SHIELD_DELAY,
    SHIELD_REGENERATION,
)

GRID = 4096.0  # positions per map unit
_AWAY = 4096.0  # position of dead units: out of everybody's range
_NUDGE = 2.0**-18  # offset north from one unit of a team to the next, which breaks ties
INSIDE = 4 / GRID  # units walk this far into range, so that rounding never leaves them outside
_TINY = 1e-18


class Aim(NamedTuple):
    """The parts of orders that stay constant during a step's game loops; [U, B]."""

    at: Tensor  # [U, U, B], 1 if i has the order to attack or heal j
    harm: Tensor  # [U, U, B], damage to j by an attack of i, without shields; 0 without the order
    reach: Tensor  # maximum distance between centres at which i can attack or heal its target
    attacks: Tensor  # 1 if it attacks its target, else 0
    heals: Tensor  # 1 if it heals its target, else 0
    delay: Tensor  # random delay of the next attack, in game loops


def take_aim(units: Units, roster: Roster, pairs: Pairs, delay: Tensor) -> Aim:
    """Compute the constants of the coming game loops from the units' orders."""
    which = torch.arange(units.x.shape[0], device=units.x.device)[:, None]
    at = (units.target.unsqueeze(1) == which).to(units.x.dtype)
    reach = roster.range + roster.radius + _of_target(at, roster.radius)
    attacks = (at * (pairs.per_hit > 0)).sum(1)
    heals = (at * pairs.can_heal).sum(1)
    harm = at * (pairs.per_hit - roster.armour).clamp(min=MIN_DAMAGE) * roster.hits.unsqueeze(1)
    return Aim(at, harm, reach, attacks, heals, delay)


def game_loop(units: Units, aim: Aim, roster: Roster, pairs: Pairs, traits: Traits) -> Units:
    """Return the units one game loop later; their orders stay."""
    alive = units.alive
    living = alive.to(units.x.dtype)

    # 1. clocks
    cooldown = (units.cooldown - 1).clamp(min=0)
    health, shield, energy, calm = units.health, units.shield, units.energy, units.calm
    if traits.regenerates:
        health = torch.minimum(health + roster.regeneration * living, roster.max_health)
    if traits.shields:
        calm = calm + 1
        regained = SHIELD_REGENERATION * living * (calm >= SHIELD_DELAY)
        shield = torch.minimum(shield + regained, roster.max_shield)
    if traits.heals:
        energy = (energy + ENERGY_REGENERATION * living * roster.heals).clamp(max=MAX_ENERGY)

    # 2. fire and heal
    target_x = _of_target(aim.at, torch.where(alive, units.x, _AWAY))
    target_y = _of_target(aim.at, units.y)
    dx, dy = target_x - units.x, target_y - units.y
    distance = torch.sqrt(dx * dx + dy * dy)
    engaged = living * (aim.attacks + aim.heals) * (target_x < _AWAY)
    in_range = engaged * (distance <= aim.reach)
    fires = in_range * aim.attacks * (cooldown == 0)
    cooldown = torch.where(fires > 0, roster.period + aim.delay, cooldown)
    if traits.heals:
        missing = _of_target(aim.at, roster.max_health - health)
        amount = torch.minimum(missing, energy / ENERGY_PER_HP).clamp(max=HEALING)
        amount = on_grid(amount) * in_range * aim.heals
        energy = (energy - ENERGY_PER_HP * amount).clamp(min=0)
        healed = (aim.at * amount.unsqueeze(1)).sum(0)

    # 3. walk
    to_x, to_y = units.to_x - units.x, units.to_y - units.y
    to_go = torch.sqrt(to_x * to_x + to_y * to_y)
    chases = engaged > in_range
    walks = (units.walking > 0) & alive
    far = torch.where(chases, distance, to_go)
    ahead = distance - (aim.reach - INSIDE)
    step = torch.minimum(torch.where(chases, ahead, to_go), roster.speed)
    share = step * (chases | walks) / far.clamp(min=_NUDGE)
    x = on_map(units.x + on_grid(share * torch.where(chases, dx, to_x)))
    y = on_map(units.y + on_grid(share * torch.where(chases, dy, to_y)))

    # 4. push
    x, y = _pushed_apart(x, y, alive, pairs.room, traits.n_agents)

    # 5. healing and hits
    if traits.heals:
        health = torch.minimum(health + healed, roster.max_health)
    bursting = units.bursting
    if traits.shields or traits.line or traits.burst:
        strikes = aim.at * fires.unsqueeze(1)
        may_strike = (pairs.per_hit > 0) & alive
        if traits.line:
            across = _line(units, target_x, target_y, dx, dy, distance, roster) & may_strike
            is_line = roster.line.unsqueeze(1) > 0
            strikes = torch.where(is_line, across * fires.unsqueeze(1), strikes)
        if traits.burst:
            bursts = torch.maximum(bursting, fires * roster.burst)
            around = _around(units, roster) & may_strike
            is_burst = roster.burst.unsqueeze(1) > 0
            strikes = torch.where(is_burst, around * bursts.unsqueeze(1), strikes)
        to_shield, to_health = _landed(strikes, shield, roster, pairs, traits)
        calm = calm * (to_shield + to_health == 0)
        shield = (shield - to_shield).clamp(min=0)
    else:
        to_health = (aim.harm * fires.unsqueeze(1)).sum(0)
    health = (health - to_health).clamp(min=0)
    if traits.burst:
        health = health * (1 - bursts * living)
        bursting = roster.burst * living * (health <= 0) * (1 - bursts)

    # 6. deaths
    shield = shield * (health > 0)
    return units._replace(
        x=x,
        y=y,
        health=health,
        shield=shield,
        energy=energy,
        cooldown=cooldown,
        calm=calm,
        bursting=bursting,
    )


def _of_target(at: Tensor, values: Tensor) -> Tensor:
    """Return each unit's target's value, [U, B]; 0 without a target."""
    return (at * values).sum(1)


def on_grid(values: Tensor) -> Tensor:
    """Round to the grid of positions."""
    return torch.round(values * GRID) * (1 / GRID)


def on_map(values: Tensor) -> Tensor:
    """Clamp coordinates to the map."""
    return values.clamp(0, MAP_SIZE)


def _pushed_apart(
    x: Tensor, y: Tensor, alive: Tensor, room: Tensor, n_agents: int
) -> tuple[Tensor, Tensor]:
    """Return positions after overlapping living units pushed each other apart."""
    number = torch.arange(x.shape[0], dtype=x.dtype, device=x.device)
    rank = torch.where(number < n_agents, number, number - n_agents).unsqueeze(1)
    # dead units are placed far from everything and from each other, so they overlap nothing
    at_x = torch.where(alive, x, _AWAY * (number + 1).unsqueeze(1))
    at_y = y + _NUDGE * rank
    dx, dy = at_x.unsqueeze(1) - at_x, at_y.unsqueeze(1) - at_y
    near = torch.rsqrt((dx * dx + dy * dy).clamp(min=_TINY))
    # half the overlap divided by the distance, in steps of the grid
    share = (GRID / 2 * (room * near - 1)).clamp(min=0)
    push_x, push_y = torch.round(share * dx).sum(1), torch.round(share * dy).sum(1)
    return on_map(x + push_x * (1 / GRID)), on_map(y + push_y * (1 / GRID))


def _line(
    units: Units,
    target_x: Tensor,
    target_y: Tensor,
    dx: Tensor,
    dy: Tensor,
    distance: Tensor,
    roster: Roster,
) -> Tensor:
    """Return whether j touches the line across i's shot, centred on i's target; bool [U, U, B]."""
    share = 1 / distance.clamp(min=_NUDGE)
    away_x, away_y = units.x - target_x.unsqueeze(1), units.y - target_y.unsqueeze(1)
    along_x, along_y = (dx * share).unsqueeze(1), (dy * share).unsqueeze(1)
    depth = away_x * along_x + away_y * along_y
    aside = ((away_y * along_x - away_x * along_y).abs() - LINE_HALF_LENGTH).clamp(min=0)
    near = LINE_RADIUS + roster.radius
    return depth * depth + aside * aside <= near * near


def _around(units: Units, roster: Roster) -> Tensor:
    """Return whether j's edge is within a burst of i; bool [U, U, B]."""
    dx, dy = units.x - units.x.unsqueeze(1), units.y - units.y.unsqueeze(1)
    near = BURST_RADIUS + roster.radius
    return dx * dx + dy * dy <= near * near


def _landed(
    strikes: Tensor, shield: Tensor, roster: Roster, pairs: Pairs, traits: Traits
) -> tuple[Tensor, Tensor]:
    """Return a game loop's total damage to shields and to hit points, each [U, B]."""
    hit = strikes * pairs.per_hit
    hits = roster.hits.unsqueeze(1)
    if not traits.shields:
        landing = (hit - roster.armour).clamp(min=MIN_DAMAGE) * hits * (hit > 0)
        return torch.zeros_like(shield), landing.sum(0)
    whole = hit * hits
    # damage by attackers before i, as a matrix product because cumsum is slow on a strided axis
    n = traits.n_units
    earlier = torch.ones(n, n, dtype=hit.dtype, device=hit.device).tril(-1)
    before = (earlier @ whole.flatten(1)).view_as(whole)
    to_health = torch.zeros_like(shield)
    for number in range(traits.max_hits):
        absorbed = torch.minimum((shield - before - number * hit).clamp(min=0), hit)
        left = hit - absorbed
        landing = (left - roster.armour).clamp(min=MIN_DAMAGE) * ((left > 0) & (hits > number))
        to_health = to_health + landing.sum(0)
    return torch.minimum(shield, whole.sum(0)), to_health
