"""The overview of a finished workflow: one self-contained page for readers outside the project.

It shows the configs and the environment, the winner and its margin, the long run, the cost, and the
commands that reproduce the result.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from heteromark.config.files import read_mapping
from heteromark.config.models.algorithms import LLM, kind_of_environment
from heteromark.config.nested import flatten
from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import CONFIG_FILE, RunRecord
from heteromark.workflow.aggregate import Tables
from heteromark.workflow.colours import PALETTE
from heteromark.workflow.plan import Candidate, Plan
from heteromark.workflow.rank_check import RankCheck
from heteromark.workflow.select import Selection
from heteromark.workflow.words import unit, words

TEMPLATE = "overview.html"
_STATISTICS = {"iqm": "interquartile mean", "mean": "mean", "median": "median", "min": "lowest"}


@dataclass(frozen=True)
class Resources:
    """The total cost of all runs of a workflow.

    Attributes:
        runs: number of runs.
        frames: trained frames; frames that a run took over from a shorter run count once.
        hours: hours of training and evaluation, summed over runs.
        hosts, devices: the hosts and devices of the runs.
    """

    runs: int
    frames: int
    hours: float
    hosts: tuple[str, ...]
    devices: tuple[str, ...]

    @classmethod
    def of(cls, records: Sequence[RunRecord]) -> Resources:
        """Return the total cost of these runs."""
        return cls(
            runs=len(records),
            frames=sum(map(_trained_frames, records)),
            hours=sum(record.duration_seconds or 0 for record in records) / 3600,
            hosts=tuple(sorted({record.host for record in records})),
            devices=tuple(sorted({record.device for record in records if record.device})),
        )


def write_overview(
    plan: Plan,
    smoke: Tables,
    selection: Selection,
    long: Tables,
    check: RankCheck,
    pictures: Sequence[tuple[str, Path]],
    path: Path,
) -> None:
    """Write the page.

    Args:
        smoke, long: tables of the sweep and of the winner's long runs.
        pictures: captions and SVG files, which are embedded in the page.
    """
    winner = plan.find("smoke", selection.winner.name, selection.winner.config_digest)[0]
    trained = [*plan.trained_in_rungs(), winner.full]
    folders = [folder for candidate in trained for folder in candidate.folders.values()]
    records = [RunRecord.read(folder) for folder in folders]
    by_config = smoke.summary.set_index("config")
    model = records[-1]
    settings = selection.settings
    config = read_mapping(Path(path).parent / CONFIG_FILE)
    environment = Environment(
        loader=PackageLoader("heteromark.workflow"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template(TEMPLATE).render(
        colour=PALETTE[0],
        accent=PALETTE[1],
        plan=plan,
        selection=selection,
        measure=f"{_STATISTICS[settings.statistic]} of {words(settings.metric)}",
        battlefield=describe_environment(config),
        terms=describe_terms(config),
        unit=unit(settings.metric),
        margin=_margin(selection),
        rows=[(candidate, by_config.loc[candidate.label]) for candidate in selection.candidates],
        differences=differences([config.smoke for config in plan.configs]),
        long=long.runs.to_dict("records"),
        check=check,
        pictures=[(caption, _as_data(picture)) for caption, picture in pictures],
        resources=Resources.of(records),
        versions=model.versions,
        commit=model.git.get("commit"),
        is_dirty=model.git.get("dirty", False),
    )
    write_text_atomic(path, text)


def differences(candidates: Sequence[Candidate]) -> dict[str, list[Any]]:
    """Return the hyperparameters that differ between configs: dotted key -> value per config."""
    flat = [flatten(candidate.hyperparameters) for candidate in candidates]
    keys = dict.fromkeys(key for each in flat for key in each)
    values = {key: [each.get(key) for each in flat] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}


def describe_environment(config: Mapping[str, Any]) -> str:
    """Describe the environment of a run, from its resolved config."""
    environment = config["environment"]
    if kind_of_environment(config["env_type"]) == LLM:
        return f"{environment['text']['task']}, a task for language models"
    if config["env_type"] != "skirmish":
        return str(environment["task"])
    battle = environment["skirmish"]
    sides = battle["scenario"]
    if battle["allies"]:
        sides = f"{battle['allies']} against {battle['enemies'] or 'the same units'}"
    return f"the simulator Skirmish, scenario {sides}, opponent {battle['opponent']}"


def describe_terms(config: Mapping[str, Any]) -> str:
    """Define returns and frames for a run's environment."""
    if kind_of_environment(config["env_type"]) == LLM:
        return (
            "A return is the sum of rewards that a team earns on one problem; a frame is one round "
            "of one attempt."
        )
    return (
        "A return is the sum of rewards of an episode, per agent; a frame is one step of all "
        "agents."
    )


def _margin(selection: Selection) -> str:
    """Describe the winner's margin over the second config."""
    eligible = [candidate for candidate in selection.candidates if candidate.eligible]
    if len(eligible) < 2:
        return "No other config completed enough runs to compare with."
    first, second = eligible[:2]
    if first.rung != second.rung:
        return f"No other config trained beyond {second.frames:,} frames."
    assert second.score is not None, "eligible candidates have a score"
    text = f"That is {selection.winner.score - second.score:.3g} above {second.label}"
    if first.interval is None or second.interval is None:
        return f"{text}; with only one seed, chance cannot be ruled out."
    apart = "overlap" if first.interval.overlaps(second.interval) else "do not overlap"
    text += f"; their intervals {apart}"
    if second.improvement is not None:
        text += (
            f". A run of the winner beats a run of {second.label} with probability "
            f"{second.improvement:.2f}"
        )
    return f"{text}."


def _trained_frames(record: RunRecord) -> int:
    summary = record.summary
    if record.continued is None or not summary.iterations:
        return summary.frames
    return summary.frames - record.continued.iteration * summary.frames // summary.iterations


def _as_data(picture: Path) -> str:
    content = base64.b64encode(picture.read_bytes()).decode()
    return f"data:image/svg+xml;base64,{content}"
