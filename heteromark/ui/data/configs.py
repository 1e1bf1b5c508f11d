"""Group runs by config, and compare configs."""

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
# Keys of a resolved config that identify a run but are not hyperparameters.
LABELS = frozenset(
    {"seed", "mode", "agent.agent_id", "agent.name", "agent.version"}
    | {"agent.sweep_variant", "agent.description", "environment.name"}
)
ABSENT = "-"  # the config lacks this key


@dataclass(frozen=True)
class ConfigRuns:
    """The runs of one config, sorted by seed.

    Attributes:
        digest: digest of the config.
        label: short name, extended until it is unique.
    """

    digest: str
    label: str
    runs: tuple[HistoryRun, ...]


def configs_of(runs: Sequence[HistoryRun]) -> list[ConfigRuns]:
    """Return the configs of all readable runs, in the order in which they were first trained.

    New configs are appended, so that the index of a config never changes.
    """
    by_digest: defaultdict[str, list[HistoryRun]] = defaultdict(list)
    for run in reversed(runs):  # `runs` has the newest first
        if run.record is not None:
            by_digest[run.record.config_digest].append(run)
    labels = _labels({digest: members[0] for digest, members in by_digest.items()})
    return [
        ConfigRuns(digest, labels[digest], tuple(sorted(members, key=_seed)))
        for digest, members in by_digest.items()
    ]


def _seed(run: HistoryRun) -> int:
    return run.readable_record().seed


def _labels(examples: Mapping[str, HistoryRun]) -> dict[str, str]:
    """Return a label per digest: the short name, plus environment, mode and digest if ambiguous."""
    words = {}
    for digest, run in examples.items():
        record = run.readable_record()
        words[digest] = (run.name, record.environment, record.mode, digest[:6])
    labels: dict[str, str] = {}
    for length in (1, 3, 4):
        candidates = {
            digest: ", ".join(parts[:length])
            for digest, parts in words.items()
            if digest not in labels
        }
        uses = Counter(candidates.values())
        labels |= {
            digest: label for digest, label in candidates.items() if uses[label] == 1 or length == 4
        }
    return labels


def resolved_config(run: HistoryRun) -> dict[str, Any]:
    """Return the resolved config of a run, with dotted keys.

    Raises:
        ConfigError: config.yaml is missing or invalid.
    """
    return flatten(read_mapping(run.folder / CONFIG_FILE))


@dataclass(frozen=True)
class Differences:
    """The hyperparameters in which configs differ.

    Attributes:
        table: one row per config label, one column per hyperparameter; values as text.
        aliases: hyperparameter -> keys with the same value in every config. Example:
            `learning_rate` -> `optimizer.learning_rate`.
    """

    table: pd.DataFrame
    aliases: dict[str, list[str]]


def differences(configs: Mapping[str, Mapping[str, Any]]) -> Differences:
    """Compare resolved configs (from `resolved_config`), keyed by label."""
    # values -> keys. Dropping `agent.` merges duplicates such as agent.grpo.beta and grpo.beta.
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
    """The hyperparameters in which a run differs from its base config.

    Attributes:
        base: file of the base config; None if it was not found.
        table: columns `hyperparameter`, `base` and `this run`.
        error: why the comparison failed; empty if it succeeded.
    """

    base: Path | None
    table: pd.DataFrame
    error: str = ""


def compare_with_base(run: HistoryRun) -> BaseComparison:
    """Compare a readable run's agent config with the project's `{agent_id}_v{version}` file."""
    columns = ["hyperparameter", "base", "this run"]
    empty = pd.DataFrame(columns=columns, dtype=str)
    agent = run.readable_record().agent
    path = base_config(agent)
    if path is None:
        name = f"{agent.agent_id}_v{agent.version}"
        return BaseComparison(None, empty, f"base config {name} not found in {AGENTS_FOLDER}/")
    try:
        base = flatten(resolve_agent(path).agent.hyperparameters())
        own = read_mapping(run.folder / CONFIG_FILE).get("agent")
    except ConfigError as error:
        return BaseComparison(path, empty, str(error))
    if not isinstance(own, dict):
        return BaseComparison(path, empty, f"{run.folder / CONFIG_FILE} has no section `agent`")
    own = flatten({key: value for key, value in own.items() if key in Hyperparameters.model_fields})
    rows = [
        (key, value_text(base.get(key, ABSENT)), value_text(own.get(key, ABSENT)))
        for key in dict.fromkeys((*base, *own))
        if base.get(key, ABSENT) != own.get(key, ABSENT)
    ]
    return BaseComparison(path, pd.DataFrame(rows, columns=columns, dtype=str))


def base_config(agent: AgentIdentity) -> Path | None:
    """Return the file of an agent's base config: next to its config file, or in config/agents/."""
    own_folder = [Path(agent.config_path).parent] if agent.config_path else []
    paths = (
        folder / f"{agent.agent_id}_v{agent.version}{suffix}"
        for folder in (*own_folder, AGENTS_FOLDER)
        for suffix in SUFFIXES
    )
    return next(filter(Path.is_file, paths), None)


def value_text(value: Any) -> str:
    """Return a config value as written in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
