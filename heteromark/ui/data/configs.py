"""Configs as the history has them: the seeds of one config together, and what differs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from heteromark.config.compose.layers import resolve_agent
from heteromark.config.errors import ConfigError
from heteromark.config.files import SUFFIXES, read_mapping
from heteromark.config.models.agent import Hyperparameters
from heteromark.config.nested import flatten
from heteromark.runs.record import CONFIG_FILE, AgentIdentity
from heteromark.ui.data.history import HistoryRun

AGENTS_FOLDER = Path("config/agents")
# Of a resolved config: what tells runs apart without changing what is learnt.
LABELS = frozenset(
    {"seed", "mode", "agent.agent_id", "agent.name", "agent.version"}
    | {"agent.sweep_variant", "agent.description", "environment.name"}
)
ABSENT = "-"  # a key that this config does not have


@dataclass(frozen=True)
class ConfigRuns:
    """The runs of one config, over seeds.

    Attributes:
        digest: the config's.
        label: its short name, with as much besides as tells it from the others.
    """

    digest: str
    label: str
    runs: tuple[HistoryRun, ...]


def configs_of(runs: Sequence[HistoryRun]) -> list[ConfigRuns]:
    """The configs of all readable runs, in the order in which they were first trained.

    A config that is new comes last, so that places in this order stay what they are.
    """
    by_digest: defaultdict[str, list[HistoryRun]] = defaultdict(list)
    for run in reversed(runs):  # the newest come first
        if run.record is not None:
            by_digest[run.record.config_digest].append(run)
    labels = _labels([members[0] for members in by_digest.values()])
    return [
        ConfigRuns(digest, labels[digest], tuple(sorted(members, key=lambda run: run.record.seed)))
        for digest, members in by_digest.items()
    ]


def _labels(examples: Sequence[HistoryRun]) -> dict[str, str]:
    """Short names by digest; what stands for several configs gets more words, until it does not."""
    words = {}
    for run in examples:
        digest = run.config_digest
        words[digest] = (run.name, run.record.environment, run.record.mode, digest[:6])
    labels: dict[str, str] = {}
    for length in (1, 3, 4):
        told = {one: ", ".join(words[one][:length]) for one in words if one not in labels}
        uses = Counter(told.values())
        labels |= {one: label for one, label in told.items() if uses[label] == 1 or length == 4}
    return labels


def resolved_config(run: HistoryRun) -> dict[str, Any]:
    """A run's resolved config with dotted keys.

    Raises:
        ConfigError: its config.yaml is missing or does not parse.
    """
    return flatten(read_mapping(run.folder / CONFIG_FILE))


@dataclass(frozen=True)
class Differences:
    """The hyperparameters in which configs differ.

    Attributes:
        table: a row per config, by its label, and a column per hyperparameter, as text.
        along: hyperparameter -> keys that have the same values in every config, as
            `optimizer.learning_rate` has those of `agent.learning_rate`.
    """

    table: pd.DataFrame
    along: dict[str, list[str]]


def differences(configs: Mapping[str, Mapping[str, Any]]) -> Differences:
    """Compare resolved configs (`resolved_config`), given by label."""
    # keys without `agent.`: of those that have one name then, as agent.grpo.beta and grpo.beta, one
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for key in dict.fromkeys(key for config in configs.values() for key in config):
        values = tuple(value_text(config.get(key, ABSENT)) for config in configs.values())
        if len(set(values)) > 1 and key not in LABELS and not key.startswith("logger."):
            found.setdefault(values, {})[key.removeprefix("agent.")] = None
    names = {values: list(keys) for values, keys in found.items()}
    columns = {keys[0]: values for values, keys in names.items()}
    return Differences(
        pd.DataFrame(columns, index=list(configs), dtype=str),
        {keys[0]: keys[1:] for keys in names.values() if keys[1:]},
    )


@dataclass(frozen=True)
class BaseComparison:
    """What a run's hyperparameters have instead of its base config's.

    Attributes:
        base: file of the base config; None where it was not found.
        table: columns `hyperparameter`, `base` and `this run`.
        fault: why nothing can be said.
    """

    base: Path | None
    table: pd.DataFrame
    fault: str = ""


def compare_with_base(run: HistoryRun) -> BaseComparison:
    """Compare a run's agent config with `{agent_id}_v{version}` as it is in the project now."""
    columns = ["hyperparameter", "base", "this run"]
    nothing = pd.DataFrame(columns=columns, dtype=str)
    path = base_config(run.record.agent)
    if path is None:
        agent = run.record.agent
        name = f"{agent.agent_id}_v{agent.version}"
        return BaseComparison(None, nothing, f"the base config {name} is not in {AGENTS_FOLDER}/")
    try:
        base = flatten(resolve_agent(path).agent.hyperparameters())
        own = read_mapping(run.folder / CONFIG_FILE).get("agent")
    except ConfigError as error:
        return BaseComparison(path, nothing, str(error))
    if not isinstance(own, dict):
        return BaseComparison(path, nothing, f"{run.folder / CONFIG_FILE} has no agent")
    own = flatten({key: value for key, value in own.items() if key in Hyperparameters.model_fields})
    rows = [
        (key, value_text(base.get(key, ABSENT)), value_text(own.get(key, ABSENT)))
        for key in dict.fromkeys((*base, *own))
        if base.get(key, ABSENT) != own.get(key, ABSENT)
    ]
    return BaseComparison(path, pd.DataFrame(rows, columns=columns, dtype=str))


def base_config(agent: AgentIdentity) -> Path | None:
    """File of an agent's base config: beside its own, or in config/agents/."""
    beside = [Path(agent.config_path).parent] if agent.config_path else []
    places = (
        folder / f"{agent.agent_id}_v{agent.version}{suffix}"
        for folder in (*beside, AGENTS_FOLDER)
        for suffix in SUFFIXES
    )
    return next(filter(Path.is_file, places), None)


def value_text(value: Any) -> str:
    """A config's value as one would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
