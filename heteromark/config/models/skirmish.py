"""The typed, immutable model of a Skirmish battle. Settings from SMACv2 have SMACv2's names."""

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
    """The teams of a battle, and its rules, observations and rewards."""

    scenario: RandomTeams | FixedTeams | Literal["custom"] = Field(
        "10gen_terran",
        description="10gen_*: SMACv2's random teams, drawn anew each episode; custom: the units in "
        "allies and enemies; all others: fixed teams.",
    )
    allies: Team | None = Field(
        None,
        description="For scenario custom: number of allies by type, as {marine: 3, medivac: 1}.",
    )
    enemies: Team | None = Field(
        None, description="For scenario custom: number of enemies by type; null: same as allies."
    )
    n_units: Count | None = Field(None, description="For random teams: number of allies; null: 5.")
    n_enemies: Count | None = Field(
        None, description="For random teams: number of enemies; null: same as n_units."
    )
    start: Start | None = Field(
        None, description="Start positions of the teams; null: those of the scenario."
    )
    episode_limit: Count | None = Field(
        None, description="Maximum steps per episode; null: the limit of the scenario."
    )
    rules: Literal["liberty", "modern"] = Field(
        "liberty",
        description="Unit statistics. liberty: those of SMACv2's maps; modern: those of StarCraft "
        "II 4.x.",
    )
    opponent: OpponentName = Field(
        "nearest",
        description="Controls the enemies: a script, or policy for the policy in `checkpoint`.",
    )
    checkpoint: str | None = Field(
        None,
        description="For opponent policy: a run's checkpoint.pt or best.pt, trained with the units "
        "of the enemies.",
    )
    units: Literal["type", "slot"] = Field(
        "type",
        description="Agent names, which determine the groups. type: by unit type, as marine_0; in "
        "random teams, agents without a unit stay inactive. slot: by position in the team, as "
        "ally_0 (like SMACv2).",
    )
    compile: bool = Field(
        False,
        description="Compile the simulation. Several times faster in large batches, but compiling "
        "takes up to a minute.",
    )
    step_mul: Count = Field(8, description="Game loops per step.")
    conic_fov: bool = Field(
        False,
        description="Agents see and attack only in a cone of 30 degrees, edges included. 12 "
        "additional actions turn it.",
    )
    prob_obs_enemy: Probability = Field(
        1.0,
        description="Probability that a teammate also sees an enemy that another agent spotted "
        "first; 0 in SMACv2's EPO configs.",
    )
    action_mask: bool = Field(
        True,
        description="Allow attacks only in range. false: on every living target; an attack out of "
        "range leaves the unit's last order unchanged.",
    )
    obs_own_pos: bool = Field(True, description="Agents observe their position on the map.")
    reward_sparse: bool = Field(
        False, description="Reward only the outcome: 1 for a victory, -1 for a defeat, else 0."
    )
    reward_only_positive: bool = Field(
        True, description="false: also subtract half of the damage and kills that allies suffer."
    )
    continuing_episode: bool = Field(
        True,
        description="Reaching the episode limit truncates the episode; false (SMACv2's default): "
        "it ends the episode as a defeat.",
    )
    parity: bool = Field(
        False,
        description="Reproduce SMACv2's bugs too, for comparisons (listed in docs/skirmish.md).",
    )
    check_actions: bool = Field(
        False, description="Raise an error on illegal actions; false: the agent stops instead."
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        is_custom = self.scenario == "custom"
        if is_custom and self.allies is None:
            yield "allies", "must be set with scenario custom, as units by type: {marine: 3}"
        for key in ("allies", "enemies"):
            team = getattr(self, key)
            if team is not None and not is_custom:
                yield key, f"requires scenario custom, but the scenario is {self.scenario}"
            if team is not None and set(team) == {"medivac"}:
                yield key, "must contain a unit that can fight, not only medivacs"
        for key in ("n_units", "n_enemies"):
            if getattr(self, key) is not None and not self.scenario.startswith("10gen"):
                message = (
                    f"requires random teams (scenario 10gen_*), but the teams of {self.scenario} "
                    "are fixed; use scenario custom with allies and enemies"
                )
                yield key, message
        if self.checkpoint is not None and self.opponent != "policy":
            yield "checkpoint", f"requires opponent policy, but the opponent is {self.opponent}"
