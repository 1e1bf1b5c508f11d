"""From layered values to a run config: Hydra composes, OmegaConf holds, pydantic validates."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heteromark.config.errors import ConfigError, Fault, config_error, faults_of, nearest
from heteromark.config.files import parse_value, read_mapping
from heteromark.config.nested import merge, unflatten
from heteromark.config.params import ProjectParams
from heteromark.config.schema import (
    LOSS_OF_ALGORITHM,
    POLICY_TYPE_OF_NETWORK,
    AgentConfig,
    Mode,
    RunConfig,
)

CONFIG_FOLDER = "config"
NOT_COMPONENTS = ("agents", "schema")
PARAMS_FILE = "params.yaml"


def load_params(
    root: Path = Path(), overrides: dict[str, Any] | None = None, file: str = PARAMS_FILE
) -> ProjectParams:
    """Read and validate params.yaml; `overrides` (nested) win over the file.

    Raises:
        ConfigFileNotFoundError: not in a project folder.
        ConfigError: all faults at once.
    """
    path = Path(root, file)
    if not path.is_file():
        message = f"{path} not found; run this in the project's folder, the one with {file}"
        raise config_error([Fault(str(path), message, kind="FileNotFoundError")])
    data = merge(read_mapping(path, "Params"), overrides or {})
    try:
        return ProjectParams.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, ProjectParams, str(path))) from error


def parse_overrides(pairs: list[str], file: str = "--set") -> dict[str, Any]:
    """`["sweep.environment=mine", "smoke.seeds=[0, 1]"]` → nested dictionary.

    Raises:
        ConfigError: a pair without `=`, or one key inside another.
    """
    flat = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ConfigError([Fault(file, "must have the form key=value", pair)])
        flat[key.strip()] = parse_value(value)
    try:
        return unflatten(flat)
    except ValueError as error:
        raise ConfigError([Fault(file, str(error), ", ".join(pairs))]) from error


def environment_names(root: Path = Path()) -> list[str]:
    """Names of the environments in config/environment/."""
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
    """The resolved config of one run.

    Args:
        agent: result of `layers.resolve_agent`.
        params: budgets, environment, device, threads.
        overrides: nested component values that win over everything, e.g.
            `{"training": {"total_frames": 1000}}`.
        agent_file: named in the message when a fault comes from the agent config.

    Raises:
        ConfigError: all faults at once; an unknown environment is told with the known ones.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    budget = params.budget(mode)
    values = {
        # Names and descriptions are text: a ${…} in them is no interpolation.
        "agent": agent.hyperparameters(),
        "mode": mode,
        "seed": seed,
        "device": params.device,
        "environment": {"num_parallel_envs": params.num_parallel_envs},
        "training": {
            "total_frames": budget.total_frames,
            "num_threads": params.num_threads,
            "checkpoint_interval": params.checkpoint_interval,
        },
        "evaluation": {"episodes": budget.eval_episodes},
    }
    tree = _component_tree(str(Path(root, CONFIG_FOLDER).resolve()), params.sweep.environment)
    try:
        merged = OmegaConf.merge(tree, values, overrides or {})
        data = OmegaConf.to_container(merged, resolve=True)
        data["agent"] = agent.model_dump()
    except OmegaConfBaseException as error:
        message = " ".join(str(error).split())
        raise ConfigError([Fault(str(Path(root, CONFIG_FOLDER)), message)]) from error
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        faults = faults_of(error, RunConfig, str(Path(root, CONFIG_FOLDER)))
        raise ConfigError(
            [_in_its_file(fault, params, agent_file, Path(root)) for fault in faults]
        ) from error


def _in_its_file(fault: Fault, params: ProjectParams, agent_file: str, root: Path) -> Fault:
    section = fault.key.partition(".")[0]
    if section == "agent":
        file = agent_file
    elif section == "environment":
        file = str(root / CONFIG_FOLDER / "environment" / f"{params.sweep.environment}.yaml")
    else:
        return fault
    return replace(fault, file=file)


def _register_resolvers() -> None:
    """What `${loss_of:…}` and the like mean in the component configs."""
    from omegaconf import OmegaConf

    resolvers = {
        "loss_of": lambda algorithm: LOSS_OF_ALGORITHM.get(algorithm, "ppo"),
        "policy_type_of": lambda network: POLICY_TYPE_OF_NETWORK.get(network, network),
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


@functools.lru_cache(maxsize=64)
def _component_tree(config_folder: str, environment: str) -> Any:
    """Everything below config/ composed for one environment, interpolations still open."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    known = environment_names(Path(config_folder).parent)
    if environment not in known:
        message = (
            f"unknown environment.{nearest(environment, known)} Known: {', '.join(known)}; "
            f"a new one is a file {CONFIG_FOLDER}/environment/NAME.yaml"
        )
        raise ConfigError([Fault(PARAMS_FILE, message, "sweep.environment", environment)])
    # Checked here because Hydra's own message for broken YAML names no line of the user's file.
    for path in sorted(Path(config_folder).glob("*/*.yaml")):
        if path.parent.name not in NOT_COMPONENTS and (
            path.parent.name != "environment" or path.stem == environment
        ):
            read_mapping(path)
    _register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_folder, version_base="1.3"):
            tree = compose("config", overrides=[f"environment={environment}"])
    except HydraException as error:
        raise ConfigError([Fault(config_folder, " ".join(str(error).split()))]) from error
    OmegaConf.set_struct(tree, False)
    return tree
