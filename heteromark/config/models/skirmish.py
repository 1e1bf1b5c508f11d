"""The typed, frozen model of what a Skirmish battle is. SMACv2's switches have SMACv2's names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from heteromark.config.fields import Count, Frozen, Probability

RandomTeams = Literal["10gen_terran", "10gen_protoss", "10gen_zerg"]
FixedTeams = Literal["mini_MMM", "MMM", "3m", "8m", "2s3z", "3s5z", "1c3s5z"]
TerranUnit = Literal["marine", "marauder", "medivac"]
ProtossUnit = Literal["stalker", "zealot", "colossus"]
ZergUnit = Literal["zergling", "hydralisk", "baneling"]
UnitName = Literal[TerranUnit, ProtossUnit, ZergUnit]
Team = Annotated[dict[UnitName, Count], Field(min_length=1)]
ScriptName = Literal["nearest", "attack_move", "focus_fire", "kite", "random"]
OpponentName = Literal[ScriptName, "policy"]
Start = Literal["facing", "reflect", "surrounded", "surrounded_and_reflect"]


class SkirmishConfig(Frozen):
    """Who fights whom, and how battles are seen, played and rewarded."""

    scenario: RandomTeams | FixedTeams | Literal["custom"] = Field(
        "10gen_terran",
        description="10gen_*: SMACv2's teams, drawn for each episode; the others are fixed; "
        "custom: of allies and enemies.",
    )
    allies: Team | None = Field(
        None, description="For scenario custom: number of units by type, {marine: 3, medivac: 1}."
    )
    enemies: Team | None = Field(
        None, description="For scenario custom: the other side; null: as the allies."
    )
    n_units: Count | None = Field(
        None, description="Units of the agents' side, where teams are random; null: 5."
    )
    n_enemies: Count | None = Field(
        None, description="Units of the other side, where teams are random; null: as n_units."
    )
    start: Start | None = Field(None, description="Where teams start; null: as the scenario says.")
    episode_limit: Count | None = Field(
        None, description="Steps after which an episode is cut off; null: as the scenario says."
    )
    rules: Literal["liberty", "modern"] = Field(
        "liberty", description="Numbers of the units: those of SMACv2's maps, or of version 4.x."
    )
    opponent: OpponentName = Field(
        "nearest",
        description="Who commands the other side: a script, or policy, the one in `checkpoint`.",
    )
    checkpoint: str | None = Field(
        None,
        description="For opponent policy: a run's checkpoint.pt or best.pt, trained in a scenario "
        "with the other side's units.",
    )
    units: Literal["type", "slot"] = Field(
        "type",
        description="Agents are named, and so grouped, by unit type: marine_0, …, with places that "
        "are empty where a random team has no such unit; or by slot, as in SMACv2: ally_0, ….",
    )
    compile: bool = Field(
        False,
        description="Compile the simulation: several times as fast in large batches, after up to a "
        "minute of compilation.",
    )
    step_mul: Count = Field(8, description="Game loops per step.")
    conic_fov: bool = Field(
        False,
        description="Agents see and attack in a cone of 30 degrees with its edges, which 12 more "
        "actions turn.",
    )
    prob_obs_enemy: Probability = Field(
        1.0,
        description="Probability that a teammate may see, too, an enemy first spotted by an agent; "
        "0 in SMACv2's EPO configs.",
    )
    action_mask: bool = Field(
        True,
        description="Offer attacks in range only; false: on every living target. One out of range "
        "leaves the unit to its last order.",
    )
    obs_own_pos: bool = Field(True, description="Agents see where on the map they are.")
    reward_sparse: bool = Field(False, description="1 for a victory, -1 for a defeat, else 0.")
    reward_only_positive: bool = Field(
        True, description="false: what the own side suffers counts as well, half as much."
    )
    continuing_episode: bool = Field(
        True,
        description="Running out of time is truncation; false (SMACv2's default): a defeat's end.",
    )
    parity: bool = Field(
        False,
        description="SMACv2's slips, too, for comparisons with it; docs/skirmish.md lists them.",
    )
    check_actions: bool = Field(
        False, description="Refuse illegal actions; false: an agent with such an action stops."
    )

    def misfits(self) -> Iterator[tuple[str, str]]:
        is_custom = self.scenario == "custom"
        if is_custom and self.allies is None:
            yield "allies", "must be set with scenario custom: number of units by type, {marine: 3}"
        for key in ("allies", "enemies"):
            team = getattr(self, key)
            if team is not None and not is_custom:
                yield key, f"is for scenario custom, and the scenario is {self.scenario}"
            if team is not None and set(team) == {"medivac"}:
                yield key, "must have a unit that can fight"
        for key in ("n_units", "n_enemies"):
            if getattr(self, key) is not None and not self.scenario.startswith("10gen"):
                message = (
                    f"is for random teams (scenario 10gen_*), and those of {self.scenario} are "
                    "fixed; use scenario custom with allies and enemies"
                )
                yield key, message
        if self.checkpoint is not None and self.opponent != "policy":
            yield "checkpoint", f"is for opponent policy, and the opponent is {self.opponent}"
