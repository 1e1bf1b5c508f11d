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
from heteromark.config.models.agent import PPOConfig
from heteromark.config.models.algorithms import ROW_OF
from heteromark.config.models.llm import TINY, GRPOConfig, LLMConfig, SchedulerConfig
from heteromark.config.nested import flatten, lies_in, merge, overlap, unflatten, value_at
from heteromark.config.pettingllms.rules import is_file, role_of, task_of, team_faults
from heteromark.config.pettingllms.sections import RunSections, TeamSections

# What a run config says of a team, by where a team config says the same.
_COPIED = {
    "mode": "mode",
    "seed": "seed",
    "tags": "tags",
    "optimizer_type": "optimizer_type",
    "project": "training.project_name",
    "logger.project": "training.project_name",
    "experiment_name": "training.experiment_name",
    "grpo.num_generations": "training.train_sample_num",
    "generation.temperature": "training.sample_temperature",
    "generation.max_prompt_length": "training.max_prompt_length",
    "generation.max_response_length": "training.max_response_length",
    "environment.text.max_prompt_length": "training.max_prompt_length",
    "environment.text.max_response_length": "training.max_response_length",
    "environment.text.resample_freq": "training.resample_freq",
    "environment.text.epoch_size": "training.epoch_size",
    "environment.text.max_turns": "env.max_turns",
    "evaluation.interval": "training.val_freq",
    "evaluation.passes": "training.validate_sample_num",
    "training.num_epochs": "training.num_epochs",
    "training.max_grad_norm": "training.max_grad_norm",
    "training.num_threads": "training.num_threads",
    "training.checkpoint_interval": "training.checkpoint_interval",
    "training.keep_checkpoints": "training.keep_checkpoints",
    "model.specialization": "specialization",
    "model.lora_rank": "lora_rank",
    "model.lora_alpha": "lora_alpha",
    "model.trust_remote_code": "resource.trust_remote_code",
}
# What it says of updates, by where the models of a team config say it, each for itself.
_OF_ACTORS = {
    "optimizer.learning_rate": "optim.lr",
    "optimizer.weight_decay": "optim.weight_decay",
    "loss.clip_epsilon": "clip_ratio",
}
_TOGETHER = 64  # problems worked on together, unless environment.num_parallel_envs says otherwise
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
        places = (place for place in self.said_by if overlap(place, key))
        return self.said_by.get(max(places, key=len, default=""), key)

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
    extra = {name: said for name in RunSections.model_fields if (said := getattr(sections, name))}
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
        value = fault.value if key == fault.key else value_at(data, key)
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
    for key, documented in _COPIED.items():
        made.put(key, value_at(sections, documented), documented)
    _put_training(made, sections)
    _put_task(made, sections)
    _put_models(made, sections)
    _put_updates(made, sections)
    return made


def _put_training(made: Translation, sections: TeamSections) -> None:
    training, frames = sections.training, sections.frames_per_step
    total = frames * training.total_training_steps
    made.put("collector.frames_per_batch", frames, "training.train_batch_size")
    made.put("training.total_frames", total, "training.total_training_steps")
    backends = [name for name in training.logger if name != "console"]
    made.put("logger.backends", backends, "training.logger")
    gpus = sections.resource.n_gpus_per_node
    if gpus is None:
        made.put("device", training.device, "training.device")
    else:
        made.put("device", ("cpu", "cuda")[gpus], "resource.n_gpus_per_node")


def _put_task(made: Translation, sections: TeamSections) -> None:
    env, task = sections.env, str(task_of(sections))
    roles = {name: str(role_of(sections, name)) for name in sections.agents}
    made.put("environment.name", task.rpartition(".")[2].replace(":", "_"), "env.name")
    made.put("env_type", "text", "env.name")
    made.put("environment.text.task", task, "env.name")
    if _needs_cast(sections, roles):
        made.put("environment.text.cast", roles, _AGENTS)
        roles = {name: name for name in roles}
    if is_file(env.dataset):
        made.put("environment.text.math.source", "file", "env.dataset")
        made.put("environment.text.math.file", env.dataset, "env.dataset")
    order = [roles[name] for name in sections.multi_agent_interaction.turn_order]
    made.put("environment.text.turn_order", order, "multi_agent_interaction.turn_order")
    policies = {roles[name]: agent.policy_name for name, agent in sections.agents.items()}
    made.put("model.roles", policies, _AGENTS)


def _needs_cast(sections: TeamSections, roles: Mapping[str, str]) -> bool:
    """Whether two agents play one role with different models: then each is a role of its own."""
    played = {(roles[name], agent.policy_name) for name, agent in sections.agents.items()}
    return len(played) > len(set(roles.values()))


def _put_models(made: Translation, sections: TeamSections) -> None:
    first_place, first = next(iter(sections.base_models.items()))
    made.put("model.path", first.path, f"base_models.{first_place}.path")
    for place, model in sections.base_models.items():
        if model.path != first.path:
            key = f"model.by_policy.{model.name}.path"
            made.put(key, model.path, f"base_models.{place}.path")


def _put_updates(made: Translation, sections: TeamSections) -> None:
    for key in ("filter_method", "filter_ratio"):
        for place, model in sections.models.items():
            if (value := getattr(model.ppo_trainer_config, key)) is not None:
                made.put(f"grpo.{key}", value, f"models.{place}.ppo_trainer_config.{key}")
                break
    for target, within in _OF_ACTORS.items():
        where = f"ppo_trainer_config.actor_rollout_ref.actor.{within}"
        said = {
            place: (model.name, value)
            for place, model in sections.models.items()
            if (value := value_at(model, where)) is not None
        }
        covers_all = {name for name, _ in said.values()} == set(sections.paths)
        if covers_all and len({value for _, value in said.values()}) == 1:
            place, (_, value) = next(iter(said.items()))
            made.put(target, value, f"models.{place}.{where}")
            continue
        section, _, quantity = target.partition(".")
        for place, (name, value) in said.items():
            made.put(f"{section}.groups.{name}.{quantity}", value, f"models.{place}.{where}")


def _defaults(sections: TeamSections) -> dict[str, Any]:
    """What holds where nothing is said; not the defaults of runs of other kinds."""
    warm_up = sections.environment.get("text", {})
    is_tiny = TINY in sections.paths.values() and isinstance(warm_up, dict)
    return {
        "policy_type": "text",
        "loss_type": ROW_OF[_algorithm(sections)].loss,
        "environment": {"num_parallel_envs": _TOGETHER},
        "policy": {},
        "loss": {},
        "optimizer": {},
        "collector": {},
        "replay_buffer": {"minibatch_size": sections.frames_per_step},
        "evaluation": {"preset": "sampled"},
        "model": {"warm_up": {"steps": warm_up.get("warm_up_steps", 0) if is_tiny else 0}},
    }


def _algorithm(sections: TeamSections) -> str:
    return "GRPO" if len(sections.agents) == 1 else "AT-GRPO"


def _agent(sections: TeamSections, values: Mapping[str, Any]) -> dict[str, Any]:
    """The agent config that would say the same, for the lists of runs and their comparison."""
    environment = sections.env.name.rpartition(":")[2]
    name = sections.training.experiment_name or f"{environment}_team"
    agent_id = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]
    if not agent_id[:1].isalpha():
        agent_id = f"team_{agent_id}"[:64]
    frames = values["collector"]["frames_per_batch"]
    minibatch = values["replay_buffer"].get("minibatch_size")
    fits = isinstance(minibatch, int) and minibatch > 0 and frames % minibatch == 0
    ppo = {
        "max_grad_norm": values["training"]["max_grad_norm"],
        "clip_range": values["loss"].get("clip_epsilon", PPOConfig().clip_range),
    }
    agent = {
        "agent_id": agent_id,
        "name": name,
        "algorithm": _algorithm(sections),
        "description": f"{', '.join(sections.agents)} on {sections.env.name}",
        "n_steps": frames,
        "batch_size": minibatch if fits else frames,  # the rules say what is wrong with it
        "n_epochs": values["training"]["num_epochs"],
        "network": {"policy": "TextPolicy"},
        "ppo": ppo,
        "grpo": _known(values.get("grpo", {}), GRPOConfig)
        | {"temperature": values["generation"]["temperature"]},
        "llm": _known(values["model"], LLMConfig),
        "scheduler": _known(values.get("scheduler", {}), SchedulerConfig),
    }
    rate = values["optimizer"].get("learning_rate")
    return agent if rate is None else {**agent, "learning_rate": rate}


def _known(section: Mapping[str, Any], model: type) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key in model.model_fields}


def _said_twice(extra: Mapping[str, Any], translation: Translation) -> Iterator[Fault]:
    for key, value in flatten(dict(extra)).items():
        if (documented := translation.documented(key)) != key:
            message = f"is said by {documented} here; change that, and leave this out"
            yield Fault("", message, key, value)
