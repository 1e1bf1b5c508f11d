"""Scenarios: teams and start positions. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from heteromark.config.models.skirmish import SkirmishConfig, UnitName
from heteromark.environment.skirmish.units import UnitType, rule_set

MAP_SIZE = 32.0  # SMACv2's 32x32_flat


@dataclass(frozen=True)
class RandomTeams:
    """Teams that are redrawn for each episode: the same units for both sides."""

    weights: Mapping[str, float]  # probability of each unit type; units are drawn independently
    not_alone: tuple[str, ...] = ()  # types that never form a whole team


@dataclass(frozen=True)
class Scenario:
    """Two teams and how they start.

    Starts:
        facing: one team in a cluster on the left, the other on the right.
        reflect: allies anywhere in the left half, enemies mirrored.
        surrounded: allies in the centre, enemies in up to four clusters on the diagonals.
        surrounded_and_reflect: one of these two, with equal probability.
    """

    name: str
    types: tuple[str, ...]  # possible types, in the order of the observation's type bits
    n_agents: int
    n_enemies: int
    # random teams, or the fixed types of (allies, enemies), slot by slot
    teams: RandomTeams | tuple[tuple[str, ...], tuple[str, ...]]
    start: str
    episode_limit: int  # steps after which an episode is truncated

    @property
    def is_random(self) -> bool:
        """Whether the teams change between episodes."""
        return isinstance(self.teams, RandomTeams)

    @property
    def n_units(self) -> int:
        return self.n_agents + self.n_enemies

    @property
    def type_bits(self) -> int:
        """Size of the one-hot unit type; 0 if all units have the same type."""
        return len(self.types) if self.is_random or len(self.types) > 1 else 0

    def unit_types(self, rules: str) -> tuple[UnitType, ...]:
        """Return the unit types under a rule set.

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


def _fixed(
    name: str,
    episode_limit: int,
    allies: Mapping[UnitName, int],
    enemies: Mapping[UnitName, int] | None = None,
    start: str = "facing",
) -> Scenario:
    """Return a scenario with fixed teams.

    Args:
        allies, enemies: number of units by type; without `enemies`, both teams are equal.
        name, episode_limit, start: see `Scenario`.
    """
    enemies = enemies or allies
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
        # not "facing": if enemies always start opposite, a policy that observes only the time wins
        # every battle
        _fixed("mini_MMM", 100, {"marine": 3, "marauder": 1, "medivac": 1}, start="surrounded"),
        _fixed("MMM", 150, {"marine": 7, "marauder": 2, "medivac": 1}),
        _fixed("3m", 60, {"marine": 3}),
        _fixed("8m", 120, {"marine": 8}),
        _fixed("2s3z", 120, {"stalker": 2, "zealot": 3}),
        _fixed("3s5z", 150, {"stalker": 3, "zealot": 5}),
        _fixed("1c3s5z", 180, {"colossus": 1, "stalker": 3, "zealot": 5}),
    )
}


def scenario_of(config: SkirmishConfig) -> Scenario:
    """Return the scenario of a config."""
    if config.scenario == "custom":
        scenario = _fixed("custom", 150, config.allies or {}, config.enemies)
    else:
        scenario = SCENARIOS[config.scenario]
    if scenario.is_random:
        n_agents = config.n_units or scenario.n_agents
        n_enemies = config.n_enemies or n_agents
        scenario = replace(scenario, n_agents=n_agents, n_enemies=n_enemies)
    return replace(
        scenario,
        start=config.start or scenario.start,
        episode_limit=config.episode_limit or scenario.episode_limit,
    )


def opposite(scenario: Scenario) -> Scenario:
    """Return the scenario from the other side's view."""
    teams = scenario.teams
    if not isinstance(teams, RandomTeams):
        teams = (teams[1], teams[0])
    elif scenario.n_enemies < scenario.n_agents:  # the enemies are a part of an allowed team
        teams = replace(teams, not_alone=())
    n, m = scenario.n_agents, scenario.n_enemies
    return replace(scenario, n_agents=m, n_enemies=n, teams=teams)
