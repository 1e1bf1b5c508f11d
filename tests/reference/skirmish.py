"""A slow, simple reference for one Skirmish battle: plain floats, loops over units, no tensors.

It implements the mechanics in SMACv2's and StarCraft II's terms, for comparison with the fast
simulator. Both share the table of units, which has its own test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.units import UnitType

MAP = 32.0
WORD = 2**32


def hashed(*words: int) -> int:
    """Hash words one after the other with lowbias32."""
    value = 0x9E3779B9
    for word in words:
        mixed = ((value ^ word) + 0x9E3779B9) % WORD
        mixed = (mixed ^ (mixed >> 16)) * 0x7FEB352D % WORD
        mixed = (mixed ^ (mixed >> 15)) * 0x846CA68B % WORD
        value = mixed ^ (mixed >> 16)
    return value


def uniform(*words: int) -> float:
    return (hashed(*words) >> 8) / 2**24


def on_grid(value: float) -> float:
    return round(value * 4096) / 4096


def on_map(value: float) -> float:
    return min(max(value, 0.0), MAP)


@dataclass
class Unit:
    """One unit; `order` is None, ("move", x, y) or ("target", unit)."""

    type: UnitType
    number: int
    side: int
    x: float
    y: float
    health: float = 0.0
    shield: float = 0.0
    energy: float = 0.0
    cooldown: float = 0.0
    calm: int = 160
    alive: bool = True
    bursting: bool = False
    order: tuple | None = None
    last_action: int | None = None
    facing: int = 0

    def __post_init__(self):
        self.health, self.shield = float(self.type.health), float(self.type.shield)
        self.energy = 50.0 if self.type.heals else 0.0

    def distance(self, other: Unit) -> float:
        dx, dy = other.x - self.x, other.y - self.y
        return math.sqrt(dx * dx + dy * dy)

    def affects(self, other: Unit) -> bool:
        if self.side == other.side:
            return other is not self and self.type.can_heal(other.type)
        return self.type.can_attack(other.type)

    @property
    def separation(self) -> float:
        return self.type.radius if self.type.separation is None else self.type.separation


@dataclass
class Battle:
    """A battle between allies (side 0) and enemies (side 1).

    Args:
        units: allies first.
        type_names: in the order of the observation's type bits.
        key: determines the random numbers.
        config: the settings.

    Attributes:
        spotter: by enemy, the living ally that saw it first.
        visible: pairs (ally, enemy) of allies that may see a spotted enemy.
    """

    units: list[Unit]
    type_names: tuple[str, ...]
    key: int
    episode_limit: int
    has_bits: bool
    config: SkirmishConfig
    has_shields: bool = False
    steps: int = 0
    spotter: dict[int, Unit | None] = field(default_factory=dict)
    visible: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self):
        self.watch()

    @property
    def allies(self) -> list[Unit]:
        return [unit for unit in self.units if unit.side == 0]

    @property
    def enemies(self) -> list[Unit]:
        return [unit for unit in self.units if unit.side == 1]

    @property
    def first_target(self) -> int:
        return 18 if self.config.conic_fov else 6

    @property
    def any_healer(self) -> bool:
        return any(name == "medivac" for name in self.type_names)

    # --- a step --------------------------------------------------------------------------------

    def step(self, actions: list[int]) -> tuple[float, bool, bool, bool]:
        """Step the battle; return reward, terminated, truncated, won."""
        before = [(unit.health + unit.shield, unit.alive) for unit in self.units]
        orders = [
            self.ally_order(unit, action) for unit, action in zip(self.allies, actions, strict=True)
        ]
        orders += [self.nearest(unit) for unit in self.enemies]
        for unit, order in zip(self.units, orders, strict=True):
            unit.order = order
        for loop in range(self.config.step_mul):
            self.game_loop(loop - loop % 8)
        self.steps += 1
        self.watch()
        return self.outcome(before)

    def ally_order(self, unit: Unit, action: int) -> tuple | None:
        unit.last_action = action if unit.alive else 0
        if not unit.alive or action in (0, 1):
            return None
        x, y = unit.x, unit.y
        if action <= 5:
            east, north = {2: (0, 1), 3: (0, -1), 4: (1, 0), 5: (-1, 0)}[action]
            return ("move", x + 2 * east, y + 2 * north)
        if action < self.first_target:
            unit.facing = action - 6
            return unit.order
        slot = action - self.first_target
        if not self.can_act_on(unit)[slot]:
            return unit.order
        team = self.allies if unit.type.heals else self.enemies
        return ("target", team[slot])

    def nearest(self, unit: Unit) -> tuple | None:
        """Return the order to attack the nearest foe, or to heal (or follow) the nearest ally."""
        if unit.type.heals:
            mates = [
                mate
                for mate in self.enemies
                if mate is not unit and mate.alive and unit.type.can_heal(mate.type)
            ]
            damaged = [mate for mate in mates if mate.health < mate.type.health]
            found = min(damaged or mates, key=unit.distance, default=None)
        else:
            if unit.order is not None and unit.order[0] == "target" and unit.order[1].alive:
                return unit.order
            foes = [foe for foe in self.allies if foe.alive and unit.type.can_attack(foe.type)]
            found = min(foes, key=unit.distance, default=None)
        return None if found is None else ("target", found)

    def game_loop(self, window: int) -> None:
        living = [unit for unit in self.units if unit.alive]
        for unit in living:  # 1. clocks
            unit.health = min(unit.health + unit.type.regeneration, unit.type.health)
            unit.calm += 1
            if unit.calm >= 160:
                unit.shield = min(unit.shield + 2 / 16, unit.type.shield)
            if unit.type.heals:
                unit.energy = min(unit.energy + 0.5625 / 16, 200.0)
        for unit in self.units:
            unit.cooldown = max(unit.cooldown - 1, 0.0)

        hits: list[tuple[Unit, Unit]] = []  # 2. fire and heal
        heals: list[tuple[Unit, float]] = []
        walks: list[tuple[Unit, float, float, float]] = []
        for unit in self.units:
            if unit.bursting:
                hits += self.burst(unit)
        consumed = []
        for unit in living:
            if unit.order is None:
                continue
            if unit.order[0] == "move":
                _, x, y = unit.order
                far = math.sqrt((x - unit.x) ** 2 + (y - unit.y) ** 2)
                walks.append((unit, x, y, min(far, unit.type.speed)))
                continue
            target = unit.order[1]
            if not target.alive or not unit.affects(target):
                continue
            distance = unit.distance(target)
            reach = unit.type.range + unit.type.radius + target.type.radius
            if distance > reach:
                walks.append(
                    (unit, target.x, target.y, min(distance - reach + 4 / 4096, unit.type.speed))
                )
            elif unit.side == target.side:
                missing = target.type.health - target.health
                amount = on_grid(min(missing, unit.energy / 0.33, 9 / 16))
                unit.energy = max(unit.energy - 0.33 * amount, 0.0)
                heals.append((target, amount))
            elif unit.cooldown == 0:
                delay = 3 * uniform(self.key, 100, self.steps, window, unit.number) - 1
                unit.cooldown = unit.type.period + delay
                if unit.type.splash == "burst":
                    hits += self.burst(unit)
                    consumed.append(unit)
                elif unit.type.splash == "line":
                    hits += self.line(unit, target)
                else:
                    hits.append((unit, target))

        moved = {}  # 3. walk
        for unit, x, y, length in walks:
            far = math.sqrt((x - unit.x) ** 2 + (y - unit.y) ** 2)
            share = length / far if far else 0.0
            moved[unit.number] = (
                on_map(unit.x + on_grid(share * (x - unit.x))),
                on_map(unit.y + on_grid(share * (y - unit.y))),
            )
        for unit in self.units:
            unit.x, unit.y = moved.get(unit.number, (unit.x, unit.y))

        pushed = {}  # 4. push
        n_agents = len(self.allies)
        for unit in living:
            push_x = push_y = 0.0
            for other in living:
                if other is unit or other.type.plane != unit.type.plane:
                    continue
                # units at the same point move north and south, in their order in the team
                ranks = [u.number - n_agents * u.side for u in (unit, other)]
                dx = unit.x - other.x
                dy = unit.y - other.y + (ranks[0] - ranks[1]) * 2**-18
                distance = math.sqrt(dx * dx + dy * dy)
                overlap = unit.separation + other.separation - distance
                if overlap > 0 and distance > 0:
                    push_x += on_grid(overlap / 2 / distance * dx)
                    push_y += on_grid(overlap / 2 / distance * dy)
            pushed[unit.number] = on_map(unit.x + push_x), on_map(unit.y + push_y)
        for unit in living:
            unit.x, unit.y = pushed[unit.number]

        for target, amount in heals:  # 5. healing and hits
            target.health = min(target.health + amount, target.type.health)
        for attacker, target in sorted(hits, key=lambda hit: hit[0].number):
            for _ in range(attacker.type.hits):
                self.hit(target, attacker.type.damage_to(target.type))
        for unit in consumed:
            unit.health = 0.0

        for unit in self.units:  # 6. deaths
            unit.bursting = False
            if unit.alive and unit.health <= 0:
                unit.alive = False
                unit.health = unit.shield = 0.0
                unit.bursting = unit.type.splash == "burst" and unit not in consumed
            elif not unit.alive:
                unit.health = unit.shield = 0.0

    def hit(self, target: Unit, damage: float) -> None:
        target.calm = 0
        absorbed = min(target.shield, damage)
        target.shield -= absorbed
        left = damage - absorbed
        if left > 0:
            target.health -= max(0.5, left - target.type.armour)

    def burst(self, unit: Unit) -> list[tuple[Unit, Unit]]:
        return [
            (unit, foe)
            for foe in self.units
            if foe.side != unit.side
            and foe.alive
            and unit.type.can_attack(foe.type)
            and unit.distance(foe) <= 2.2 + foe.type.radius
        ]

    def line(self, unit: Unit, target: Unit) -> list[tuple[Unit, Unit]]:
        """Return hits on all foes within 0.15 of a segment of length 2.5 across the shot."""
        far = unit.distance(target) or 1.0
        ahead = ((target.x - unit.x) / far, (target.y - unit.y) / far)
        struck = []
        for foe in self.units:
            if foe.side == unit.side or not foe.alive or not unit.type.can_attack(foe.type):
                continue
            away = (foe.x - target.x, foe.y - target.y)
            along = away[0] * -ahead[1] + away[1] * ahead[0]
            nearest = min(max(along, -1.25), 1.25)
            point = (target.x - nearest * ahead[1], target.y + nearest * ahead[0])
            if math.hypot(foe.x - point[0], foe.y - point[1]) <= 0.15 + foe.type.radius:
                struck.append((unit, foe))
        return struck

    def outcome(self, before: list[tuple[float, bool]]) -> tuple[float, bool, bool, bool]:
        suffered = [0.0, 0.0]
        for unit, (points, alive) in zip(self.units, before, strict=True):
            suffered[unit.side] += points - unit.health - unit.shield
            if alive and not unit.alive:
                suffered[unit.side] += 10
        fights = [
            any(unit.alive and not unit.type.heals for unit in team)
            for team in (self.allies, self.enemies)
        ]
        won, lost = fights[0] and not fights[1], fights[1] and not fights[0]
        if self.config.parity and self.any_healer:
            lost = not fights[0]
        scale = 20 / (200 + sum(10 + unit.type.health + unit.type.shield for unit in self.enemies))
        if self.config.reward_sparse:
            reward = float(won) - float(lost)
            scale = scale if self.config.parity else 1.0
        else:
            reward = suffered[1]
            if self.config.reward_only_positive:
                reward = max(reward, 0.0)
            else:
                reward -= 0.5 * suffered[0]
            reward += 200 * won
        terminated = not all(fights)
        truncated = not terminated and self.steps >= self.episode_limit
        if truncated and not self.config.continuing_episode:
            terminated, truncated = True, False
        return reward * scale, terminated, truncated, won

    # --- observations and actions --------------------------------------------------------------

    def shoot_range(self, unit: Unit) -> float:
        return max(unit.type.shoot_range, 2.0)

    def direction(self, unit: Unit) -> tuple[float, float]:
        angle = 2 * math.pi * unit.facing / 12
        return math.cos(angle), math.sin(angle)

    def in_cone(self, unit: Unit, other: Unit) -> bool:
        """Return whether `other` is at most 15 degrees off the direction that `unit` faces."""
        if not self.config.conic_fov:
            return True
        dx, dy = other.x - unit.x, other.y - unit.y
        ahead_x, ahead_y = self.direction(unit)
        if self.config.parity:  # arctangents of slopes do not distinguish front from back
            epsilon = 1e-7 if dx > 0 else -1e-7
            outwards = max if dx > 0 else min
            angle = math.atan(dy / outwards(dx, epsilon)) - math.atan(
                ahead_y / outwards(ahead_x, epsilon)
            )
            return abs(angle) < math.radians(15)
        if dx == dy == 0:
            return True
        angle = math.atan2(dy, dx) - math.atan2(ahead_y, ahead_x)
        angle = abs((angle + math.pi) % (2 * math.pi) - math.pi)
        return angle < math.radians(15) or math.isclose(angle, math.radians(15))

    def in_sight(self, unit: Unit, other: Unit) -> bool:
        """Return whether `other` is in sight; the range itself counts only with a cone."""
        distance = unit.distance(other)
        if self.config.conic_fov:
            return distance <= unit.type.sight and self.in_cone(unit, other)
        return distance < unit.type.sight

    def targets(self, unit: Unit) -> list[bool]:
        """Return by slot whether the unit could act on the target if it were in range."""
        team = self.allies if unit.type.heals else self.enemies
        if self.config.parity:
            useful = [not (unit.type.heals and other.type.heals) for other in team]
        else:
            useful = [unit.affects(other) for other in team]
        possible = [
            unit.alive and other.alive and use for other, use in zip(team, useful, strict=True)
        ]
        return possible + [False] * (self.slots - len(possible))

    def can_act_on(self, unit: Unit) -> list[bool]:
        """Return by slot whether an attack or heal would take effect now."""
        team = self.allies if unit.type.heals else self.enemies
        near = [
            unit.distance(other) <= self.shoot_range(unit) and self.in_cone(unit, other)
            for other in team
        ]
        near += [False] * (self.slots - len(near))
        return [possible and here for possible, here in zip(self.targets(unit), near, strict=True)]

    @property
    def slots(self) -> int:
        if self.any_healer:
            return max(len(self.allies), len(self.enemies))
        return len(self.enemies)

    def offered(self, unit: Unit) -> list[int]:
        turns = self.first_target - 6
        if not unit.alive:
            return [1] + [0] * (5 + turns + self.slots)
        moves = []
        for east, north in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            x, y = unit.x + east, unit.y + north
            if self.config.parity:
                moves.append(all(0 <= int(at) < MAP for at in (x, y)))
            else:
                moves.append(all(0 <= at <= MAP for at in (x, y)))
        possible = self.can_act_on(unit) if self.config.action_mask else self.targets(unit)
        return [0, 1, *map(int, moves), *[1] * turns, *map(int, possible)]

    def watch(self) -> None:
        """Update who spotted each enemy first, and which teammates may see it."""
        for foe in self.enemies:
            spotter = self.spotter.get(foe.number)
            if not foe.alive or (spotter is not None and not spotter.alive):
                spotter = None
                self.visible -= {(ally.number, foe.number) for ally in self.allies}
            lookers = [
                ally
                for ally in self.allies
                if ally.alive and self.in_sight(ally, foe) and (foe.alive or self.config.parity)
            ]
            if spotter is None and lookers:
                spotter = min(
                    lookers, key=lambda ally: uniform(self.key, 102, self.steps, ally.number)
                )
                slot = foe.number - len(self.allies)
                for ally in self.allies:
                    chance = uniform(self.key, 101, self.steps, ally.number, slot)
                    if ally is spotter or chance < self.config.prob_obs_enemy:
                        self.visible.add((ally.number, foe.number))
            self.spotter[foe.number] = spotter

    def may_see(self, unit: Unit, foe: Unit) -> bool:
        if self.config.parity:  # an enemy that may not be seen hides all enemies before it
            later = [other for other in self.enemies if other.number >= foe.number]
            return all((unit.number, other.number) in self.visible for other in later)
        return self.config.prob_obs_enemy == 1 or (unit.number, foe.number) in self.visible

    def bits(self, unit: Unit) -> list[float]:
        if not self.has_bits:
            return []
        return [float(unit.type.name == name) for name in self.type_names]

    def shares(self, unit: Unit) -> list[float]:
        health = [unit.health / unit.type.health]
        if self.has_shields:
            health.append(unit.shield / max(unit.type.shield, 1))
        return health

    def observation(self, unit: Unit) -> list[float]:
        seen: list[float] = [float(offered) for offered in self.offered(unit)[2:6]]
        width = 5 + self.has_shields + len(self.bits(unit))
        sight = unit.type.sight
        others = [*self.enemies, *(mate for mate in self.allies if mate is not unit)]
        for other in others:
            is_foe = other.side == 1
            is_hidden = is_foe and not self.may_see(unit, other)
            if not other.alive or not self.in_sight(unit, other) or is_hidden:
                seen += [0.0] * width
                continue
            first = self.attackable(unit, other) if is_foe else True
            place = [(other.x - unit.x) / sight, (other.y - unit.y) / sight]
            seen += [float(first), unit.distance(other) / sight, *place]
            seen += [*self.shares(other), *self.bits(other)]
        seen += self.shares(unit)
        if self.config.obs_own_pos:
            seen += [unit.x / MAP, unit.y / MAP]
        if self.config.conic_fov:
            seen += self.direction(unit)
        seen += self.bits(unit)
        return seen if unit.alive else [0.0] * len(seen)

    def attackable(self, unit: Unit, foe: Unit) -> bool:
        if self.config.parity:  # the mask's entry with this index, which is a heal for healers
            return self.can_act_on(unit)[foe.number - len(self.allies)]
        near = unit.distance(foe) <= self.shoot_range(unit) and self.in_cone(unit, foe)
        return near and unit.affects(foe)

    def max_cooldown(self, unit: Unit) -> float:
        if self.config.parity:  # swapped in SMACv2's table
            return {"stalker": 35, "colossus": 24}.get(unit.type.name, unit.type.max_cooldown)
        return unit.type.max_cooldown

    def state(self) -> list[float]:
        numbers: list[float] = []
        for unit in self.units:
            health, *shield = self.shares(unit)
            place = [(unit.x - 16) / 32, (unit.y - 16) / 32]
            if unit.side == 0:
                is_healer = unit.type.heals
                ready = unit.energy / 200 if is_healer else unit.cooldown / self.max_cooldown(unit)
                looks = self.direction(unit) if self.config.conic_fov else ()
                row = [health, ready, *place, *shield, *looks, *self.bits(unit)]
            else:
                row = [health, *place, *shield, *self.bits(unit)]
            numbers += row if unit.alive else [0.0] * len(row)
        n_actions = len(self.offered(self.units[0]))
        for unit in self.allies:
            numbers += [float(unit.last_action == action) for action in range(n_actions)]
        return numbers
