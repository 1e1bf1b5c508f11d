"""The config card of language-model agents: their most important settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heteromark.config.models.algorithms import ROW_OF
from heteromark.config.models.llm import TINY
from heteromark.config.models.tasks import TASK_ROLES
from heteromark.ui.data.configs import value_text
from heteromark.workflow.words import counted

Config = Mapping[str, Any]

# Label -> key, for settings that are shown unchanged. `language_fields` formats the other ones.
SETTINGS = {
    "Responses per prompt (K)": "grpo.num_generations",
    "Sampling": "grpo.sampling",
    "Team weight (alpha)": "grpo.alpha",
    "KL weight (beta)": "grpo.beta",
    "Temperature": "generation.temperature",
    "Normalization": "grpo.normalization",
    "Max prompt length": "generation.max_prompt_length",
    "Max response length": "generation.max_response_length",
    "Learning rate": "agent.learning_rate",
    "Minibatch": "replay_buffer.minibatch_size",
    "Epochs": "training.num_epochs",
    "Clip range": "loss.clip_epsilon",
}
UNITS = {"Max prompt length": "tokens", "Max response length": "tokens"}

SPECIALIZATIONS = {
    "full": "full: trains all weights",
    "prompt": "prompt: trains no weights, selects the best wording",
    "none": "none: untrained baseline",
}


def language_fields(config: Config) -> dict[str, str]:
    """Return the most important settings of a run: label -> text, in display order.

    Args:
        config: resolved config with dotted keys (`resolved_config`). Missing keys are skipped.
    """
    task = _text(config, "environment.text.task")
    is_custom = ":" in str(task)
    settings = "environment.kwargs" if is_custom else f"environment.text.{task}"
    fields = {
        "Task": task,
        "Roles in order": _roles(config),
        "Rounds": _rounds(config),
        "Warm-up": _warm_up(config),
        "Model": _model(config),
        "Specialization": _specialization(config),
        "Policies": _policies(config),
        "Policy overrides": _section_text(config, "model.by_policy"),
        **{label: _text(config, key) for label, key in SETTINGS.items()},
        "Frames per update": _frames(config),
        "Task settings": _section_text(config, settings),
    }
    return {
        label: f"{value} {UNITS[label]}" if label in UNITS else value
        for label, value in fields.items()
        if value
    }


def roles_of(config: Config) -> list[str]:
    """Return the roles of a round, in order; empty if only the code of a custom task names them."""
    order = config.get("environment.text.turn_order")
    if isinstance(order, list):
        return [str(role) for role in order]
    cast = _section(config, "environment.text.cast")
    roles = list(cast or TASK_ROLES.get(str(config.get("environment.text.task")), ()))
    row = ROW_OF.get(str(config.get("agent.algorithm")))
    return roles[-1:] if row and row.acts_alone else roles


def _text(config: Config, key: str) -> str | None:
    value = config.get(key)
    return None if value is None else _words(value)


def _words(value: Any) -> str:
    return " ".join(map(value_text, value)) if isinstance(value, list) else value_text(value)


def _section(config: Config, prefix: str) -> dict[str, Any]:
    """Return the keys below a prefix, without the prefix; null and empty values are skipped."""
    below = {
        key.removeprefix(f"{prefix}."): value
        for key, value in config.items()
        if key.startswith(f"{prefix}.")
    }
    return {key: value for key, value in below.items() if value not in (None, {}, [])}


def _section_text(config: Config, prefix: str) -> str:
    """Return the settings below a prefix as one line."""
    return ", ".join(f"{key} {_words(value)}" for key, value in _section(config, prefix).items())


def _roles(config: Config) -> str | None:
    roles = roles_of(config)
    if roles:
        return " → ".join(roles)
    return "defined by the task" if "environment.text.task" in config else None


def _rounds(config: Config) -> str | None:
    rounds = config.get("environment.text.max_turns")
    return None if rounds is None else "1" if rounds == 1 else f"up to {rounds}"


def _model(config: Config) -> str | None:
    path = _text(config, "model.path")
    if path is None:
        return None
    if path != TINY:
        return f"{path}, {config.get('model.dtype', '')}".rstrip(", ")
    tiny = _section(config, "model.tiny")
    if not {"architecture", "num_layers", "hidden_size"} <= set(tiny):
        return path
    layers = counted(tiny["num_layers"], "layer")
    return f"{path} {tiny['architecture']}, {layers} of {tiny['hidden_size']}"


def _warm_up(config: Config) -> str | None:
    steps = config.get("model.warm_up.steps")
    return None if steps is None else f"{steps:,} steps" if steps else "none"


def _specialization(config: Config) -> str | None:
    chosen = _text(config, "model.specialization")
    if chosen == "lora":
        rank, alpha = (_text(config, f"model.lora_{name}") for name in ("rank", "alpha"))
        return f"lora: adapters, rank {rank}, alpha {alpha}"
    return None if chosen is None else SPECIALIZATIONS.get(chosen, chosen)


def _policies(config: Config) -> str | None:
    if named := _section(config, "model.roles"):
        return ", ".join(f"{role}: {policy}" for role, policy in named.items())
    if len(roles_of(config)) == 1:
        return "one"
    labels = {"shared": "one, shared by all roles", "role": "one per role"}
    return labels.get(str(config.get("model.policies")))


def _frames(config: Config) -> str | None:
    """Return the frames per update, with the number of problems."""
    keys = ("collector.frames_per_batch", "grpo.num_generations", "environment.text.max_turns")
    values = [config.get(key) for key in keys]
    numbers = [value for value in values if isinstance(value, int) and value > 0]
    if len(numbers) < len(keys):
        return _text(config, keys[0])
    frames, candidates, rounds = numbers
    problems = frames // (candidates * rounds)
    return f"{frames:,} ({counted(problems, 'problem')})"
