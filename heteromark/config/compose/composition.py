"""Compose a run config: Hydra composes the files, OmegaConf merges, pydantic validates."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from heteromark.config.compose.layers import PARAMS_FILE
from heteromark.config.errors import ConfigError, Fault, config_error, faults_of, nearest
from heteromark.config.fields import Mode
from heteromark.config.files import MAX_DEPTH, parse_value, read_mapping
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.params import ProjectParams
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import merge, unflatten
from heteromark.config.rules.kinds import run_faults

CONFIG_FOLDER = "config"
ROOT = "config"  # config/config.yaml, the root of the composition
LABELS = ("project", "experiment_name", "tags")  # in the root, but not part of a run config


def load_params(
    root: Path = Path(), overrides: dict[str, Any] | None = None, file: str = PARAMS_FILE
) -> ProjectParams:
    """Read and validate params.yaml; `overrides` (nested) win over the file.

    Raises:
        ConfigFileNotFoundError: `root` has no such file.
        ConfigError: all faults at once.
    """
    path = Path(root, file)
    if not path.is_file():
        message = f"{path} not found; run this in the project folder, which contains {file}"
        raise config_error([Fault(str(path), message, kind="FileNotFoundError")])
    data = merge(read_mapping(path, "Params"), overrides or {})
    try:
        return ProjectParams.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, ProjectParams, str(path))) from error


def parse_overrides(pairs: list[str], file: str = "--set") -> dict[str, Any]:
    """Parse `["sweep.environment=mine", "smoke.seeds=[0, 1]"]` into a nested dictionary.

    Raises:
        ConfigError: a pair has no `=`, or one key is nested in another.
    """
    flat = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ConfigError([Fault(file, "must have the form key=value", value=pair)])
        if key.count(".") >= MAX_DEPTH:
            message = f"is nested more than {MAX_DEPTH} levels deep"
            raise ConfigError([Fault(file, message, value=key)])
        flat[key.strip()] = parse_value(value, file)
    try:
        return unflatten(flat)
    except ValueError as error:
        raise ConfigError([Fault(file, str(error), value=", ".join(pairs))]) from error


def environment_names(root: Path = Path()) -> list[str]:
    """Return the names of the environments in config/environment/."""
    return sorted(path.stem for path in Path(root, CONFIG_FOLDER, "environment").glob("*.yaml"))


def compose_run(
    agent: AgentConfig,
    params: ProjectParams,
    mode: Mode,
    seed: int,
    root: Path = Path(),
    overrides: dict[str, Any] | None = None,
    agent_file: str = "agent config",
) -> RunConfig:
    """Compose the resolved config of one run.

    Args:
        agent: the result of `layers.resolve_agent`.
        params: budgets, environment, device and threads.
        mode: the budget to use, smoke or full.
        seed: the run's seed.
        root: the project folder.
        overrides: nested component values that override everything else, e.g.
            `{"training": {"total_frames": 1000}}`.
        agent_file: the agent config's file, for messages about its values.

    Raises:
        ConfigError: all faults at once. For an unknown environment, lists the known ones.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from heteromark.config.compose.env_values import from_environment

    budget = params.budget(mode)
    values: dict[str, Any] = {
        # Without names and descriptions, in which ${…} is plain text.
        "agent": agent.hyperparameters(),
        "mode": mode,
        "seed": seed,
        "device": params.device,
        "training": {
            "total_frames": budget.total_frames,
            "num_threads": params.num_threads,
            "checkpoint_interval": params.checkpoint_interval,
        },
        "evaluation": {"episodes": budget.eval_episodes},
    }
    if params.num_parallel_envs is not None:
        values["environment"] = {"num_parallel_envs": params.num_parallel_envs}
    folder = str(Path(root, CONFIG_FOLDER))
    tree = _component_tree(str(Path(folder).resolve()), params.sweep.environment)
    try:
        merged = OmegaConf.merge(tree, values, overrides or {})
        data: Any = OmegaConf.to_container(merged, resolve=True)
        data["agent"] = agent.model_dump()
        data["from_environment"] = from_environment(
            merged, lambda: cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
        )
        for label in LABELS:
            del data[label]
    except OmegaConfBaseException as error:
        raise ConfigError.single(folder, " ".join(str(error).split())) from error
    try:
        config = RunConfig.model_validate(data)
        faults = run_faults(config, folder)
    except ValidationError as error:
        faults = faults_of(error, RunConfig, folder)
    if faults:
        raise ConfigError(
            [_with_file(fault, params, mode, agent_file, Path(root)) for fault in faults]
        )
    return config


def _with_file(
    fault: Fault, params: ProjectParams, mode: Mode, agent_file: str, root: Path
) -> Fault:
    """Attribute a fault to params.yaml, the agent config, the environment's file or config/."""
    from_params = {
        "environment.num_parallel_envs": ("num_parallel_envs", params.num_parallel_envs),
        "training.total_frames": (f"{mode}.total_frames", params.budget(mode).total_frames),
    }
    key, value = from_params.get(fault.key, ("", None))
    if key and value == fault.value:
        return replace(fault, file=PARAMS_FILE, key=key)
    environment = root / CONFIG_FOLDER / "environment" / f"{params.sweep.environment}.yaml"
    files = {"agent": agent_file, "environment": str(environment)}
    return replace(fault, file=files.get(fault.key.partition(".")[0], fault.file))


@functools.lru_cache(maxsize=64)
def _component_tree(config_folder: str, environment: str) -> Any:
    """Compose config/ for one environment, interpolations unresolved."""
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from heteromark.config.compose.hydra_loader import open_hydra

    known = environment_names(Path(config_folder).parent)
    if environment not in known:
        message = (
            f"unknown environment.{nearest(environment, known)} Available: {', '.join(known)}. "
            f"To add one, create {CONFIG_FOLDER}/environment/NAME.yaml"
        )
        raise ConfigError([Fault(PARAMS_FILE, message, "sweep.environment", environment)])
    loader = open_hydra(Path(config_folder)).config_loader
    tree = loader.load_configuration(ROOT, [f"environment={environment}"], RunMode.RUN)
    if untyped := list(loader.type_faults(tree)):
        raise ConfigError(untyped)
    OmegaConf.set_struct(tree, False)
    del tree["hydra"]
    return tree
