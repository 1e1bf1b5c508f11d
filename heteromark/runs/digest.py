"""A run's identity: the SHA-256 over everything that determines its result.

It includes the resolved config with environment, mode, budget and seed, the code of the run
(`runs.code`), and the versions of torch, torchrl and tensordict. It excludes keys without effect in
the run, names and descriptions, and the machine (`device: auto` stays `auto`). The version of torch
is read without importing torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.algorithms import LLM, NETWORKS, ROW_OF
from heteromark.config.models.components import EnvironmentConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.effect import ineffective_keys, is_custom
from heteromark.config.rules.llm import defaults_of
from heteromark.config.rules.model_paths import GGUF, model_location
from heteromark.runs.code import code_of, is_own, run_code, source_fingerprint, version_of
from heteromark.runs.files import sha256_of
from heteromark.runs.record import STUB, TORCH, TRAINER_VARIABLE

DIGEST_LENGTH = 12
VERSIONED = ("torch", "torchrl", "tensordict")
# The factory of Gymnasium environments; its argument `id` names their package.
GYMNASIUM_TEAM = "heteromark.environment.pettingzoo.gymnasium_team:"


def run_digest(config: RunConfig) -> str:
    """Return the identity of one run, `DIGEST_LENGTH` hex digits."""
    return _digest(_identity(config))


def config_digest(config: RunConfig) -> str:
    """Return the identity of a run without its seed: all seeds of one config share it."""
    return _digest({**_identity(config), "seed": None})


def environment_digest(config: RunConfig) -> str:
    """Return the identity of a run's environment, for results that depend on nothing else."""
    identity = _identity(config)
    data = {
        key: identity[key] for key in ("environment", "env_type", "own_code", "code", "packages")
    }
    kept = ("group_by", "groups", "state", "reward", "task", "kwargs", "files", "smac")
    data["environment"] = {key: data["environment"].get(key) for key in kept}
    data["split"] = not config.policy.share_policy_params
    data["python"] = sys.version_info[:3]
    return _digest(data)


def trajectory_digest(config: RunConfig) -> str:
    """Return the identity of a run without its length.

    Of two runs that share it, the longer one can continue the shorter one. The final evaluation is
    excluded too, because evaluations do not affect the training.
    """
    identity = _identity(config)
    del identity["mode"]
    if config.evaluation.interval:
        identity["evaluation"]["interval"] = config.evaluation.interval
    else:
        del identity["evaluation"]
    if not _knows_its_end(config):
        del identity["iterations"]
    return _digest(identity)


def _knows_its_end(config: RunConfig) -> bool:
    """Return whether training depends on the total number of iterations."""
    scheduler = config.scheduler
    return (
        scheduler.decay != "none" or scheduler.warmup_ratio > 0 or is_custom(config.agent.algorithm)
    )


def chosen_trainer() -> str:
    """Return what `HETEROMARK_TRAINER` says trains runs here: torch, or the stub.

    Raises:
        ConfigError: it names something else.
    """
    chosen = os.environ.get(TRAINER_VARIABLE) or TORCH
    if chosen not in (TORCH, STUB):
        message = f"must be {TORCH} or {STUB}; unset it to train"
        raise ConfigError.single(TRAINER_VARIABLE, message, value=chosen)
    return chosen


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the libraries that a run's result depends on."""
    return {name: metadata.version(name) for name in VERSIONED}


@functools.cache
def text_versions() -> dict[str, str]:
    """Return `versions` for language-model agents; "missing" for a library not installed."""
    found = dict.fromkeys(("transformers", "peft", "tokenizers"), "missing")
    for name in found:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _identity(config: RunConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    del data["from_environment"]  # the values are in the digest
    # The components hold the hyperparameters, except settings that only one algorithm has.
    data["agent"] = {"algorithm": config.agent.algorithm}
    row = ROW_OF.get(config.agent.algorithm)
    if row and row.section:
        data["agent"][row.section] = getattr(config.agent, row.section).model_dump(mode="json")
    idle = ineffective_keys(config)
    for key in idle:
        _delete(data, key)
    _normalise(data, config)
    data["environment"]["files"] = contents_of(config.environment)
    _name_by_content(data["environment"].get("skirmish", {}), "checkpoint")
    if config.kind == LLM:
        _normalise_text(data, config)
    # These keys are labels or affect the speed, not the training.
    for key in ("name", "num_workers"):
        data["environment"].pop(key, None)
    # Frames are rounded up to whole iterations; "iterations" below holds their number. Checkpoints
    # leave the training unchanged.
    for key in (
        *("total_frames", "num_batches", "epochs"),
        *("checkpoint_interval", "keep_checkpoints"),
    ):
        data["training"].pop(key, None)
    if (trainer := chosen_trainer()) != TORCH:
        data["trainer"] = trainer
    del data["logger"]
    return {
        **data,
        "iterations": config.num_iterations,
        "code": run_code(config),
        "own_code": {
            key: source_fingerprint(path)
            for key, path in config.import_paths.items()
            if key not in idle
        },
        "packages": _packages(config),
        # 2.13.0+cpu counts as 2.13.0, so that machines with other devices find the run.
        "versions": {name: version.partition("+")[0] for name, version in versions().items()},
    }


def _packages(config: RunConfig) -> list[str]:
    """Return name and version of environment packages that only a config names."""
    environment = config.environment
    if config.env_type == "vmas":
        return [version_of("vmas")]
    if (environment.task or "").startswith(GYMNASIUM_TEAM):
        module, colon, _ = str(environment.kwargs.get("id", "")).partition(":")
        return [version_of(module)] if colon else []
    return []


def covered_files(config: RunConfig) -> Iterator[Path]:
    """Yield the user's files whose content is part of a run's identity."""
    for path in config.import_paths.values():
        sources = code_of(path.partition(":")[0]).sources
        yield from (source for source in sources if not is_own(source))
    for path, _ in contents_of(config.environment):
        yield Path(path)
    named = [
        config.environment.skirmish.checkpoint,
        config.environment.text.math.file,
        config.model.template_file,
        *(model["path"] for model in _models(config.model_dump())),
    ]
    for place in (Path(name).expanduser() for name in named if name):
        yield from _files_in(place) if place.exists() else ()


def _models(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings of the model and of each policy's own one, of a dumped config."""
    yield data["model"]
    yield from data["model"]["by_policy"].values()


def _files_in(path: Path) -> list[Path]:
    """Return the files in a folder, or the file itself."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _delete(data: dict[str, Any], key: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        data = data[section]
    del data[last]


def _name_by_content(section: dict[str, Any], key: str) -> None:
    """Replace the path of a file or folder by the hash of its content; keep other values."""
    path = section.get(key) and Path(section[key]).expanduser()
    if path and path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        held = [[file.name, sha256_of(file)] for file in files]
        section[key] = hashlib.sha256(json.dumps(held).encode()).hexdigest()
    elif path and path.is_file():
        section[key] = sha256_of(path)


def contents_of(environment: EnvironmentConfig) -> list[list[str]]:
    """Return path and SHA-256 of declared files and of all files in declared folders.

    Raises:
        ConfigError: one does not exist.
    """
    declared = [Path(path) for path in environment.files]
    faults = [
        Fault(
            f"config/environment/{environment.name}.yaml",
            "does not exist; give a path relative to the project's folder",
            "environment.files",
            str(path),
        )
        for path in declared
        if not path.exists()
    ]
    if faults:
        raise ConfigError(faults)
    files = {file for path in declared for file in _files_in(path)}
    return [[file.as_posix(), sha256_of(file)] for file in sorted(files)]


def task_identity(environment: EnvironmentConfig) -> dict[str, Any]:
    """Return what determines a task's problems: its settings, its file and custom code."""
    data, task = environment.model_dump(mode="json"), environment.text.task
    _name_by_content(data["text"].get("math", {}), "file")
    return {
        "task": task,
        "settings": data["text"].get(task),
        "cast": data["text"]["cast"],
        "kwargs": data["kwargs"],
        "files": contents_of(environment),
        "code": source_fingerprint(task) if environment.text.task_is_custom else None,
    }


def _normalise_text(data: dict[str, Any], config: RunConfig) -> None:
    """Normalise the settings of language-model agents: models by content, policies by role."""
    text, model = data["environment"]["text"], data["model"]
    for key in defaults_of(config):
        text.pop(key, None)  # the settings that it is a default for are included
    _name_by_content(text.get("math", {}), "file")
    if config.model.template_file is not None:
        _name_by_content(model, "chat_template")
    for section in _models(data):
        place = section["path"] and model_location(section["path"])
        if place and place.suffix == GGUF:  # its weights are computed from the file
            data["gguf_version"] = version_of("gguf")
        section["path"] = str(place) if place else section["path"]
        _name_by_content(section, "path")
    model.pop("policies", None)
    text["turn_order"] = turn_order = config.turn_order
    if turn_order is not None:
        model["roles"] = {role: config.policy_of(role) for role in turn_order}
    data["text_versions"] = text_versions()


def _normalise(data: dict[str, Any], config: RunConfig) -> None:
    """Replace values like `auto` by the values they stand for, so that both give one digest."""
    if config.kind == NETWORKS:
        policy, optimizer = data["policy"], data["optimizer"]
        policy["critic"] = config.critic
        data["environment"].setdefault("state", False)  # no effect if no network reads it
        if policy.get("critic_input") == "auto" and config.env_type != "custom":
            policy["critic_input"] = "state" if config.environment.state else "observations"
        for section, own, common in (
            (optimizer, "critic_learning_rate", "learning_rate"),
            (data["training"], "critic_epochs", "num_epochs"),
            (data["replay_buffer"], "critic_minibatch_size", "minibatch_size"),
        ):
            section[own] = section[own] or section[common]
    # All values above the number of iterations have the same effect.
    data["evaluation"]["interval"] = min(config.evaluation.interval, config.num_iterations)


def _digest(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
