"""The checklist for a run, checked item by item before the run is started.

The items cover faults that training would reject at its start, and faults that would make it fail
later. Nothing is trained or loaded. A fault belongs to the first item that matches its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from heteromark.commands.fit import device_faults, requirement_faults
from heteromark.commands.hydra_job import loader_of
from heteromark.commands.request import TrainRequest, resolve_request
from heteromark.config.compose.composition import CONFIG_FOLDER
from heteromark.config.compose.hydra_loader import COMMAND_LINE, open_hydra
from heteromark.config.compose.job import (
    has_valid_types,
    ineffective_overrides,
    job_of,
    locate_faults,
)
from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.algorithms import LLM
from heteromark.config.models.llm import TINY
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.kinds import rules_of
from heteromark.config.rules.model_paths import longest_sequence, model_location, model_paths
from heteromark.runs.store import RunStore, StoreError

_AGENT = r"agent_policy_configs\.agent_configs\.\w+"
_ROLLOUT = r"models\.\w+\.ppo_trainer_config\.actor_rollout_ref\.rollout"
_STORE = "HETEROMARK_STORE"


@dataclass(frozen=True)
class Item:
    """One item of the checklist.

    Attributes:
        title: the requirement.
        keys: regular expression; faults with a matching key belong to this item.
        detail: returns the text after the title if the requirement holds for a run.
        by_rules: whether the rules of a team config are enough to check the item.
        of_teams: whether the item applies to language-model agents only.
    """

    title: str
    keys: str
    detail: Callable[[RunConfig], str]
    by_rules: bool = False
    of_teams: bool = True


@dataclass(frozen=True)
class Verdict:
    """The result of an item: right, wrong (with reasons), or open (not checked yet)."""

    title: str
    state: Literal["right", "wrong", "open"]
    lines: tuple[str, ...] = ()


def check_named_config(name: str, overrides: Sequence[str], config_folder: Path) -> list[Verdict]:
    """Check a config of the Hydra entry.

    Raises:
        ConfigError: the config cannot be composed, or contains a broken reference.
    """
    from hydra.types import RunMode

    loader = loader_of(open_hydra(config_folder))
    tree = loader.load_configuration(name, list(overrides), RunMode.RUN)
    try:
        job = job_of(tree, loader)
    except ConfigError as error:
        return _verdicts([*error.faults, *_store_faults()], None, has_valid_types(tree))
    faults = [
        *ineffective_overrides(tree, loader, job),
        *locate_faults(_run_faults(job.run_config), tree, loader),
        *_store_faults(),
    ]
    return _verdicts(faults, job.run_config)


def check(
    config_name: str | None,
    overrides: Sequence[str],
    agent_config: Path | None,
    environment: str | None,
    assignments: Sequence[str],
) -> list[Verdict]:
    """Check the config that a command line names: one of the Hydra entry, or an agent config.

    Raises:
        ConfigError: the options exclude each other, or they name no config.
    """
    if config_name is not None:
        unused = {"--agent-config": agent_config, "--environment": environment}
        for option, value in {**unused, "--set": " ".join(assignments)}.items():
            if value:
                message = "cannot be combined with --config-name; write overrides as key=value"
                raise ConfigError.single(option, message, str(value))
        return check_named_config(config_name, overrides, Path(CONFIG_FOLDER))
    if overrides:
        message = "cannot be combined with --agent-config, which already names the config to check"
        raise ConfigError.single(COMMAND_LINE, message, overrides[0])
    if agent_config is None:
        raise ConfigError.single("--environment", "needs --agent-config", environment)
    request = TrainRequest(agent_config, environment=environment, assignments=tuple(assignments))
    return check_agent_config(request)


def check_agent_config(request: TrainRequest) -> list[Verdict]:
    """Check an agent config in an environment.

    Raises:
        ConfigFileNotFoundError: the file does not exist.
    """
    try:
        config, _ = resolve_request(request)
    except FileNotFoundError:
        raise
    except ConfigError as error:
        return _verdicts(error.faults, None)
    file = f"config/environment/{config.environment.name}.yaml"
    faults = [replace(fault, file=file) for fault in _run_faults(config)]
    return _verdicts([*faults, *_store_faults()], config)


def checklist_lines(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the checklist as lines of text."""
    signs = {"right": "✓", "wrong": "✗", "open": "?"}
    lines = []
    for verdict in verdicts:
        first = f"{signs[verdict.state]} {verdict.title}"
        if verdict.state == "wrong":
            lines += [first, *(f"    {line}" for line in verdict.lines)]
        else:
            lines.append(": ".join([first, *verdict.lines]))
    return lines


def all_right(verdicts: Iterable[Verdict]) -> bool:
    """Return whether every item is right, so that the run can be started."""
    return all(verdict.state == "right" for verdict in verdicts)


def _verdicts(
    faults: Iterable[Fault], config: RunConfig | None, rules_checked: bool = False
) -> list[Verdict]:
    left = list(faults)
    found = []
    for item in ITEMS:
        if item.of_teams and config is not None and config.kind != LLM:
            continue
        own = [fault for fault in left if _is_about(fault, item)]
        left = [fault for fault in left if fault not in own]
        if own:
            lines = tuple(dict.fromkeys(str(f).removeprefix(f"{f.kind}: ") for f in own))
            found.append(Verdict(item.title, "wrong", lines))
        elif config is not None:
            found.append(Verdict(item.title, "right", tuple(filter(None, [item.detail(config)]))))
        elif rules_checked and item.by_rules:
            found.append(Verdict(item.title, "right"))
        else:
            found.append(Verdict(item.title, "open", ("not checked: fix the errors first",)))
    return found


def _is_about(fault: Fault, item: Item) -> bool:
    named = fault.key or fault.file  # for an option such as --environment, `file` is its name
    return re.match(rf"(?:{item.keys})(?:\.|$)", named) is not None


def _run_faults(config: RunConfig) -> list[Fault]:
    """Return everything that would make the run fail or lack an output; the file is unknown."""
    return [
        *requirement_faults(config),
        *rules_of(config.kind).files(config),
        *device_faults(config),
        *_interval_faults(config),
    ]


def _interval_faults(config: RunConfig) -> list[Fault]:
    interval, iterations = config.evaluation.interval, config.num_iterations
    if interval < iterations or not interval:
        return []
    message = f"must be below {iterations}, the run's iterations; 0 evaluates only at the end"
    return [Fault("", message, "evaluation.interval", interval)]


def _store_faults() -> list[Fault]:
    store = RunStore()
    try:
        store.check_writable()
    except StoreError as error:
        return [Fault("environment", str(error), _STORE, str(store.root))]
    return []


def _roles(config: RunConfig) -> str:
    return ", ".join(dict.fromkeys(config.turn_order or ())) or "the task's roles"


def _counts(config: RunConfig) -> str:
    order = config.turn_order or ()
    return f"{len(set(order))} agents, {len(order)} moves per round"


def _policies(config: RunConfig) -> str:
    order = dict.fromkeys(config.turn_order or ())
    return ", ".join(f"{role} uses {config.policy_of(role)}" for role in order)


def _paths(config: RunConfig) -> str:
    found = []
    for path in dict.fromkeys(model_paths(config).values()):
        if path == TINY:
            found.append(f"{path} (built in)")
        elif place := model_location(path):
            found.append(f"{path} ({'folder' if place.is_dir() else 'file'} found)")
        else:
            found.append(f"{path} (hub name: downloaded unless cached)")
    return ", ".join(found)


def _device(config: RunConfig) -> str:
    import torch

    count = torch.cuda.device_count()
    return f"one model on one device; device is {config.device}, torch sees {count} GPUs"


def _lengths(config: RunConfig) -> str:
    generation = config.generation
    longest: list[int | None] = []
    for path in model_paths(config).values():
        folder = model_location(path)
        if path == TINY:
            longest.append(config.model.tiny.max_length)
        elif folder and (folder / "config.json").is_file():
            longest.append(longest_sequence(folder))
    known = [length for length in longest if length is not None]
    of = f"of {min(known)} tokens" if known else "tokens; the model's length is not known yet"
    return f"{generation.max_prompt_length} + {generation.max_response_length} {of}"


def _interval(config: RunConfig) -> str:
    interval = config.evaluation.interval
    return f"every {interval} of {config.num_iterations} steps" if interval else "only at the end"


ITEMS = (
    Item(
        "the environment is registered",
        r"env|--environment|environment\.(?:name|task|kwargs|text\.task)|env_type|"
        r"sweep\.environment",
        lambda config: config.environment.name,
        by_rules=True,
        of_teams=False,
    ),
    Item(
        "the agents are registered",
        rf"{_AGENT}\.(?:name|role)|environment\.text\.templates|agent\.algorithm",
        _roles,
    ),
    Item(
        "every name in turn_order is an agent, and every agent is in it",
        r"multi_agent_interaction\.turn_order|environment\.text\.turn_order",
        lambda config: ", ".join(config.turn_order or ()) or "the task's order",
        by_rules=True,
    ),
    Item(
        "num_agents matches",
        r"agent_policy_configs\.(?:num_agents|policy_list)|"
        r"multi_agent_interaction\.num_interacting_agents",
        _counts,
        by_rules=True,
    ),
    Item(
        "every policy name is the name of a model",
        rf"{_AGENT}\.policy_name|(?:base_)?models\.\w+\.name|model\.roles|model\.by_policy$|"
        r"(?:loss|optimizer)\.groups",
        _policies,
        by_rules=True,
    ),
    Item(
        "model paths exist",
        r"(?:base_)?models\.\w+\.path|models\.\w+\..*\.model\.path|model\.path|"
        r"model\.by_policy\.\w+\.path",
        _paths,
    ),
    Item(
        "GPUs and tensor-parallel size fit",
        rf"resource|training\.device|device|{_ROLLOUT}\.tensor_model_parallel_size|"
        r"models\.\w+\..*n_(?:training_)?gpus.*",
        _device,
        of_teams=False,
    ),
    Item(
        "prompt and response fit into the model's length",
        rf"training\.max_\w+_length|generation|model\.tiny\.max_length|{_ROLLOUT}\.\w+_length|"
        r"models\.\w+\.ppo_trainer_config\.data",
        _lengths,
    ),
    Item(
        "val_freq is below the number of steps",
        r"training\.val_freq|evaluation\.interval",
        _interval,
        by_rules=True,
        of_teams=False,
    ),
    Item(
        "the checkpoint folder is writable",
        rf"training\.model_checkpoints_dir|{_STORE}",
        lambda _: str(RunStore().root),
        by_rules=True,
        of_teams=False,
    ),
    Item("the rest of the configuration is valid", ".*", lambda _: "", of_teams=False),
)
