"""Who fights whom, and from where. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heteromark.config.files import read_mapping
from heteromark.environment.skirmish.units import UnitType, rule_set

MAP_SIZE = 32.0  # SMACv2's 32x32_flat
STARTS = ("facing", "reflect", "surrounded", "surrounded_and_reflect")


@dataclass(frozen=True)
class RandomTeams:
    """Teams that are drawn anew for each episode: the same units for both sides.

    Attributes:
        weights: probability of each unit type; each unit is drawn by itself.
        not_alone: types that never make up a whole team.
    """

    weights: Mapping[str, float]
    not_alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """Two teams and how they start.

    Attributes:
        name: of the scenario.
        types: the unit types that may appear, in the order of the observation's type bits.
        n_agents, n_enemies: units per side.
        teams: `RandomTeams`, or the fixed types of (allies, enemies), slot by slot.
        start: "facing": each team in a clump, one left, one right; "reflect": allies anywhere in
            the left half, enemies mirrored; "surrounded": allies in the centre, enemies in up to
            four clumps on the diagonals; "surrounded_and_reflect": either, by a coin.
        episode_limit: steps after which an episode is cut off.
    """

    name: str
    types: tuple[str, ...]
    n_agents: int
    n_enemies: int
    teams: RandomTeams | tuple[tuple[str, ...], tuple[str, ...]]
    start: str
    episode_limit: int

    @property
    def is_random(self) -> bool:
        """Whether the teams change from episode to episode."""
        return isinstance(self.teams, RandomTeams)

    @property
    def n_units(self) -> int:
        return self.n_agents + self.n_enemies

    @property
    def type_bits(self) -> int:
        """How many numbers tell a unit's type; none where all are of one."""
        return len(self.types) if self.is_random or len(self.types) > 1 else 0

    def unit_types(self, rules: str) -> tuple[UnitType, ...]:
        """The types as a rule set has them.

        Raises:
            ValueError: there is no such rule set.
        """
        units = rule_set(rules)
        return tuple(units[name] for name in self.types)


def _generated(race: str, weights: Mapping[str, float], *not_alone: str) -> Scenario:
    return Scenario(
        name=f"10gen_{race}",
        types=tuple(weights),
        n_agents=5,
        n_enemies=5,
        teams=RandomTeams(weights, not_alone),
        start="surrounded_and_reflect",
        episode_limit=200,
    )


def _fixed(name: str, episode_limit: int, **allies: int) -> Scenario:
    return fixed_scenario(name, allies, allies, "facing", episode_limit)


def fixed_scenario(
    name: str,
    allies: Mapping[str, int],
    enemies: Mapping[str, int],
    start: str,
    episode_limit: int,
) -> Scenario:
    """A scenario whose teams are always the same.

    Args:
        allies, enemies: number of units by type.
        others: see `Scenario`.
    """
    sides = [
        tuple(kind for kind in sorted(team) for _ in range(team[kind]))
        for team in (allies, enemies)
    ]
    return Scenario(
        name=name,
        types=tuple(sorted({*allies, *enemies})),
        n_agents=len(sides[0]),
        n_enemies=len(sides[1]),
        teams=(sides[0], sides[1]),
        start=start,
        episode_limit=episode_limit,
    )


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        _generated("terran", {"marine": 0.45, "marauder": 0.45, "medivac": 0.1}, "medivac"),
        _generated("protoss", {"stalker": 0.45, "zealot": 0.45, "colossus": 0.1}),
        _generated("zerg", {"zergling": 0.45, "hydralisk": 0.45, "baneling": 0.1}, "baneling"),
        _fixed("mini_MMM", 100, marine=3, marauder=1, medivac=1),
        _fixed("MMM", 150, marine=7, marauder=2, medivac=1),
        _fixed("3m", 60, marine=3),
        _fixed("8m", 120, marine=8),
        _fixed("2s3z", 120, stalker=2, zealot=3),
        _fixed("3s5z", 150, stalker=3, zealot=5),
        _fixed("1c3s5z", 180, colossus=1, stalker=3, zealot=5),
    )
}


def find_scenario(
    name: str,
    n_units: int | None = None,
    n_enemies: int | None = None,
    start: str | None = None,
    episode_limit: int | None = None,
) -> Scenario:
    """A scenario by its name or from a file, with what differs from it.

    Args:
        name: of a built-in scenario, or the path of a YAML file, see `read_scenario`.
        n_units, n_enemies: units per side, where teams are random; by default as many enemies as
            units.
        start, episode_limit: instead of the scenario's own.

    Raises:
        ValueError: there is no such scenario, or it does not allow that.
    """
    if name.endswith((".yaml", ".yml")):
        scenario = read_scenario(Path(name))
    elif name in SCENARIOS:
        scenario = SCENARIOS[name]
    else:
        raise ValueError(
            f"scenario is {name!r}; it must be one of {', '.join(SCENARIOS)}, or the path of a "
            ".yaml file"
        )
    for key, value in (("n_units", n_units), ("n_enemies", n_enemies)):
        if value is None:
            continue
        if not scenario.is_random:
            raise ValueError(
                f"{key} is {value}, but the teams of scenario {name!r} are fixed: "
                f"{scenario.n_agents} against {scenario.n_enemies} units; leave {key} out, or "
                "write a scenario file"
            )
        _require_count(key, value)
    if scenario.is_random:
        allies = scenario.n_agents if n_units is None else n_units
        enemies = n_enemies if n_enemies is not None else n_units or scenario.n_enemies
        scenario = replace(scenario, n_agents=allies, n_enemies=enemies)
    if start is not None:
        _require_start(start)
        scenario = replace(scenario, start=start)
    if episode_limit is not None:
        _require_count("episode_limit", episode_limit)
        scenario = replace(scenario, episode_limit=episode_limit)
    return scenario


def read_scenario(path: Path) -> Scenario:
    """A scenario of one's own, from a YAML file.

    Its keys: `allies` (number of units by type), `enemies` (the same; by default as the allies),
    `start` (by default facing) and `episode_limit` (by default 150).

    Raises:
        ValueError: the file is missing or wrong; the message names it, the key and what is allowed.
    """
    content = read_mapping(path, "Scenario")
    try:
        return _scenario(path.stem, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _scenario(name: str, content: dict[str, Any]) -> Scenario:
    allowed = ("allies", "enemies", "start", "episode_limit")
    if unknown := sorted(set(content) - set(allowed)):
        raise ValueError(f"unknown key {unknown[0]!r}; allowed are {', '.join(allowed)}")
    if "allies" not in content:
        raise ValueError("allies is missing: number of units by type, such as {marine: 3}")
    start = content.get("start", "facing")
    _require_start(start)
    limit = content.get("episode_limit", 150)
    _require_count("episode_limit", limit)
    allies = _team("allies", content["allies"])
    enemies = _team("enemies", content["enemies"]) if "enemies" in content else allies
    return fixed_scenario(name, allies, enemies, start, limit)


def _team(key: str, team: Any) -> dict[str, int]:
    known = rule_set("liberty")
    if not isinstance(team, dict) or not team:
        raise ValueError(f"{key} is {team!r}; it must be number of units by type, {{marine: 3}}")
    for kind, number in team.items():
        if kind not in known:
            raise ValueError(
                f"{key} names unit type {kind!r}; it must be one of {', '.join(sorted(known))}"
            )
        _require_count(f"{key}.{kind}", number)
    if all(known[kind].heals for kind in team):
        raise ValueError(f"{key} has only {', '.join(team)}, which cannot fight")
    return team


def _require_count(key: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} is {value!r}; it must be a whole number of at least 1")


def _require_start(start: Any) -> None:
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; it must be one of {', '.join(STARTS)}")
