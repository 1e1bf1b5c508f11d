"""What a reader wants to know first of how language-model agents were trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heteromark.config.models.algorithms import ROW_OF
from heteromark.config.models.llm import TINY
from heteromark.config.models.tasks import TASK_ROLES
from heteromark.ui.data.configs import value_text
from heteromark.workflow.words import counted

Config = Mapping[str, Any]

# What takes a word of its own; the others are values as they stand.
SETTINGS = {
    "Responses per prompt (K)": "grpo.num_generations",
    "Sampling": "grpo.sampling",
    "Team weight (alpha)": "grpo.alpha",
    "KL weight (beta)": "grpo.beta",
    "Temperature": "generation.temperature",
    "Normalization": "grpo.normalization",
    "Longest prompt": "generation.max_prompt_length",
    "Longest response": "generation.max_response_length",
    "Learning rate": "agent.learning_rate",
    "Minibatch": "replay_buffer.minibatch_size",
    "Epochs": "training.num_epochs",
    "Clip range": "loss.clip_epsilon",
}
UNITS = {"Longest prompt": "tokens", "Longest response": "tokens"}

TRAINED = {
    "full": "full: all weights",
    "prompt": "prompt: no weights, the wording is chosen",
    "none": "none: a baseline",
}


def language_fields(config: Config) -> dict[str, str]:
    """A run's essentials by what they are called, in the order in which they are read.

    Args:
        config: resolved, with dotted keys (`resolved_config`). What it lacks is left out.
    """
    task = _text(config, "environment.text.task")
    is_users_own = ":" in str(task)
    settings = "environment.kwargs" if is_users_own else f"environment.text.{task}"
    fields = {
        "Task": task,
        "Roles in order": _roles(config),
        "Rounds": _rounds(config),
        "Warm-up": _warm_up(config),
        "Model": _model(config),
        "Specialization": _trained(config),
        "Policies": _policies(config),
        "Policies that differ": _listed(config, "model.by_policy"),
        **{told: _text(config, key) for told, key in SETTINGS.items()},
        "Frames per update": _frames(config),
        "Task settings": _listed(config, settings),
    }
    return {
        told: f"{value} {UNITS[told]}" if told in UNITS else value
        for told, value in fields.items()
        if value
    }


def roles_of(config: Config) -> list[str]:
    """Roles of a round, in order; empty where only the user's own task knows them."""
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
    """The keys below a prefix, without it; those that are null or empty say nothing."""
    below = {
        key.removeprefix(f"{prefix}."): value
        for key, value in config.items()
        if key.startswith(f"{prefix}.")
    }
    return {key: value for key, value in below.items() if value not in (None, {}, [])}


def _listed(config: Config, prefix: str) -> str:
    """The settings below a prefix, in one line."""
    return ", ".join(f"{key} {_words(value)}" for key, value in _section(config, prefix).items())


def _roles(config: Config) -> str | None:
    roles = roles_of(config)
    if roles:
        return " → ".join(roles)
    return "as the task says" if "environment.text.task" in config else None


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


def _trained(config: Config) -> str | None:
    chosen = _text(config, "model.specialization")
    if chosen == "lora":
        rank, alpha = (_text(config, f"model.lora_{name}") for name in ("rank", "alpha"))
        return f"lora: adapters, rank {rank}, alpha {alpha}"
    return TRAINED.get(chosen, chosen)


def _policies(config: Config) -> str | None:
    if named := _section(config, "model.roles"):
        return ", ".join(f"{role}: {policy}" for role, policy in named.items())
    if len(roles_of(config)) == 1:
        return "one"
    told = {"shared": "one, shared by all roles", "role": "one per role"}
    return told.get(str(config.get("model.policies")))


def _frames(config: Config) -> str | None:
    """Frames of an update, and how many problems these are."""
    keys = ("collector.frames_per_batch", "grpo.num_generations", "environment.text.max_turns")
    frames, candidates, rounds = map(config.get, keys)
    if not all(isinstance(number, int) and number > 0 for number in (frames, candidates, rounds)):
        return _text(config, keys[0])
    problems = frames // (candidates * rounds)
    return f"{frames:,} ({counted(problems, 'problem')})"
