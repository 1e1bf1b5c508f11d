"""The table of units, compared with figures from the game's files."""

from __future__ import annotations

from typing import get_args

import pytest

from heteromark.config.models.skirmish import FixedTeams, RandomTeams, UnitName
from heteromark.environment.skirmish.scenarios import SCENARIOS
from heteromark.environment.skirmish.units import RULES, rule_set

# name: hit points, shield, armour, speed per step of 8 loops, sight, radius, damage, hits, range,
# loops between attacks, shooting range of SMACv2's actions
LIBERTY = {
    "marine": (45, 0, 0, 1.125, 9, 0.375, 6, 1, 5, 13.77, 5),
    "marauder": (125, 0, 1, 1.125, 10, 0.5625, 10, 1, 6, 24, 6),
    "medivac": (150, 0, 1, 1.375, 11, 0.75, 0, 1, 4, None, 4),
    "stalker": (80, 80, 1, 1.4766, 10, 0.625, 10, 1, 6, 23.04, 6),
    "zealot": (100, 50, 1, 1.125, 9, 0.5, 8, 2, 0.1, 19.2, 0.1),
    "colossus": (200, 150, 1, 1.125, 10, 1, 20, 2, 6, 35.2, 7),
    "zergling": (35, 0, 0, 1.4766, 8, 0.375, 5, 1, 0.1, 11.14, 0.1),
    "hydralisk": (80, 0, 0, 1.125, 9, 0.625, 12, 1, 5, 13.28, 5),
    "baneling": (30, 0, 0, 1.25, 8, 0.375, 20, 1, 0.25, 13.33, 0.25),
}


@pytest.mark.parametrize("name", LIBERTY)
def test_unit_properties_match_the_games_files(name):
    health, shield, armour, speed, sight, radius, damage, hits, reach, period, shoot = LIBERTY[name]
    unit = RULES["liberty"][name]
    assert (unit.health, unit.shield, unit.armour) == (health, shield, armour)
    assert unit.speed * 8 == pytest.approx(speed, abs=1e-4)
    assert (unit.sight, unit.radius, unit.range) == (sight, radius, reach)
    assert (unit.damage, unit.hits, unit.shoot_range) == (damage, hits, shoot)
    if period is not None:
        assert unit.period == pytest.approx(period, abs=0.01)


def test_modern_rules_differ_where_the_newer_game_does():
    liberty, modern = RULES["liberty"], RULES["modern"]
    assert {name for name in liberty if liberty[name] != modern[name]} == {
        *("stalker", "colossus", "hydralisk", "medivac")
    }
    assert (modern["stalker"].damage, modern["stalker"].bonus) == (13, {"armored": 5})
    assert modern["colossus"].period == 24
    assert modern["hydralisk"].health == 90


@pytest.mark.parametrize(
    ("attacker", "target", "damage"),
    [
        ("marauder", "marine", 10),
        ("marauder", "stalker", 20),
        ("marauder", "medivac", 0),
        ("marine", "medivac", 6),
        ("stalker", "colossus", 14),
        ("baneling", "zergling", 35),
        ("baneling", "marauder", 20),
        ("medivac", "marine", 0),
    ],
)
def test_damage_depends_on_bonuses_and_planes(attacker, target, damage):
    units = RULES["liberty"]
    assert units[attacker].damage_to(units[target]) == damage


def test_the_config_has_the_same_names():
    assert set(get_args(UnitName)) == set(RULES["liberty"]) == set(RULES["modern"])
    assert {*get_args(RandomTeams), *get_args(FixedTeams)} == set(SCENARIOS)


def test_an_unknown_rule_set_is_reported():
    with pytest.raises(ValueError, match=r"rules is 'heart'; it must be one of liberty, modern"):
        rule_set("heart")
