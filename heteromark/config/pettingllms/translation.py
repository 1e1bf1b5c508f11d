"""Translate a team config into a run config, recording the team-config key of every value.

The recorded keys have two uses. A fault found by the run config's rules is reported under the key
in the team config. And a run-config section in a team config cannot set the same value again.

In this module, a "documented key" is a key of the team config.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from heteromark.config.errors import ConfigError, Fault, faults_of
from heteromark.config.models.agent import PPOConfig
from heteromark.config.models.algorithms import ROW_OF
from heteromark.config.models.llm import TINY, GRPOConfig, LLMConfig, SchedulerConfig
from heteromark.config.nested import flatten, lies_in, merge, overlap, unflatten, value_at
from heteromark.config.pettingllms.rules import is_file, role_of, task_of, team_faults
from heteromark.config.pettingllms.sections import RunSections, TeamSections

# Run-config keys and the team-config keys that set them.
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
# Run-config keys that each model of a team config can set in its actor section.
_OF_ACTORS = {
    "optimizer.learning_rate": "optim.lr",
    "optimizer.weight_decay": "optim.weight_decay",
    "loss.clip_epsilon": "clip_ratio",
}
_NUM_PARALLEL = 64  # default of environment.num_parallel_envs: problems in parallel
_AGENTS = "agent_policy_configs.agent_configs"
# Messages for run-config keys that several documented keys set.
_MESSAGES = {
    "device": "needs a CUDA GPU, but torch finds none on this machine; set training.device to auto "
    "or cpu and resource.n_gpus_per_node to null or 0, or check the driver and that torch was "
    "installed with CUDA",
}


def is_team(data: Mapping[str, Any]) -> bool:
    """Return whether a composed config is a team config, not a run config."""
    return "base_models" in data or "agent_policy_configs" in data


@dataclass
class Translation:
    """Values of a run config, and the documented keys that set them.

    Attributes:
        values: the values by dotted run-config key.
        documented_keys: the documented keys by dotted run-config key.
    """

    values: dict[str, Any] = field(default_factory=dict)
    documented_keys: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: Any, documented: str) -> None:
        """Set a run-config value and record its documented key."""
        self.values[key] = value
        self.documented_keys[key] = documented

    def documented_key(self, key: str) -> str:
        """Return the documented key that sets a run-config key; without one, the key itself."""
        matching = (each for each in self.documented_keys if overlap(each, key))
        return self.documented_keys.get(max(matching, key=len, default=""), key)

    def with_documented_keys(self, text: str) -> str:
        """Replace every run-config key in a message by its documented key."""
        return re.sub(
            r"[a-z_]+(?:\.\w+)+", lambda found: self.documented_keys.get(found[0], found[0]), text
        )


def team_job_data(data: Mapping[str, Any]) -> tuple[dict[str, Any], Translation]:
    """Return the values of a job, translated from a resolved team config, and the translation.

    Raises:
        ConfigError: all faults of the team config's types and rules, by documented key.
    """
    try:
        sections = TeamSections.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, TeamSections, "")) from error
    if faults := list(team_faults(sections)):
        raise ConfigError(faults)
    translation = _translate(sections)
    extra = {
        name: section for name in RunSections.model_fields if (section := getattr(sections, name))
    }
    if faults := list(_duplicate_faults(extra, translation)):
        raise ConfigError(faults)
    values = merge(_defaults(sections), unflatten(translation.values), extra)
    return {**values, "agent": _agent(sections, values)}, translation


def as_documented(faults: Iterable[Fault], translation: Translation, data: Any) -> list[Fault]:
    """Report faults of the run config under the documented keys.

    The agent config is derived from the components, so its faults are dropped if a component has
    one too.
    """
    faults = list(faults)
    of_components = [fault for fault in faults if not fault.key.startswith("agent.")]
    documented = []
    for fault in of_components or faults:
        key = translation.documented_key(fault.key)
        value = fault.value if key == fault.key else value_at(data, key)
        message = _MESSAGES.get(fault.key) or translation.with_documented_keys(fault.message)
        documented.append(replace(fault, key=key, value=value, message=message))
    return documented


def ineffective_team_keys(
    given: Mapping[str, Any], ineffective: Mapping[str, str], translation: Translation, file: str
) -> Iterator[Fault]:
    """Yield a fault for each documented key that sets only values without effect.

    Args:
        given: the explicitly set values by documented key.
        ineffective: the run-config keys without effect, with the reasons.
        translation: the translation of the team config.
        file: the file or option that set the values.
    """
    for key, value in given.items():
        run_keys = [
            run_key
            for run_key, documented in translation.documented_keys.items()
            if overlap(documented, key)
        ] or [key]
        reasons = [
            next((text for section, text in ineffective.items() if lies_in(run_key, section)), "")
            for run_key in run_keys
        ]
        if all(reasons):
            message = f"has no effect: {translation.with_documented_keys(reasons[0])}"
            yield Fault(file, message, key, value)


def _translate(sections: TeamSections) -> Translation:
    translation = Translation()
    for key, documented in _COPIED.items():
        translation.set(key, value_at(sections, documented), documented)
    _set_training(translation, sections)
    _set_task(translation, sections)
    _set_models(translation, sections)
    _set_updates(translation, sections)
    return translation


def _set_training(translation: Translation, sections: TeamSections) -> None:
    training, frames = sections.training, sections.frames_per_step
    total = frames * training.total_training_steps
    translation.set("collector.frames_per_batch", frames, "training.train_batch_size")
    translation.set("training.total_frames", total, "training.total_training_steps")
    backends = [name for name in training.logger if name != "console"]
    translation.set("logger.backends", backends, "training.logger")
    gpus = sections.resource.n_gpus_per_node
    if gpus is None:
        translation.set("device", training.device, "training.device")
    else:
        translation.set("device", ("cpu", "cuda")[gpus], "resource.n_gpus_per_node")


def _set_task(translation: Translation, sections: TeamSections) -> None:
    env, task = sections.env, str(task_of(sections))
    roles = {name: str(role_of(sections, name)) for name in sections.agents}
    translation.set("environment.name", task.rpartition(".")[2].replace(":", "_"), "env.name")
    translation.set("env_type", "text", "env.name")
    translation.set("environment.text.task", task, "env.name")
    if _needs_cast(sections, roles):
        translation.set("environment.text.cast", roles, _AGENTS)
        roles = {name: name for name in roles}
    if is_file(env.dataset):
        translation.set("environment.text.math.source", "file", "env.dataset")
        translation.set("environment.text.math.file", env.dataset, "env.dataset")
    order = [roles[name] for name in sections.multi_agent_interaction.turn_order]
    translation.set("environment.text.turn_order", order, "multi_agent_interaction.turn_order")
    policies = {roles[name]: agent.policy_name for name, agent in sections.agents.items()}
    translation.set("model.roles", policies, _AGENTS)


def _needs_cast(sections: TeamSections, roles: Mapping[str, str]) -> bool:
    """Return whether two agents play one role with different models, so that each needs a role."""
    played = {(roles[name], agent.policy_name) for name, agent in sections.agents.items()}
    return len(played) > len(set(roles.values()))


def _set_models(translation: Translation, sections: TeamSections) -> None:
    first_key, first = next(iter(sections.base_models.items()))
    translation.set("model.path", first.path, f"base_models.{first_key}.path")
    for model_key, model in sections.base_models.items():
        if model.path != first.path:
            key = f"model.by_policy.{model.name}.path"
            translation.set(key, model.path, f"base_models.{model_key}.path")


def _set_updates(translation: Translation, sections: TeamSections) -> None:
    for key in ("filter_method", "filter_ratio"):
        for model_key, model in sections.models.items():
            if (value := getattr(model.ppo_trainer_config, key)) is not None:
                documented = f"models.{model_key}.ppo_trainer_config.{key}"
                translation.set(f"grpo.{key}", value, documented)
                break
    for target, actor_key in _OF_ACTORS.items():
        path = f"ppo_trainer_config.actor_rollout_ref.actor.{actor_key}"
        values = {
            model_key: (model.name, value)
            for model_key, model in sections.models.items()
            if (value := value_at(model, path)) is not None
        }
        covers_all = {name for name, _ in values.values()} == set(sections.paths)
        if covers_all and len({value for _, value in values.values()}) == 1:
            model_key, (_, value) = next(iter(values.items()))
            translation.set(target, value, f"models.{model_key}.{path}")
            continue
        section, _, quantity = target.partition(".")
        for model_key, (name, value) in values.items():
            documented = f"models.{model_key}.{path}"
            translation.set(f"{section}.groups.{name}.{quantity}", value, documented)


def _defaults(sections: TeamSections) -> dict[str, Any]:
    """Return the defaults of team configs, which differ from those of other runs."""
    warm_up = sections.environment.get("text", {})
    is_tiny = TINY in sections.paths.values() and isinstance(warm_up, dict)
    return {
        "policy_type": "text",
        "loss_type": ROW_OF[_algorithm(sections)].loss,
        "environment": {"num_parallel_envs": _NUM_PARALLEL},
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
    """Return the equivalent agent config, for listing and comparing runs."""
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
        "batch_size": minibatch if fits else frames,  # the rules report an invalid minibatch
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


def _known(section: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key in model.model_fields}


def _duplicate_faults(extra: Mapping[str, Any], translation: Translation) -> Iterator[Fault]:
    """Yield a fault for each run-config key that a documented key already sets."""
    for key, value in flatten(dict(extra)).items():
        if (documented := translation.documented_key(key)) != key:
            message = f"is set by {documented} in a team config; change that key and remove this"
            yield Fault("", message, key, value)
