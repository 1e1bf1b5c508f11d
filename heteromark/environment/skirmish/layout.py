"""Observations, states and action masks in SMACv2's layout; the batch dimension comes last.

Actions: 0 no-op (dead units only), 1 stop, 2 north (+y), 3 south, 4 east (+x), 5 west; then, if
sight is a cone, 12 directions to face; then one per target: an enemy, or an ally for healers.

Everything here concerns one side: its "own" units come first. For the other side, mirror the battle
with `mirrored`.

`parity` reproduces SMACv2's bugs:

- attacks and heals without effect are legal (attacks on air units by weapons that cannot hit them,
  heals of units that are not biological);
- a move is legal if the cell `int(position)` one map unit ahead is on the map, so close to the edge
  moves are illegal in the east and north but legal in the west and south;
- a healer observes its possible heals in the place of attackable enemies;
- cones are compared by the arctangents of slopes;
- an enemy that nobody has spotted hides all enemies before it in an observation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.randomness import uniform
from heteromark.environment.skirmish.scenarios import MAP_SIZE, Scenario
from heteromark.environment.skirmish.state import Pairs, Roster, Traits, Units
from heteromark.environment.skirmish.units import MAX_ENERGY

STOP = 1
MOVES = ((2, 0.0, 1.0), (3, 0.0, -1.0), (4, 1.0, 0.0), (5, -1.0, 0.0))
FIRST_TURN = 6
FOV_DIRECTIONS = 12
MOVE_AMOUNT = 2.0  # distance of a move order, in map units; no unit gets there in 8 game loops
_CONE = math.radians(360 / FOV_DIRECTIONS / 2)
_EDGE = 1e-5  # map units; tolerance that includes the edges of cones, where some groups start
_EPS = 1e-7


class Notes(NamedTuple):
    """History of an episode that observations depend on; A agents, E enemies."""

    facing: Tensor  # int64 [A, B], index of the direction a unit faces
    last_action: Tensor  # int64 [A, B]
    spotter: Tensor  # int64 [E, B], the agent that saw this enemy first; -1: nobody
    may_see: Tensor  # [A, E, B], 1 if the agent may see the enemy, else 0


class Options(NamedTuple):
    """Legal actions of one side's units."""

    offer: Tensor  # [A, actions, B], 1 for legal actions, else 0
    carried_out: Tensor  # [A, targets, B], 1 for attacks and heals that take effect, else 0

    @property
    def offered(self) -> Tensor:
        """Legal actions, bool [A, actions, B]."""
        return self.offer > 0


class Side(NamedTuple):
    """One side's view of all units, its own A first; [A, U, B] unless stated otherwise.

    Conditions are floats, 1 or 0, as in `Units`.
    """

    dx: Tensor  # from each own unit to each unit
    dy: Tensor
    distance: Tensor
    sees: Tensor  # within sight (and cone) of a living own unit
    attackable: Tensor  # [A, E, B], enemies that each own unit can attack now
    options: Options  # legal actions


class Layout:
    """Sizes and contents of observations, states and actions of one side.

    Args:
        scenario: the teams; the own side has `n_agents` units.
        config: the settings.
        device: device of its tensors.

    Attributes:
        n_actions, observation_size, state_size: sizes.
        first_target: index of the first action on a target.
        enemies_may_be_hidden: which agents see an enemy depends on who spotted it first.
    """

    def __init__(
        self, scenario: Scenario, config: SkirmishConfig, device: torch.device | str
    ) -> None:
        self.scenario, self.config = scenario, config
        self.traits = traits = Traits.of(scenario, config.rules)
        self.n_agents, self.n_enemies = scenario.n_agents, scenario.n_enemies
        self.first_target = FIRST_TURN + (FOV_DIRECTIONS if config.conic_fov else 0)
        self.n_targets = self.n_enemies
        if traits.heals:
            self.n_targets = max(self.n_agents, self.n_enemies)
        self.n_actions = self.first_target + self.n_targets
        self.enemies_may_be_hidden = config.prob_obs_enemy < 1 or config.parity
        bits = scenario.type_bits
        health = 2 if traits.shields else 1
        cone = 2 if config.conic_fov else 0
        own = health + 2 * config.obs_own_pos + cone + bits
        self.observation_size = 4 + (self.n_enemies + self.n_agents - 1) * (4 + health + bits) + own
        self.state_size = (
            self.n_agents * (3 + health + cone + bits)
            + self.n_enemies * (2 + health + bits)
            + self.n_agents * self.n_actions
        )
        angles = [2 * math.pi * number / FOV_DIRECTIONS for number in range(FOV_DIRECTIONS)]
        directions = [list(map(math.cos, angles)), list(map(math.sin, angles))]
        self._directions = torch.tensor(directions, dtype=torch.float64, device=device)

    def look(self, units: Units, roster: Roster, pairs: Pairs, notes: Notes) -> Side:
        """Return distances, sight and legal actions."""
        own = slice(0, self.n_agents)
        dx, dy = units.x - units.x[own].unsqueeze(1), units.y - units.y[own].unsqueeze(1)
        distance = torch.sqrt(dx * dx + dy * dy)
        living = units.alive.to(units.x.dtype)
        alive = living[own].unsqueeze(1)
        sight, reach = roster.sight[own].unsqueeze(1), roster.shoot_range[own].unsqueeze(1)
        if self.config.conic_fov:
            cone = self._in_cone(dx, dy, distance, notes.facing)
            sees, in_range = alive * cone * (distance <= sight), cone * (distance <= reach)
        else:
            sees, in_range = alive * (distance < sight), distance <= reach
        acts = living * alive * self._has_effect(roster, pairs)
        acts_now = acts * in_range
        carried_out = self._targets(acts_now)
        legal = carried_out if self.config.action_mask else self._targets(acts)
        moves = torch.stack(self._moves(units.x[own], units.y[own]), 1) * alive
        parts = [1 - alive, alive, moves]
        if self.config.conic_fov:
            parts.append(alive.expand(-1, FOV_DIRECTIONS, -1))
        offer = torch.cat([*parts, legal], 1)
        if self.config.parity:
            attackable = carried_out[:, : self.n_enemies]
        else:
            attackable = acts_now[:, self.n_agents :]
        return Side(dx, dy, distance, sees, attackable, Options(offer, carried_out))

    def observe(
        self, units: Units, roster: Roster, bits: Tensor, side: Side, notes: Notes
    ) -> Tensor:
        """Return the observation of each own unit, [A, observation_size, B]; zeros for the dead.

        Args:
            bits: one-hot unit types, [U, type bits, B] or [U, type bits, 1].
        """
        own = slice(0, self.n_agents)
        planes = [side.distance, side.dx, side.dy]
        sight = roster.sight[own].unsqueeze(1)
        shares = [share.expand_as(side.dx) for share in self._health(units, roster)]
        # [A, U, 3 + health, B]
        features = torch.stack([*(plane / sight for plane in planes), *shares], 2)
        types = bits.expand(-1, -1, side.dx.shape[-1]).unsqueeze(0)
        features = torch.cat([features, types.expand(self.n_agents, -1, -1, -1)], 2)
        living = units.alive.to(features.dtype)
        visible = side.sees * living
        enemies, seen = features[:, self.n_agents :], visible[:, self.n_agents :]
        if self.enemies_may_be_hidden:
            seen = seen * notes.may_see
        enemies = torch.cat([side.attackable.unsqueeze(2), enemies], 2) * seen.unsqueeze(2)
        if self.config.parity:
            # an enemy is kept only if all enemies after it may be seen, too
            kept = notes.may_see.flip(1).cumprod(1).flip(1)
            enemies = enemies * kept.unsqueeze(2)
        mates, present = self._others(features), self._others(visible)
        there = torch.ones_like(mates[:, :, :1])
        mates = torch.cat([there, mates], 2) * present.unsqueeze(2)
        moves = side.options.offer[:, 2:6]
        itself = self._itself(units, roster, bits, notes) * living[own].unsqueeze(1)
        return torch.cat([moves, enemies.flatten(1, 2), mates.flatten(1, 2), itself], 1)

    def state(self, units: Units, roster: Roster, bits: Tensor, notes: Notes) -> Tensor:
        """Return the state of the whole battle, [state_size, B]; zeros for the dead."""
        own = slice(0, self.n_agents)
        dtype = units.x.dtype
        health, *shield = self._health(units, roster)
        place = [(where - MAP_SIZE / 2) / MAP_SIZE for where in (units.x, units.y)]
        bits = bits.expand(-1, -1, units.x.shape[-1])
        ready = units.cooldown / roster.max_cooldown
        if self.traits.heals:
            ready = torch.where(roster.heals > 0, units.energy / MAX_ENERGY, ready)
        ours = [part[own] for part in (health, ready, *place, *shield)]
        if self.config.conic_fov:
            ours += self._facing(notes.facing, dtype)
        theirs = [part[self.n_agents :] for part in (health, *place, *shield)]
        living = units.alive.to(dtype).unsqueeze(1)
        agents = torch.cat([torch.stack(ours, 1), bits[own]], 1) * living[own]
        enemies = torch.cat([torch.stack(theirs, 1), bits[self.n_agents :]], 1)
        enemies = enemies * living[self.n_agents :]
        number = torch.arange(self.n_actions, device=units.x.device)[:, None]
        actions = (notes.last_action.unsqueeze(1) == number).to(dtype)
        return torch.cat([part.flatten(0, 1) for part in (agents, enemies, actions)], 0)

    def fresh_notes(self, shape: Tensor) -> Notes:
        """Return the notes at the start of an episode.

        Last actions are -1: SMACv2 then encodes no last action.

        Args:
            shape: any tensor [U, B], for its batch size, dtype and device.
        """
        batch, device = shape.shape[-1], shape.device

        def filled(value: float, *rows: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.full((*rows, batch), value, dtype=dtype, device=device)

        n, m = self.n_agents, self.n_enemies
        may_see = filled(float(not self.enemies_may_be_hidden), n, m, dtype=shape.dtype)
        return Notes(filled(0, n), filled(-1, n), filled(-1, m), may_see)

    def watch(
        self,
        units: Units,
        roster: Roster,
        pairs: Pairs,
        notes: Notes,
        *,
        key: Tensor,
        steps: Tensor,
        purpose: int,
    ) -> tuple[Side, Notes]:
        """Look, and note who spots an enemy first.

        Args:
            key, steps: int64 [B]; together with `purpose`, they determine the random numbers.
            purpose: this side's random numbers use this purpose and the next one.
        """
        side = self.look(units, roster, pairs, notes)
        if not self.enemies_may_be_hidden:
            return side, notes
        agent = torch.arange(self.n_agents, device=key.device)
        enemy = torch.arange(self.n_enemies, device=key.device)[:, None]
        chance = uniform(key, purpose, steps, agent[:, None, None], enemy)
        order = uniform(key, purpose + 1, steps, agent[:, None])
        return side, self.spot(units, side, notes, chance, order)

    def spot(self, units: Units, side: Side, notes: Notes, chance: Tensor, order: Tensor) -> Notes:
        """Update the notes with newly spotted enemies and the agents that may see them.

        Args:
            chance: [A, E, B], from 0 to 1; a teammate of the spotter may see the enemy where
                `chance` is below `prob_obs_enemy`.
            order: [A, B], random priorities between agents that see an enemy at the same time.
        """
        numbers = torch.arange(self.n_agents, device=order.device)
        alive, foes = units.alive[: self.n_agents], units.alive[self.n_agents :]
        sees = side.sees[:, self.n_agents :] > 0
        if not self.config.parity:
            sees = sees & foes
        dead = (notes.spotter.unsqueeze(0) == numbers[:, None, None]) & ~alive.unsqueeze(1)
        lost = dead.any(0) | ~foes
        spotter = torch.where(lost, -1, notes.spotter)
        may_see = (notes.may_see > 0) & ~lost
        turn = torch.where(sees, order.unsqueeze(1), math.inf)
        first = turn.argmin(0)
        new = sees.any(0) & (spotter < 0)
        spotter = torch.where(new, first, spotter)
        is_first = first.unsqueeze(0) == numbers[:, None, None]
        allowed = is_first | (chance < self.config.prob_obs_enemy)
        may_see = (may_see | (allowed & new)).to(notes.may_see.dtype)
        return notes._replace(spotter=spotter, may_see=may_see)

    # --- parts ---------------------------------------------------------------------------------

    def _moves(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return whether each of the four moves stays on the map."""
        ahead = MOVE_AMOUNT / 2
        found = []
        for _, east, north in MOVES:
            at_x, at_y = x + east * ahead, y + north * ahead
            if self.config.parity:
                cells = at_x.trunc(), at_y.trunc()
                on_map = [(cell >= 0) & (cell < MAP_SIZE) for cell in cells]
            else:
                on_map = [(at >= 0) & (at <= MAP_SIZE) for at in (at_x, at_y)]
            found.append(on_map[0] & on_map[1])
        return found

    def _has_effect(self, roster: Roster, pairs: Pairs) -> Tensor:
        """Return the units each own unit can attack or heal, 1 or 0; [A, U, B] or [A, U, 1]."""
        own = slice(0, self.n_agents)
        if not self.config.parity:
            return (pairs.per_hit[own] + pairs.can_heal[own]).clamp(max=1)
        healer = roster.heals > 0
        heals = healer[own].unsqueeze(1)
        foe = torch.arange(healer.shape[0], device=healer.device)[:, None] >= self.n_agents
        acts = (heals & ~foe & ~healer) | (~heals & foe)
        return acts.to(pairs.per_hit.dtype)

    def _targets(self, possible: Tensor) -> Tensor:
        """Map units [A, U, B] to targets [A, targets, B]: enemies, or allies for healers."""
        foes = possible[:, self.n_agents :]
        if not self.traits.heals:
            return foes
        mates = possible[:, : self.n_agents]
        return _padded(foes, self.n_targets) + _padded(mates, self.n_targets)

    def _in_cone(self, dx: Tensor, dy: Tensor, distance: Tensor, facing: Tensor) -> Tensor:
        ahead_x, ahead_y = (part.unsqueeze(1) for part in self._facing(facing, dx.dtype))
        if not self.config.parity:
            return dx * ahead_x + dy * ahead_y >= math.cos(_CONE) * distance - _EDGE
        right = dx > 0
        slope = dy / torch.where(right, dx.clamp(min=_EPS), dx.clamp(max=-_EPS))
        ahead_x = torch.where(right, ahead_x.clamp(min=_EPS), ahead_x.clamp(max=-_EPS))
        return (torch.atan(slope) - torch.atan(ahead_y / ahead_x)).abs() < _CONE

    def _facing(self, facing: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Return the x and y of the directions that units face, each [A, B]."""
        return [part[facing] for part in self._directions.to(dtype)]

    def _health(self, units: Units, roster: Roster) -> list[Tensor]:
        """Return hit points and any shields as fractions of their maximum, each [U, B]."""
        shares = [units.health / roster.max_health]
        if self.traits.shields:
            shares.append(units.shield / roster.max_shield.clamp(min=1))
        return shares

    def _itself(self, units: Units, roster: Roster, bits: Tensor, notes: Notes) -> Tensor:
        """Return each own unit's features of itself, [A, features, B]."""
        own = slice(0, self.n_agents)
        parts = [share[own] for share in self._health(units, roster)]
        if self.config.obs_own_pos:
            parts += [units.x[own] / MAP_SIZE, units.y[own] / MAP_SIZE]
        if self.config.conic_fov:
            parts += self._facing(notes.facing, units.x.dtype)
        return torch.cat([torch.stack(parts, 1), bits[own].expand(-1, -1, units.x.shape[-1])], 1)

    def _others(self, of_own: Tensor) -> Tensor:
        """Select each own unit's teammates in order: [A, U, …] to [A, A - 1, …]."""
        number = self.n_agents
        if number == 1:
            return of_own[:, :0]
        # in a square without (0, 0), every (A + 1)th entry is on the diagonal
        square = of_own[:, :number].flatten(0, 1)[1:].unflatten(0, (number - 1, number + 1))
        return square[:, :number].flatten(0, 1).unflatten(0, (number, number - 1))


def _padded(rows: Tensor, size: int) -> Tensor:
    """Pad [A, n, B] with zeros to [A, size, B]."""
    missing = size - rows.shape[1]
    if not missing:
        return rows
    filling = rows.new_zeros(rows.shape[0], missing, rows.shape[2])
    return torch.cat([rows, filling], 1)
