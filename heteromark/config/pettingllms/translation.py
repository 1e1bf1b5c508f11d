"""A team config as the run config that it means, with the documented key of every value.

What a documented key says is put where a run config says it, and remembered as said there: so a
fault that the run config's own rules find is told under the key that a user would change, and a
section of a run config beside the documented ones may not say the same once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from heteromark.config.errors import ConfigError, Fault, faults_of
from heteromark.config.models.algorithms import ROW_OF
from heteromark.config.models.llm import TINY, GRPOConfig, LLMConfig, SchedulerConfig
from heteromark.config.nested import flatten, lies_in, merge, overlap, unflatten
from heteromark.config.pettingllms.rules import is_file, role_of, task_of, team_faults
from heteromark.config.pettingllms.sections import RUN_SECTIONS, TeamModel, TeamSections

_TOGETHER = 64  # problems worked on together, unless environment.num_parallel_envs says otherwise
_ORDER = "multi_agent_interaction.turn_order"
_AGENTS = "agent_policy_configs.agent_configs"
# What a run config's remedy would be wrong about, as several documented keys say one of its values.
_REMEDIES = {
    "device": "needs a CUDA GPU, and torch sees none on this machine; set training.device to auto "
    "or cpu and resource.n_gpus_per_node to null or 0, or check the driver and that torch was "
    "installed with CUDA",
}


def is_team(data: Mapping[str, Any]) -> bool:
    """Whether a composed config is a team config, rather than a run config."""
    return "base_models" in data or "agent_policy_configs" in data


@dataclass
class Translation:
    """Values of a run config, and of each that a documented key says, which one that is.

    Attributes:
        values: by dotted key of a run config.
        said_by: the documented key, by dotted key of a run config.
    """

    values: dict[str, Any] = field(default_factory=dict)
    said_by: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, value: Any, documented: str) -> None:
        """Say a value of a run config."""
        self.values[key] = value
        self.said_by[key] = documented

    def documented(self, key: str) -> str:
        """The key that a user would change, for a key of the run config."""
        place = _overlapping(key, self.said_by)
        return self.said_by[place] if place else key

    def in_documented_words(self, text: str) -> str:
        """A message with every key of the run config replaced by the documented one."""
        return re.sub(
            r"[a-z_]+(?:\.\w+)+", lambda found: self.said_by.get(found[0], found[0]), text
        )


def team_job_data(data: Mapping[str, Any]) -> tuple[dict[str, Any], Translation]:
    """What a job is made of, of a resolved team config.

    Raises:
        ConfigError: all faults that its own types and rules find, by documented key.
    """
    try:
        sections = TeamSections.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, TeamSections, "")) from error
    if faults := list(team_faults(sections)):
        raise ConfigError(faults)
    translation = _translated(sections)
    extra = {name: getattr(sections, name) for name in RUN_SECTIONS if getattr(sections, name)}
    if faults := list(_said_twice(extra, translation)):
        raise ConfigError(faults)
    values = merge(_defaults(sections), unflatten(translation.values), extra)
    return {**values, "agent": _agent(sections, values)}, translation


def as_documented(faults: Iterable[Fault], translation: Translation, data: Any) -> list[Fault]:
    """Faults of the run config under the keys of the team config that it was made of.

    The agent config is made of what the components are told: a fault of it is one of theirs too.
    """
    faults = list(faults)
    of_components = [fault for fault in faults if not fault.key.startswith("agent.")]
    told = []
    for fault in of_components or faults:
        key = translation.documented(fault.key)
        value = fault.value if key == fault.key else _value_at(data, key)
        message = _REMEDIES.get(fault.key) or translation.in_documented_words(fault.message)
        told.append(replace(fault, key=key, value=value, message=message))
    return told


def idle_documented(
    given: Mapping[str, Any], idle: Mapping[str, str], translation: Translation, file: str
) -> Iterator[Fault]:
    """A fault for every given documented key all of whose values change nothing in the run."""
    for key, value in given.items():
        places = [
            place for place, source in translation.said_by.items() if overlap(source, key)
        ] or [key]
        reasons = [
            next((reason for section, reason in idle.items() if lies_in(place, section)), "")
            for place in places
        ]
        if all(reasons):
            message = f"has no effect: {translation.in_documented_words(reasons[0])}"
            yield Fault(file, message, key, value)


def _translated(sections: TeamSections) -> Translation:
    made = Translation()
    _put_training(made, sections)
    _put_task(made, sections)
    _put_models(made, sections)
    _put_updates(made, sections)
    return made


def _put_training(made: Translation, sections: TeamSections) -> None:
    training, env = sections.training, sections.env
    frames = training.train_batch_size * training.train_sample_num * env.max_turns
    device = {None: training.device, 0: "cpu", 1: "cuda"}[sections.resource.n_gpus_per_node]
    gpus_say = sections.resource.n_gpus_per_node is not None
    for key, value, name in (
        ("project", training.project_name, "project_name"),
        ("logger.project", training.project_name, "project_name"),
        ("experiment_name", training.experiment_name, "experiment_name"),
        ("collector.frames_per_batch", frames, "train_batch_size"),
        ("training.total_frames", frames * training.total_training_steps, "total_training_steps"),
        ("grpo.num_generations", training.train_sample_num, "train_sample_num"),
        ("generation.temperature", training.sample_temperature, "sample_temperature"),
        ("generation.max_prompt_length", training.max_prompt_length, "max_prompt_length"),
        ("generation.max_response_length", training.max_response_length, "max_response_length"),
        ("environment.text.max_prompt_length", training.max_prompt_length, "max_prompt_length"),
        *(
            (
                "environment.text.max_response_length",
                training.max_response_length,
                "max_response_length",
            ),
        ),
        ("environment.text.resample_freq", training.resample_freq, "resample_freq"),
        ("environment.text.epoch_size", training.epoch_size, "epoch_size"),
        ("evaluation.interval", training.val_freq, "val_freq"),
        ("evaluation.passes", training.validate_sample_num, "validate_sample_num"),
        ("logger.backends", [n for n in training.logger if n != "console"], "logger"),
        *(
            (f"training.{name}", getattr(training, name), name)
            for name in (
                *("num_epochs", "max_grad_norm", "num_threads", "checkpoint_interval"),
                "keep_checkpoints",
            )
        ),
    ):
        made.put(key, value, f"training.{name}")
    made.put("device", device, "resource.n_gpus_per_node" if gpus_say else "training.device")
    for key in ("mode", "seed", "tags", "optimizer_type"):
        made.put(key, getattr(sections, key), key)


def _put_task(made: Translation, sections: TeamSections) -> None:
    env, task = sections.env, str(task_of(sections))
    order = sections.multi_agent_interaction.turn_order
    roles = {name: str(role_of(sections, name)) for name in sections.agents}
    made.put("environment.name", task.rpartition(".")[2].replace(":", "_"), "env.name")
    made.put("env_type", "text", "env.name")
    made.put("environment.text.max_turns", env.max_turns, "env.max_turns")
    made.put("environment.text.task", task, "env.name")
    if _needs_cast(sections, roles):
        made.put("environment.text.cast", roles, _AGENTS)
        roles = {name: name for name in roles}
    if is_file(env.dataset):
        made.put("environment.text.math.source", "file", "env.dataset")
        made.put("environment.text.math.file", env.dataset, "env.dataset")
    made.put("environment.text.turn_order", [roles[name] for name in order], _ORDER)
    policies = {roles[name]: agent.policy_name for name, agent in sections.agents.items()}
    made.put("model.roles", policies, _AGENTS)


def _needs_cast(sections: TeamSections, roles: Mapping[str, str]) -> bool:
    """Whether two agents play one role with different models: then each is a role of its own."""
    policies: dict[str, set[str]] = {}
    for name, agent in sections.agents.items():
        policies.setdefault(roles[name], set()).add(agent.policy_name)
    return any(len(names) > 1 for names in policies.values())


def _put_models(made: Translation, sections: TeamSections) -> None:
    places = {model.name: (key, model.path) for key, model in sections.base_models.items()}
    first_place, first_path = next(iter(places.values()))
    made.put("model.path", first_path, f"base_models.{first_place}.path")
    for name, (place, path) in places.items():
        if path != first_path:
            made.put(f"model.by_policy.{name}.path", path, f"base_models.{place}.path")
    for key in ("specialization", "lora_rank", "lora_alpha"):
        made.put(f"model.{key}", getattr(sections, key), key)
    trust = sections.resource.trust_remote_code
    made.put("model.trust_remote_code", trust, "resource.trust_remote_code")


def _put_updates(made: Translation, sections: TeamSections) -> None:
    for key in ("filter_method", "filter_ratio"):
        for place, model in sections.models.items():
            if (value := getattr(model.ppo_trainer_config, key)) is not None:
                made.put(f"grpo.{key}", value, f"models.{place}.ppo_trainer_config.{key}")
                break
    for target, *within in (
        ("optimizer.learning_rate", "optim", "lr"),
        ("optimizer.weight_decay", "optim", "weight_decay"),
        ("loss.clip_epsilon", "clip_ratio"),
    ):
        said = {
            place: (model.name, value)
            for place, model in sections.models.items()
            if (value := _of_actor(model, within)) is not None
        }
        section, _, quantity = target.partition(".")
        where = f"ppo_trainer_config.actor_rollout_ref.actor.{'.'.join(within)}"
        covered = {name for name, _ in said.values()}
        everyone = covered == {model.name for model in sections.base_models.values()}
        if everyone and len({value for _, value in said.values()}) == 1:
            place, (_, value) = next(iter(said.items()))
            made.put(target, value, f"models.{place}.{where}")
            continue
        for place, (name, value) in said.items():
            made.put(f"{section}.groups.{name}.{quantity}", value, f"models.{place}.{where}")


def _of_actor(model: TeamModel, within: Iterable[str]) -> Any:
    value: Any = model.ppo_trainer_config.actor_rollout_ref.actor
    for key in within:
        value = getattr(value, key)
    return value


def _defaults(sections: TeamSections) -> dict[str, Any]:
    """What holds where nothing is said; not the defaults of runs of other kinds."""
    training, env = sections.training, sections.env
    paths = {model.path for model in sections.base_models.values()}
    warm_up = sections.environment.get("text", {})
    steps = warm_up.get("warm_up_steps", 0) if isinstance(warm_up, dict) and TINY in paths else 0
    frames = training.train_batch_size * training.train_sample_num * env.max_turns
    return {
        "policy_type": "text",
        "loss_type": ROW_OF[_algorithm(sections)].loss,
        "environment": {"num_parallel_envs": _TOGETHER},
        "policy": {},
        "loss": {},
        "optimizer": {},
        "collector": {},
        "replay_buffer": {"minibatch_size": frames},
        "evaluation": {"preset": "sampled"},
        "model": {"warm_up": {"steps": steps}},
    }


def _algorithm(sections: TeamSections) -> str:
    return "GRPO" if len(sections.agents) == 1 else "AT-GRPO"


def _agent(sections: TeamSections, values: Mapping[str, Any]) -> dict[str, Any]:
    """The agent config that would say the same, for the lists of runs and their comparison."""
    name = (
        sections.training.experiment_name
        or f"{sections.env.name.partition(':')[2] or sections.env.name}_team"
    )
    agent_id = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]
    if not agent_id[:1].isalpha():
        agent_id = f"team_{agent_id}"[:64]
    frames = values["collector"]["frames_per_batch"]
    told = {
        "learning_rate": values["optimizer"].get("learning_rate"),
        "n_steps": frames,
        "batch_size": _divisor(values["replay_buffer"].get("minibatch_size"), frames),
        "n_epochs": values["training"]["num_epochs"],
    }
    return {
        "agent_id": agent_id,
        "name": name,
        "algorithm": _algorithm(sections),
        "description": f"{', '.join(sections.agents)} on {sections.env.name}",
        "network": {"policy": "TextPolicy"},
        "ppo": {
            "max_grad_norm": values["training"]["max_grad_norm"],
            **_chosen(values["loss"], {"clip_epsilon": "clip_range"}),
        },
        "grpo": _known(values.get("grpo", {}), GRPOConfig)
        | {"temperature": values["generation"]["temperature"]},
        "llm": _known(values["model"], LLMConfig),
        "scheduler": _known(values.get("scheduler", {}), SchedulerConfig),
        **{key: value for key, value in told.items() if value is not None},
    }


def _divisor(value: Any, whole: int) -> int:
    """A value if it divides the whole; else the whole: `team_rules` says what is wrong."""
    return value if isinstance(value, int) and value > 0 and whole % value == 0 else whole


def _chosen(section: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {name: section[key] for key, name in names.items() if key in section}


def _known(section: Mapping[str, Any], model: type) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key in model.model_fields}


def _said_twice(extra: Mapping[str, Any], translation: Translation) -> Iterator[Fault]:
    for key, value in flatten(dict(extra)).items():
        place = _overlapping(key, translation.said_by)
        if place:
            documented = translation.said_by[place]
            yield Fault(
                "", f"is said by {documented} here; change that, and leave this out", key, value
            )


def _overlapping(key: str, known: Mapping[str, str]) -> str:
    """The longest of the known keys that is the key, lies within it or has it within; or empty."""
    return max((each for each in known if overlap(each, key)), key=len, default="")


def _value_at(data: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data
