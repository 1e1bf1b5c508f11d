"""A run's identity: the SHA-256 over everything that determines its result.

In it: the resolved config with environment, mode, budget and seed; the code that the run consists
of (`runs.code`); the versions of torch, torchrl and tensordict. Not in it: keys that cannot act in
the run, names and descriptions, and the machine (`device: auto` stays `auto`). torch is never
imported to find its version.
"""

from __future__ import annotations

import functools
import hashlib
import json
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from heteromark.config.models.algorithms import LLM, NETWORKS, ROW_OF
from heteromark.config.models.components import EnvironmentConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.effect import ineffective_keys, is_custom
from heteromark.config.rules.llm import defaults_of
from heteromark.runs.code import run_code, source_fingerprint
from heteromark.runs.files import sha256_of

DIGEST_LENGTH = 12
VERSIONED = ("torch", "torchrl", "tensordict")
# Beyond the last iteration, they are the same by any number.
_CLAMPED = (("training", "checkpoint_interval"), ("evaluation", "interval"))


def run_digest(config: RunConfig) -> str:
    """Identity of one run, `DIGEST_LENGTH` hex digits."""
    return _digest(_identity(config))


def config_digest(config: RunConfig) -> str:
    """Identity of a run but for its seed: what the seeds of one config have in common."""
    return _digest({**_identity(config), "seed": None})


def trajectory_digest(config: RunConfig) -> str:
    """Identity of a run but for when it ends: of two that share it, one continues the other.

    How a run is judged at its end is not in it either; evaluations leave the training alone.
    """
    identity = _identity(config)
    del identity["mode"]
    for section, key in _CLAMPED:
        identity[section][key] = getattr(getattr(config, section), key)
    identity["training"]["checkpoints_after"] = _further_checkpoints(config)
    if not config.evaluation.interval:
        del identity["evaluation"]
    if not _knows_its_end(config):
        del identity["iterations"]
    return _digest(identity)


def _knows_its_end(config: RunConfig) -> bool:
    """Whether what is learnt may depend on the number of iterations to come."""
    scheduler = config.scheduler
    return (
        scheduler.decay != "none" or scheduler.warmup_ratio > 0 or is_custom(config.agent.algorithm)
    )


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the libraries that a run's result depends on."""
    return {name: metadata.version(name) for name in VERSIONED}


@functools.cache
def text_versions() -> dict[str, str]:
    """The same for language-model agents; "missing" where one is not installed."""
    found = dict.fromkeys(("transformers", "peft", "tokenizers"), "missing")
    for name in found:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _identity(config: RunConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    # The components hold the hyperparameters, but for settings that only one algorithm has.
    data["agent"] = {"algorithm": config.agent.algorithm}
    row = ROW_OF.get(config.agent.algorithm)
    if row and row.section and not row.is_mirrored:
        data["agent"][row.section] = getattr(config.agent, row.section).model_dump(mode="json")
    idle = ineffective_keys(config)
    for key in idle:
        _delete(data, key)
    _say_in_one_way(data, config)
    _name_by_content(data["environment"].get("skirmish", {}), "checkpoint")
    if config.kind == LLM:
        _say_text_in_one_way(data, config)
    # These inform people, or change the speed; they train nothing.
    for key in ("name", "num_workers"):
        data["environment"].pop(key, None)
    # The frames are rounded up to whole iterations, which are told below.
    for key in ("num_batches", "epochs"):
        data["training"].pop(key, None)
    del data["logger"], data["training"]["keep_checkpoints"], data["training"]["total_frames"]
    return {
        **data,
        "iterations": config.num_iterations,
        "code": run_code(config),
        "own_code": {
            key: source_fingerprint(path)
            for key, path in config.import_paths.items()
            if key not in idle
        },
        # 2.13.0+cpu is 2.13.0: a run is found on machines with other devices
        "versions": {name: version.partition("+")[0] for name, version in versions().items()},
    }


def _delete(data: dict[str, Any], key: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        data = data[section]
    del data[last]


def _name_by_content(section: dict[str, Any], key: str) -> None:
    """Let a file or folder be what it holds, wherever it lies; other names stay as they are."""
    path = section.get(key) and Path(section[key]).expanduser()
    if path and path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        held = [[file.name, sha256_of(file)] for file in files]
        section[key] = hashlib.sha256(json.dumps(held).encode()).hexdigest()
    elif path and path.is_file():
        section[key] = sha256_of(path)


def task_identity(environment: EnvironmentConfig) -> dict[str, Any]:
    """What a language-model task's problems follow from: its settings, files and own code."""
    data, task = environment.model_dump(mode="json"), environment.text.task
    _name_by_content(data["text"].get("math", {}), "file")
    return {
        "task": task,
        "settings": data["text"].get(task),
        "cast": data["text"]["cast"],
        "kwargs": data["kwargs"],
        "code": source_fingerprint(task) if environment.text.task_is_custom else None,
    }


def _say_text_in_one_way(data: dict[str, Any], config: RunConfig) -> None:
    """The same for language-model agents: what they are made of, and who has which policy."""
    text, model = data["environment"]["text"], data["model"]
    for key in defaults_of(config):
        text.pop(key, None)  # what it is a default of is told
    _name_by_content(text.get("math", {}), "file")
    for section in (model, *model["by_policy"].values()):
        _name_by_content(section, "path")
    model.pop("policies", None)
    text["turn_order"] = turn_order = config.turn_order
    if turn_order is not None:
        model["roles"] = {role: config.policy_of(role) for role in turn_order}
    data["text_versions"] = text_versions()


def _say_in_one_way(data: dict[str, Any], config: RunConfig) -> None:
    """Replace words that mean another value here, so that either makes the same run."""
    if config.kind == NETWORKS:
        policy, optimizer = data["policy"], data["optimizer"]
        policy["critic"] = config.critic
        data["environment"].setdefault("state", False)  # one that nothing sees is none
        if policy.get("critic_input") == "auto" and config.env_type != "custom":
            policy["critic_input"] = "state" if config.environment.state else "observations"
        optimizer["critic_learning_rate"] = (
            optimizer["critic_learning_rate"] or optimizer["learning_rate"]
        )
    for section, key in _CLAMPED:
        data[section][key] = min(data[section][key], config.num_iterations)
    data["training"]["checkpoints_after"] = [
        iteration for iteration in _further_checkpoints(config) if iteration < config.num_iterations
    ]


def _further_checkpoints(config: RunConfig) -> list[int]:
    """Iterations that have a checkpoint besides those of the interval."""
    training = config.training
    further = (i for i in training.checkpoints_after if i % training.checkpoint_interval)
    return sorted(set(further))


def _digest(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
