"""Data of unit types. Imports no torch.

Units of measure: one game loop is 1/16 of a second at StarCraft II's "Normal" speed. The table has
Blizzard's figures in Normal seconds. `UnitType` converts them to game loops, and the rest of this
package uses only game loops. Lengths are in map units.

Sources: SC2Mapster/SC2GameData, liberty.sc2mod (UnitData, WeaponData, EffectData), and SMACv2's map
32x32_flat, which is based on it; for `modern` the multiplayer units of version 4 as listed by
ShadowLordAlpha/sc2-techtree. The ranges of sight and fire for observations and actions, and the
maximum cooldowns in the state, are SMACv2's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

LOOPS_PER_SECOND = 16
SHIELD_REGENERATION = 2.0 / LOOPS_PER_SECOND  # points per loop
SHIELD_DELAY = 10 * LOOPS_PER_SECOND  # loops without damage before shields regenerate
ENERGY_REGENERATION = 0.5625 / LOOPS_PER_SECOND  # points per loop
MAX_ENERGY = 200.0
START_ENERGY = 50.0
HEALING = 9.0 / LOOPS_PER_SECOND  # hit points per loop
ENERGY_PER_HP = 0.33
MIN_DAMAGE = 0.5  # minimum damage of a hit on hit points, regardless of armour
MIN_SHOOT_RANGE = 2.0  # in SMACv2, attacks are always legal up to this distance
FASTEST_WEAPON = 8  # no weapon fires twice within this many loops, even with random delays
BURST_RADIUS = 2.2
LINE_HALF_LENGTH = 1.25
LINE_RADIUS = 0.15


@dataclass(frozen=True, kw_only=True)
class UnitType:
    """A unit type; for units of measure, see the module."""

    name: str  # SMACv2's spelling
    race: str  # terran, protoss or zerg
    # "light", "armored", "biological", "mechanical", "massive"; weapons have bonuses against them
    attributes: tuple[str, ...]
    health: float  # points
    shield: float
    armour: float  # protects hit points, not shields
    seconds_speed: float  # map units per Normal second
    sight: float  # range of sight, between centres
    radius: float  # distance from the centre to the edge
    damage: float  # per hit; 0: unarmed
    hits: int  # per attack
    range: float  # of the weapon (or of healing), between edges
    shoot_range: float  # range of legal attacks, between centres
    seconds_period: float  # Normal seconds from one attack to the next
    max_cooldown: float  # divisor of the cooldown in SMACv2's state, in loops (energy: 200)
    bonus: dict[str, float] = field(default_factory=dict)  # damage per hit against an attribute
    separation: float | None = None  # radius that keeps units of its plane apart; None: `radius`
    # "ground", "air", or "cliff": weapons treat it as ground, but it does not collide with ground
    plane: str = "ground"
    hits_air: bool = False  # the weapon can hit "air"; all weapons can hit the other planes
    heals: bool = False  # restores hit points of biological allies, using energy
    # "line" (across the shot, at the target) or "burst" (around itself; kills the unit, and also
    # happens when it is killed)
    splash: str | None = None
    regenerates: float = 0.0  # hit points per Normal second

    @property
    def room(self) -> float:
        """Radius that keeps units of its plane apart."""
        return self.radius if self.separation is None else self.separation

    @property
    def speed(self) -> float:
        """Map units per game loop."""
        return self.seconds_speed / LOOPS_PER_SECOND

    @property
    def period(self) -> float:
        """Game loops from one attack to the next, before the random delay."""
        return self.seconds_period * LOOPS_PER_SECOND

    @property
    def regeneration(self) -> float:
        """Hit points per game loop."""
        return self.regenerates / LOOPS_PER_SECOND

    def can_attack(self, other: UnitType) -> bool:
        """Return whether the weapon can hit this type of enemy."""
        return self.damage > 0 and (self.hits_air or other.plane != "air")

    def can_heal(self, other: UnitType) -> bool:
        """Return whether it can heal this type of ally."""
        return self.heals and "biological" in other.attributes

    def damage_to(self, other: UnitType) -> float:
        """Return the damage of one hit on this type, before armour; 0 if it cannot be hit."""
        if not self.can_attack(other):
            return 0.0
        return self.damage + sum(self.bonus.get(name, 0.0) for name in other.attributes)


_BODY = ["race", "attributes", "health", "shield", "armour", "seconds_speed", "sight", "radius"]
_BODIES: dict[str, tuple[Any, ...]] = {
    "marine": ("terran", ("light", "biological"), 45, 0, 0, 2.25, 9, 0.375),
    "marauder": ("terran", ("armored", "biological"), 125, 0, 1, 2.25, 10, 0.5625),
    "medivac": ("terran", ("armored", "mechanical"), 150, 0, 1, 2.75, 11, 0.75),
    "stalker": ("protoss", ("armored", "mechanical"), 80, 80, 1, 2.953125, 10, 0.625),
    "zealot": ("protoss", ("light", "biological"), 100, 50, 1, 2.25, 9, 0.5),
    "colossus": ("protoss", ("armored", "mechanical", "massive"), 200, 150, 1, 2.25, 10, 1.0),
    "zergling": ("zerg", ("light", "biological"), 35, 0, 0, 2.953125, 8, 0.375),
    "hydralisk": ("zerg", ("light", "biological"), 80, 0, 0, 2.25, 9, 0.625),
    "baneling": ("zerg", ("biological",), 30, 0, 0, 2.5, 8, 0.375),
}
_WEAPON = ["damage", "hits", "range", "shoot_range", "seconds_period", "max_cooldown"]
_WEAPONS: dict[str, tuple[Any, ...]] = {
    "marine": (6, 1, 5, 5, 0.8608, 15),
    "marauder": (10, 1, 6, 6, 1.5, 25),
    "medivac": (0, 1, 4, 4, 1.0, 200),
    "stalker": (10, 1, 6, 6, 1.44, 24),
    "zealot": (8, 2, 0.1, 0.1, 1.2, 22),
    "colossus": (20, 2, 6, 7, 2.2, 35),
    "zergling": (5, 1, 0.1, 0.1, 0.696, 11),
    "hydralisk": (12, 1, 5, 5, 0.83, 10),
    "baneling": (20, 1, 0.25, 0.25, 0.833, 1),
}
_SPECIAL: dict[str, dict[str, Any]] = {
    "marine": {"hits_air": True},
    "marauder": {"bonus": {"armored": 10}},
    "medivac": {"plane": "air", "heals": True},
    "stalker": {"bonus": {"armored": 4}, "hits_air": True},
    "zealot": {},
    "colossus": {"separation": 0.75, "plane": "cliff", "splash": "line"},
    "zergling": {"regenerates": 0.2734375},
    "hydralisk": {"hits_air": True, "regenerates": 0.2734375},
    "baneling": {"bonus": {"light": 15}, "splash": "burst", "regenerates": 0.2734375},
}
_LIBERTY = {
    name: UnitType(
        name=name,
        **dict(zip(_BODY, _BODIES[name], strict=True)),
        **dict(zip(_WEAPON, _WEAPONS[name], strict=True)),
        **_SPECIAL[name],
    )
    for name in _BODIES
}

_MODERN: dict[str, dict[str, Any]] = {
    "stalker": {"damage": 13, "bonus": {"armored": 5}, "seconds_period": 1.87},
    "colossus": {"damage": 10, "bonus": {"light": 5}, "range": 7, "seconds_period": 1.5},
    "hydralisk": {"health": 90, "seconds_period": 0.825},
    "medivac": {"seconds_speed": 2.5},
}

# liberty: the rules of SMACv2's maps. modern: multiplayer units of StarCraft II 4.x.
RULES: dict[str, dict[str, UnitType]] = {
    "liberty": _LIBERTY,
    "modern": {name: replace(unit, **_MODERN.get(name, {})) for name, unit in _LIBERTY.items()},
}
# SMACv2's table swaps these two values
SWAPPED_MAX_COOLDOWNS = {"stalker": 35, "colossus": 24}


def rule_set(name: str) -> dict[str, UnitType]:
    """Return the unit types of a rule set, by name.

    Raises:
        ValueError: there is no such rule set.
    """
    if name not in RULES:
        raise ValueError(f"rules is {name!r}; it must be one of {', '.join(RULES)}")
    return RULES[name]
