"""The units that fight, as data. Imports no torch.

Units of measure: one game loop is 1/16 of a second of StarCraft II's "Normal" speed. The table
keeps Blizzard's own figures, which count in Normal seconds; `UnitType` turns them into game loops,
and nothing else in this package knows seconds. Lengths are map units.

Sources: SC2Mapster/SC2GameData, liberty.sc2mod (UnitData, WeaponData, EffectData), and SMACv2's map
32x32_flat, which builds on it; for `modern` the multiplayer units of version 4 as listed by
ShadowLordAlpha/sc2-techtree. The ranges of sight and fire that agents act on, and the cooldowns
that the state is scaled by, are SMACv2's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

LOOPS_PER_SECOND = 16
SHIELD_REGENERATION = 2.0 / LOOPS_PER_SECOND  # points per loop
SHIELD_DELAY = 10 * LOOPS_PER_SECOND  # loops without damage before shields regenerate
ENERGY_REGENERATION = 0.5625 / LOOPS_PER_SECOND  # points per loop
MAX_ENERGY = 200.0
START_ENERGY = 50.0
HEALING = 9.0 / LOOPS_PER_SECOND  # hit points per loop
ENERGY_PER_HP = 0.33
MIN_DAMAGE = 0.5  # of a hit that reaches the hit points, whatever the armour
MIN_SHOOT_RANGE = 2.0  # SMACv2 offers every attack from here on
FASTEST_WEAPON = 8  # no weapon fires twice within that many loops, whatever its random delay
BURST_RADIUS = 2.2
LINE_HALF_LENGTH = 1.25
LINE_RADIUS = 0.15


@dataclass(frozen=True, kw_only=True)
class UnitType:
    """A type of unit; see the module for units of measure.

    Attributes:
        name: as SMACv2 spells it.
        race: terran, protoss or zerg.
        health, shield, armour: points; armour protects hit points, not shields.
        attributes: of "light", "armored", "biological", "mechanical", "massive"; weapons have
            bonuses against them.
        seconds_speed: map units per Normal second.
        sight, shoot_range: what agents see and may attack, centre to centre.
        radius: what ranges are measured from and to.
        separation: radius within which others of its plane are pushed away; None: as radius.
        plane: "ground", "air", or "cliff": on the ground for weapons, and over the heads of others.
        damage, hits: of one attack; 0 for the unarmed.
        bonus: more damage per hit against an attribute.
        range: of the weapon (or of healing), from edge to edge.
        seconds_period: Normal seconds from one attack to the next.
        hits_air: the weapon reaches the plane "air"; all weapons reach the others.
        heals: restores hit points of biological allies, with energy.
        splash: None, "line" (across the shot, at the target) or "burst" (around itself, which it
            dies of, and which happens, too, when it is killed).
        regenerates: hit points per Normal second.
        max_cooldown: what SMACv2's state divides the cooldown by, in loops (200 for energy).
    """

    name: str
    race: str
    health: float
    attributes: tuple[str, ...]
    seconds_speed: float
    sight: float
    shoot_range: float
    radius: float
    shield: float = 0.0
    armour: float = 0.0
    damage: float = 0.0
    hits: int = 1
    bonus: dict[str, float] = field(default_factory=dict)
    range: float = 5.0
    seconds_period: float = 1.0
    separation: float | None = None
    plane: str = "ground"
    hits_air: bool = False
    heals: bool = False
    splash: str | None = None
    regenerates: float = 0.0
    max_cooldown: float = 1.0

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
        """Whether the weapon reaches that type of enemy."""
        return self.damage > 0 and (self.hits_air or other.plane != "air")

    def can_heal(self, other: UnitType) -> bool:
        """Whether it heals that type of ally."""
        return self.heals and "biological" in other.attributes

    def damage_to(self, other: UnitType) -> float:
        """Damage of one hit on that type, before armour; 0 if the weapon does not reach it."""
        if not self.can_attack(other):
            return 0.0
        return self.damage + sum(self.bonus.get(name, 0.0) for name in other.attributes)


_LIBERTY = (
    UnitType(
        name="marine",
        race="terran",
        health=45,
        attributes=("light", "biological"),
        seconds_speed=2.25,
        sight=9,
        shoot_range=5,
        radius=0.375,
        damage=6,
        range=5,
        seconds_period=0.8608,
        hits_air=True,
        max_cooldown=15,
    ),
    UnitType(
        name="marauder",
        race="terran",
        health=125,
        armour=1,
        attributes=("armored", "biological"),
        seconds_speed=2.25,
        sight=10,
        shoot_range=6,
        radius=0.5625,
        damage=10,
        bonus={"armored": 10},
        range=6,
        seconds_period=1.5,
        max_cooldown=25,
    ),
    UnitType(
        name="medivac",
        race="terran",
        health=150,
        armour=1,
        attributes=("armored", "mechanical"),
        seconds_speed=2.75,
        sight=11,
        shoot_range=4,
        radius=0.75,
        range=4,
        plane="air",
        heals=True,
        max_cooldown=200,
    ),
    UnitType(
        name="stalker",
        race="protoss",
        health=80,
        shield=80,
        armour=1,
        attributes=("armored", "mechanical"),
        seconds_speed=2.953125,
        sight=10,
        shoot_range=6,
        radius=0.625,
        damage=10,
        bonus={"armored": 4},
        range=6,
        seconds_period=1.44,
        hits_air=True,
        max_cooldown=24,
    ),
    UnitType(
        name="zealot",
        race="protoss",
        health=100,
        shield=50,
        armour=1,
        attributes=("light", "biological"),
        seconds_speed=2.25,
        sight=9,
        shoot_range=0.1,
        radius=0.5,
        damage=8,
        hits=2,
        range=0.1,
        seconds_period=1.2,
        max_cooldown=22,
    ),
    UnitType(
        name="colossus",
        race="protoss",
        health=200,
        shield=150,
        armour=1,
        attributes=("armored", "mechanical", "massive"),
        seconds_speed=2.25,
        sight=10,
        shoot_range=7,
        radius=1.0,
        separation=0.75,
        plane="cliff",
        damage=20,
        hits=2,
        splash="line",
        range=6,
        seconds_period=2.2,
        max_cooldown=35,
    ),
    UnitType(
        name="zergling",
        race="zerg",
        health=35,
        attributes=("light", "biological"),
        seconds_speed=2.953125,
        sight=8,
        shoot_range=0.1,
        radius=0.375,
        damage=5,
        range=0.1,
        seconds_period=0.696,
        regenerates=0.2734375,
        max_cooldown=11,
    ),
    UnitType(
        name="hydralisk",
        race="zerg",
        health=80,
        attributes=("light", "biological"),
        seconds_speed=2.25,
        sight=9,
        shoot_range=5,
        radius=0.625,
        damage=12,
        range=5,
        seconds_period=0.83,
        hits_air=True,
        regenerates=0.2734375,
        max_cooldown=10,
    ),
    UnitType(
        name="baneling",
        race="zerg",
        health=30,
        attributes=("biological",),
        seconds_speed=2.5,
        sight=8,
        shoot_range=0.25,
        radius=0.375,
        damage=20,
        bonus={"light": 15},
        splash="burst",
        range=0.25,
        seconds_period=0.833,
        regenerates=0.2734375,
        max_cooldown=1,
    ),
)

_MODERN = {
    "stalker": {"damage": 13, "bonus": {"armored": 5}, "seconds_period": 1.87},
    "colossus": {"damage": 10, "bonus": {"light": 5}, "range": 7, "seconds_period": 1.5},
    "hydralisk": {"health": 90, "seconds_period": 0.825},
    "medivac": {"seconds_speed": 2.5},
}

# liberty: what SMACv2's maps run. modern: multiplayer units of StarCraft II 4.x.
RULES: dict[str, dict[str, UnitType]] = {
    "liberty": {unit.name: unit for unit in _LIBERTY},
    "modern": {unit.name: replace(unit, **_MODERN.get(unit.name, {})) for unit in _LIBERTY},
}
# what SMACv2's own table has the wrong way round
SWAPPED_MAX_COOLDOWNS = {"stalker": 35, "colossus": 24}


def rule_set(name: str) -> dict[str, UnitType]:
    """The unit types of a rule set, by name.

    Raises:
        ValueError: there is no such rule set.
    """
    if name not in RULES:
        raise ValueError(f"rules is {name!r}; it must be one of {', '.join(RULES)}")
    return RULES[name]
