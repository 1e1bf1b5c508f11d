"""Resolve the options of `heteromark train` to a run config and a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heteromark.config.compose.composition import compose_run, load_params, parse_overrides
from heteromark.config.compose.layers import resolve_agent
from heteromark.config.errors import ConfigError, Fault, naming_options, nearest
from heteromark.config.fields import Mode
from heteromark.config.models.agent import Hyperparameters
from heteromark.config.models.components import EnvironmentConfig
from heteromark.config.models.params import ProjectParams
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import flatten, merge, unflatten
from heteromark.config.rules.effect import ineffective_key_faults
from heteromark.runs.digest import config_digest
from heteromark.runs.record import run_folder

MODES: tuple[Mode, ...] = ("smoke", "full")


@dataclass(frozen=True)
class TrainRequest:
    """Options of the command line; None: not given."""

    agent_config: Path
    mode: str = "smoke"
    seed: int | None = None
    total_frames: int | None = None
    episodes: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    num_envs: int | None = None
    environment: str | None = None
    device: str | None = None
    base_config: Path | None = None
    assignments: tuple[str, ...] = ()  # override everything
    param_assignments: tuple[str, ...] = ()  # override params.yaml only


def resolve_request(request: TrainRequest, root: Path = Path()) -> tuple[RunConfig, Path]:
    """Return the run config and the run's folder below results/.

    Raises:
        ConfigError: a fault in the options, params.yaml or the agent config.
    """
    mode = _checked_mode(request.mode)
    require_one_length(request.episodes, request.total_frames)
    given = parse_overrides(list(request.assignments))
    param_layer = parse_overrides(list(request.param_assignments), "--param")
    with naming_options(typed_options(request)):
        return _resolved(request, mode, split_assignments(given), param_layer, root)


def _checked_mode(name: str) -> Mode:
    for mode in MODES:
        if name == mode:
            return mode
    raise ConfigError.single("--mode", f"must be one of {', '.join(MODES)}", name)


def typed_options(request: TrainRequest) -> dict[str, str]:
    """Return the option that set each key, by dotted key.

    Raises:
        ConfigError: a `key=value` does not parse.
    """
    options = {
        "seed": ("--seed", request.seed),
        f"{request.mode}.total_frames": ("--total-timesteps", request.total_frames),
        "training.total_frames": ("--episodes", request.episodes),
        "num_parallel_envs": ("--num-envs", request.num_envs),
        "sweep.environment": ("--environment", request.environment),
        "device": ("--device", request.device),
        "sweep.base_config": ("--base-config", request.base_config),
    }
    for key, value in request.hyperparameters.items():
        options[key] = (f"--{key.replace('_', '-')}", value)
    by_set = parse_overrides(list(request.assignments))
    by_param = parse_overrides(list(request.param_assignments), "--param")
    return {
        **{key: option for key, (option, value) in options.items() if value is not None},
        **dict.fromkeys(flatten(by_set), "--set"),
        **dict.fromkeys(flatten(by_param), "--param"),
    }


def _resolved(
    request: TrainRequest,
    mode: Mode,
    assigned: Assignments,
    param_layer: dict[str, Any],
    root: Path,
) -> tuple[RunConfig, Path]:
    options: dict[str, Any] = {
        "num_parallel_envs": request.num_envs,
        "device": request.device,
        "sweep": {
            "environment": request.environment,
            "base_config": request.base_config and str(request.base_config),
        },
        mode: {"total_frames": request.total_frames},
    }
    params = load_params(root, merge(param_layer, assigned.params, _given(options)))
    command_line = merge(assigned.hyperparameters, _given(request.hyperparameters))
    base = Path(params.sweep.base_config) if params.sweep.base_config else None
    resolved = resolve_agent(request.agent_config, params, command_line, base)
    if request.base_config and resolved.base_path is None:
        message = f"has no effect, because {request.agent_config} is not a variant"
        raise ConfigError.single("--base-config", message, str(request.base_config))
    seed = params.budget(mode).seeds[0] if request.seed is None else request.seed

    def compose(overrides: dict[str, Any]) -> RunConfig:
        file = str(request.agent_config)
        return compose_run(resolved.agent, params, mode, seed, root, overrides, file)

    config = compose(assigned.components)
    used = () if request.episodes is None else ("environment.episode_length",)
    if faults := ineffective_key_faults(config, flatten(assigned.components), "--set", used):
        raise ConfigError(faults)
    if request.episodes is not None:
        frames = frames_of(request.episodes, config.environment)
        config = compose(merge(assigned.components, {"training": {"total_frames": frames}}))
    name = resolved.agent.short_name
    return config, run_folder(config.mode, name, config_digest(config), config.seed)


def require_one_length(episodes: int | None, total_frames: int | None) -> None:
    """Raise ConfigError if the length is given twice, or is less than one episode."""
    if episodes is not None and total_frames is not None:
        message = "cannot be combined with --total-timesteps; give only one of the two"
        raise ConfigError.single("--episodes", message, episodes)
    if episodes is not None and episodes < 1:
        raise ConfigError.single("--episodes", "must be at least 1", episodes)


def frames_of(episodes: int, environment: EnvironmentConfig) -> int:
    """Convert a number of episodes to frames.

    Raises:
        ConfigError: the environment's config has no `episode_length`.
    """
    if environment.episode_length is None:
        raise ConfigError.single(
            f"config/environment/{environment.name}.yaml",
            "is required by --episodes; set it, or give frames with --total-timesteps",
            key="environment.episode_length",
        )
    return episodes * environment.episode_length


def trained_frames(config: RunConfig) -> int:
    """Return the frames that a run trains: `total_frames` rounded up to whole iterations."""
    return config.num_iterations * config.collector.frames_per_batch


def rounding_lines(config: RunConfig) -> Iterator[str]:
    """Yield a line if a run trains more frames than requested."""
    requested, trained = config.training.total_frames, trained_frames(config)
    if trained != requested:
        iterations = config.num_iterations
        yield (
            f"{requested:,} frames requested, rounded up to {trained:,}: {iterations:,} "
            f"iteration{'' if iterations == 1 else 's'} of n_steps "
            f"{config.collector.frames_per_batch:,}"
        )


def check_output(folder: Path, option: str = "--output") -> None:
    """Check before training that the output folder can be created.

    Args:
        folder: the output folder.
        option: the option or key that set the folder.

    Raises:
        ConfigError: the folder or one of its parents is a file.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ConfigError.single(option, f"{path} is a file, not a folder", str(folder))


@dataclass(frozen=True)
class Assignments:
    """`--set` values by the section they override; all nested dicts."""

    params: dict[str, Any]
    hyperparameters: dict[str, Any]
    components: dict[str, Any]


def split_assignments(nested: dict[str, Any]) -> Assignments:
    """Sort `--set` values by their first key.

    Raises:
        ConfigError: a first key is unknown.
    """
    hyperparameters = set(Hyperparameters.model_fields)
    params = set(ProjectParams.model_fields) - hyperparameters
    components = set(RunConfig.model_fields) - params - {"agent", "mode", "seed"}
    known = sorted(hyperparameters | params | components)
    if unknown := nested.keys() - known:
        listed = ", ".join(known)
        raise ConfigError(
            Fault("--set", f"unknown key.{nearest(key, known)} Known keys: {listed}", value=key)
            for key in nested
            if key in unknown
        )

    def chosen(keys: set[str]) -> dict[str, Any]:
        return {key: value for key, value in nested.items() if key in keys}

    return Assignments(chosen(params), chosen(hyperparameters), chosen(components))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return unflatten({key: value for key, value in flatten(options).items() if value is not None})
