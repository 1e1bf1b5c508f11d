"""The environments for training and for evaluating a run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from torchrl.envs import EnvBase

from heteromark.config.fields import Opponent
from heteromark.config.models.components import EvaluationConfig, OpponentConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.models.skirmish import ScriptName
from heteromark.environment.errors import IncompatibleOpponent
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.policy import with_memory
from heteromark.modules.random_state import preserved_random_state
from heteromark.training.loaded_policy import load_policy


def make_environment(
    config: RunConfig,
    num_envs: int | None = None,
    *,
    recurrent: Collection[str] = (),
    **options: Any,
) -> EnvBase:
    """Create an environment for a run's actors, for training or evaluation.

    Args:
        config: the run.
        num_envs: number of copies; default: `environment.num_parallel_envs`.
        recurrent: groups with a recurrent actor, see `with_memory`.
        options: further arguments of `EnvironmentFactory.create`.

    Raises:
        ModuleNotFoundError, ValueError: see `EnvironmentFactory.create`; or the policy that
            commands the other side of Skirmish is missing or does not fit.
    """
    environment = EnvironmentFactory().create(config, num_envs, **options)
    skirmish = config.environment.skirmish
    if config.env_type == "skirmish" and skirmish.opponent == "policy":
        assert skirmish.checkpoint is not None, "RunConfig requires it with opponent policy"
        policy = load_policy(Path(skirmish.checkpoint), environment.device)
        environment.oppose(policy.actors, policy.groups)
    return with_memory(environment, recurrent, config.policy.gru.memory_size)


def opponent_of(config: RunConfig, settings: EvaluationConfig) -> OpponentConfig:
    """Return the opponent of an evaluation: the training opponent, overridden by the settings."""
    differing = {"kind": settings.opponent, "seat": settings.seat}
    return config.environment.opponent.model_copy(
        update={key: value for key, value in differing.items() if value is not None}
    )


def make_evaluation_environment(
    config: RunConfig,
    settings: EvaluationConfig,
    num_envs: int,
    **options: Any,
) -> EnvBase:
    """Create an environment for an evaluation, against the settings' opponent.

    Args:
        options: further arguments of `EnvironmentFactory.create`.

    Raises:
        ValueError: the settings name an opponent that cannot play in this environment, or a seat
            although the environment has no seats.
    """
    try:
        environment = make_environment(
            against(config, settings),
            num_envs,
            opponent=opponent_of(config, settings),
            **options,
        )
    except IncompatibleOpponent as error:
        if settings.opponent is None:
            raise
        raise error.with_key(_key(config, settings, "opponent")) from None
    try:
        _require_players(config, settings, environment)
        key = _key(config, settings, "seat")
        if key == "--seat" and opponent_of(config, settings).kind == "self":
            raise ValueError(
                f"--seat is {settings.seat}, but the policy plays all seats; add --opponent random "
                "or --opponent heuristic, or remove --seat"
            )
    except ValueError:
        environment.close()
        raise
    return environment


def require_evaluation(config: RunConfig, environment: EnvBase) -> None:
    """Check before training that an evaluation with the config's settings is possible.

    Args:
        environment: the training environment.

    Raises:
        ValueError, ModuleNotFoundError: see `make_evaluation_environment`.
    """
    settings = config.evaluation
    _require_players(config, settings, environment)
    if environment.turn_based and opponent_of(config, settings) != config.environment.opponent:
        with preserved_random_state():
            make_evaluation_environment(config, settings, 1).close()


def against(config: RunConfig, settings: EvaluationConfig) -> RunConfig:
    """Return the config with the evaluation's script as the opponent in Skirmish.

    Raises:
        ValueError: the settings' opponent is not a script.
    """
    environment, opponent = config.environment, settings.opponent
    if config.env_type != "skirmish" or opponent is None:
        return config
    if opponent not in get_args(ScriptName):
        key = _key(config, settings, "opponent")
        raise ValueError(
            f"{key} is {opponent}, but in environment {environment.name!r} a script commands the "
            f"other side; use {', '.join(get_args(ScriptName))}, or {_without(key)}"
        )
    other = {"opponent": opponent, "checkpoint": None}
    skirmish = environment.skirmish.model_copy(update=other)
    environment = environment.model_copy(update={"skirmish": skirmish})
    return config.model_copy(update={"environment": environment})


def _require_players(config: RunConfig, settings: EvaluationConfig, environment: EnvBase) -> None:
    """Raise ValueError for an opponent or a seat that this environment does not support."""
    against(config, settings)
    there = f"environment {config.environment.name!r}"
    for field, value in (("opponent", settings.opponent), ("seat", settings.seat)):
        if value is None or (field == "opponent" and config.env_type == "skirmish"):
            continue
        key = _key(config, settings, field)
        if not environment.turn_based:
            raise ValueError(
                f"{key} is {value}, but in {there} all agents act at once; only turn-based (AEC) "
                f"environments have opponents and seats: {_without(key)}"
            )
        if field == "opponent" and value not in get_args(Opponent):
            raise ValueError(
                f"{key} is {value}, which is a Skirmish script; in {there} use "
                f"{', '.join(get_args(Opponent))}, or {_without(key)}"
            )


def _without(key: str) -> str:
    return f"remove {key}" if key.startswith("--") else f"set {key}=null"


def _key(config: RunConfig, settings: EvaluationConfig, field: str) -> str:
    """Return the config key or the `heteromark evaluate` option that set a field."""
    as_trained = getattr(settings, field) == getattr(config.evaluation, field)
    return f"evaluation.{field}" if as_trained else f"--{field}"
