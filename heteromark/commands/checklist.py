"""The list of what should hold before a run is started, looked at item by item.

What is looked at is what training itself would refuse, and where it would fail later: nothing is
trained or loaded. Faults are sorted into the items by the keys that they are told under.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from heteromark.commands.fit import device_faults, requirement_faults
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
from heteromark.config.rules.model_paths import longest_sequence, model_folder, model_paths
from heteromark.runs.store import RunStore, StoreError

_AGENT = r"agent_policy_configs\.agent_configs\.\w+"
_ROLLOUT = r"models\.\w+\.ppo_trainer_config\.actor_rollout_ref\.rollout"
_STORE = "HETEROMARK_STORE"


@dataclass(frozen=True)
class Item:
    """One thing to look at.

    Attributes:
        title: what should hold.
        keys: pattern of the keys whose faults say that it does not.
        told: what to say of a run for which it holds.
        by_rules: whether the rules of a team config decide it, before there is a run.
        of_teams: whether it is about language-model agents alone.
    """

    title: str
    keys: str
    told: Callable[[RunConfig], str]
    by_rules: bool = False
    of_teams: bool = True


@dataclass(frozen=True)
class Verdict:
    """What came of an item: right, wrong with the reasons, or not to be told yet."""

    title: str
    state: Literal["right", "wrong", "open"]
    lines: tuple[str, ...] = ()


def check_named_config(name: str, overrides: Sequence[str], config_folder: Path) -> list[Verdict]:
    """The list for a config of the Hydra entry.

    Raises:
        ConfigError: it cannot be composed, or refers to nothing.
    """
    from hydra.types import RunMode

    loader = open_hydra(config_folder).config_loader
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
    """The list for what a command line names: a config of the Hydra entry, or an agent config.

    Raises:
        ConfigError: options that do not go together, or nothing that a list could be made of.
    """
    if config_name is not None:
        unused = {"--agent-config": agent_config, "--environment": environment}
        for option, value in {**unused, "--set": " ".join(assignments)}.items():
            if value:
                message = "does not go with --config-name, whose overrides are words: key=value"
                raise ConfigError.single(option, message, str(value))
        return check_named_config(config_name, overrides, Path(CONFIG_FOLDER))
    if overrides:
        message = "is one config too many; --agent-config names the one to look at"
        raise ConfigError.single(COMMAND_LINE, message, overrides[0])
    if agent_config is None:
        raise ConfigError.single("--environment", "needs --agent-config", environment)
    request = TrainRequest(agent_config, environment=environment, assignments=tuple(assignments))
    return check_agent_config(request)


def check_agent_config(request: TrainRequest) -> list[Verdict]:
    """The list for an agent config in an environment.

    Raises:
        ConfigFileNotFoundError: there is no such file.
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
    """The list as text."""
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
    """Whether a run may be started."""
    return all(verdict.state == "right" for verdict in verdicts)


def _verdicts(
    faults: Iterable[Fault], config: RunConfig | None, rules_were_asked: bool = False
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
            found.append(Verdict(item.title, "right", tuple(filter(None, [item.told(config)]))))
        elif rules_were_asked and item.by_rules:
            found.append(Verdict(item.title, "right"))
        else:
            found.append(Verdict(item.title, "open", ("not looked at before the rest is mended",)))
    return found


def _is_about(fault: Fault, item: Item) -> bool:
    named = fault.key or fault.file  # an option, such as --environment, stands for its key
    return re.match(rf"(?:{item.keys})(?:\.|$)", named) is not None


def _run_faults(config: RunConfig) -> list[Fault]:
    """What would stop a run, or leave it without something that it asks for; of unknown file."""
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
    message = f"must be below {iterations}, the run's iterations; or 0, to evaluate only at the end"
    return [Fault("", message, "evaluation.interval", interval)]


def _store_faults() -> list[Fault]:
    store = RunStore()
    try:
        store.check_writable()
    except StoreError as error:
        return [Fault("environment", str(error), _STORE, str(store.root))]
    return []


def _roles(config: RunConfig) -> str:
    return ", ".join(dict.fromkeys(config.turn_order or ())) or "those of the task"


def _counts(config: RunConfig) -> str:
    order = config.turn_order or ()
    return f"{len(set(order))} agents, {len(order)} moves in a round"


def _policies(config: RunConfig) -> str:
    order = dict.fromkeys(config.turn_order or ())
    return ", ".join(f"{role} speaks with {config.policy_of(role)}" for role in order)


def _paths(config: RunConfig) -> str:
    told = []
    for path in dict.fromkeys(model_paths(config).values()):
        if path == TINY:
            told.append(f"{path} is built here")
        elif model_folder(path):
            told.append(f"{path} is there")
        else:
            told.append(f"{path} is a name on the hub: needs the network, unless loaded before")
    return ", ".join(told)


def _device(config: RunConfig) -> str:
    import torch

    count = torch.cuda.device_count()
    return f"one model on one device; device is {config.device}, and torch sees {count} GPUs"


def _lengths(config: RunConfig) -> str:
    generation, longest = config.generation, []
    for path in model_paths(config).values():
        folder = model_folder(path)
        if path == TINY:
            longest.append(config.model.tiny.max_length)
        elif folder and (folder / "config.json").is_file():
            longest.append(longest_sequence(folder))
    known = [length for length in longest if length is not None]
    of = f"of {min(known)} tokens" if known else "tokens; how many the model takes is not known yet"
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
        lambda config: ", ".join(config.turn_order or ()) or "as the task says",
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
        "policy names are those of models",
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
        "prompt and response are within the model's length",
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
        "the folder of checkpoints is writable",
        rf"training\.model_checkpoints_dir|{_STORE}",
        lambda _: str(RunStore().root),
        by_rules=True,
        of_teams=False,
    ),
    Item("the rest of the configuration is right", ".*", lambda _: "", of_teams=False),
)
