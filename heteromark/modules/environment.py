"""The environment factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pettingzoo import AECEnv, ParallelEnv
from torchrl.envs import EnvBase

from heteromark.config.models.components import OpponentConfig
from heteromark.config.models.run import RunConfig
from heteromark.environment.contract import check_contract
from heteromark.environment.opponents.choice import OpponentMisfit
from heteromark.environment.pettingzoo.aec import PettingZooAECEnv
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.copies import make_copy
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.environment.skirmish import SkirmishEnv
from heteromark.environment.smac.adapter import missing_from_smac_api, smac_factory
from heteromark.import_paths import Task
from heteromark.modules.registry import Registry


class Wanted(NamedTuple):
    """The copies that an environment is made of.

    Attributes:
        num_envs: how many, N.
        first: number of the first among all copies of the run.
        render: copy 0 has to draw itself.
        device: where copies are that can be anywhere.
    """

    num_envs: int
    first: int = 0
    render: bool = False
    device: torch.device = torch.device("cpu")


EnvironmentMaker = Callable[[RunConfig, Wanted], EnvBase]
ENVIRONMENTS: Registry[EnvironmentMaker] = Registry("env_type")


class EnvironmentFactory:
    """Creates the batched environment that a run config asks for."""

    def create(
        self,
        config: RunConfig,
        num_envs: int | None = None,
        opponent: OpponentConfig | None = None,
        render: bool = False,
        first: int = 0,
        device: torch.device | None = None,
    ) -> EnvBase:
        """An unseeded environment of batch size [num_envs].

        Its keys and its attributes besides EnvBase's: `heteromark.environment.contract`.

        Args:
            config: the run.
            num_envs: number of copies; by default `environment.num_parallel_envs`.
            opponent: who plays the other seats of a turn-based game; by default
                `environment.opponent`.
            render: make copy 0 so that `render()` draws it.
            first: number of the first copy, where others of the run are made elsewhere.
            device: where Skirmish fights, by default the CPU, where all others are.

        Raises:
            ModuleNotFoundError, ValueError: the task cannot be imported, its agents do not fit the
                groups of the config, or it cannot draw.
            TypeError: the task makes something else than its env_type says.
            RuntimeError: StarCraft II cannot be started.
        """
        copies = config.environment.num_parallel_envs if num_envs is None else num_envs
        if opponent is not None:
            environment = config.environment.model_copy(update={"opponent": opponent})
            config = config.model_copy(update={"environment": environment})
        return ENVIRONMENTS[config.env_type](
            config, Wanted(copies, first, render, device or torch.device("cpu"))
        )


@ENVIRONMENTS.register("skirmish")
def _skirmish(config: RunConfig, wanted: Wanted) -> SkirmishEnv:
    environment = config.environment
    return SkirmishEnv(
        **environment.skirmish.model_dump(),
        num_envs=wanted.num_envs,
        device=wanted.device,
        group_by=environment.group_by,
        groups=environment.groups,
        split=not config.policy.share_policy_params,
        with_state=environment.state,
        first=wanted.first,
    )


@ENVIRONMENTS.register("pettingzoo")
def _pettingzoo(config: RunConfig, wanted: Wanted) -> BatchedEnv:
    task = Task(config.environment.task, config.environment.kwargs)
    return make_batched(task, config, wanted)


@ENVIRONMENTS.register("smac")
def _smac(config: RunConfig, wanted: Wanted) -> BatchedEnv:
    environment = config.environment
    if "seed" in environment.kwargs:
        raise ValueError(
            f"environment.kwargs.seed is {environment.kwargs['seed']}, but every copy's seed "
            "follows from the run's seed; remove it"
        )
    task = Task(environment.task, environment.kwargs)
    make_env = smac_factory(task, environment.smac, environment.name)
    return make_batched(make_env, config, wanted)


@ENVIRONMENTS.register("custom")
def _custom(config: RunConfig, wanted: Wanted) -> EnvBase:
    """What the task makes, as `heteromark.environment.contract` says."""
    environment = config.environment
    task = Task(environment.task, environment.kwargs)
    makes_all = "num_envs" in task.parameters
    made = task(num_envs=wanted.num_envs) if makes_all else task()
    if isinstance(made, EnvBase):
        check_contract(made, wanted.num_envs, environment.name, config.critic)
        _check_options(made, config, wanted.render)
        # whoever else plays in it is its own affair
        made.opponent_pool = None
        return made
    if makes_all:
        raise TypeError(
            f"the factory of environment {environment.name!r} has a parameter num_envs, so it must "
            f"return a torchrl.envs.EnvBase; it returned {type(made).__name__}"
        )
    # only to see what it is: the copies are made where they are stepped
    if hasattr(made, "close"):
        made.close()
    if isinstance(made, ParallelEnv | AECEnv):
        if told := _smac_settings(config):
            raise ValueError(
                f"environment.smac sets {told}, but environment {environment.name!r} is a "
                f"{type(made).__name__} without the SMAC API; leave that out"
            )
        return ENVIRONMENTS["pettingzoo"](config, wanted)
    if missing := missing_from_smac_api(getattr(made, "unwrapped", made)):
        raise TypeError(
            f"the factory of environment {environment.name!r} returned {type(made).__name__}, "
            "which is neither a torchrl.envs.EnvBase nor a pettingzoo ParallelEnv or AECEnv, and "
            f"lacks {', '.join(missing)} of the SMAC API"
        )
    return ENVIRONMENTS["smac"](config, wanted)


def _check_options(env: EnvBase, config: RunConfig, render: bool) -> None:
    """Compare what the config asks for with what a custom EnvBase does by itself.

    Raises:
        ValueError: the config asks for something else.
    """
    environment = config.environment
    itself = (
        f"environment {environment.name!r} is a {type(env).__name__} that makes all copies itself"
    )
    if environment.opponent.kind != "self":
        raise OpponentMisfit(
            environment.opponent.kind,
            f"{itself}, and whoever else plays in it is its own affair; it must be self",
        )
    shared = [name for name, group in env.groups.items() if len(group.agents) > 1]
    for refused, message in (
        (
            environment.groups is not None,
            "environment.groups is set, but it groups its agents; set environment.groups=null",
        ),
        (
            shared and environment.group_by == "agent",
            "environment.group_by is agent, but it puts several agents into the groups "
            f"{', '.join(shared)}; set environment.group_by=prefix",
        ),
        (
            bool(_smac_settings(config)),
            f"environment.smac sets {_smac_settings(config)}, but it has no SMAC API; leave that "
            "out",
        ),
        (
            environment.num_workers > 0,
            f"environment.num_workers is {environment.num_workers}, but it steps its copies; set "
            "environment.num_workers=0",
        ),
        (
            shared and not config.policy.share_policy_params,
            "policy.share_policy_params is false, but it puts several agents into the groups "
            f"{', '.join(shared)}; set policy.share_policy_params=true",
        ),
        (
            environment.state and env.state_size is None,
            "environment.state is true, but it has no state; set environment.state=false",
        ),
        (render and not callable(getattr(env, "render", None)), "it cannot draw: no render()"),
    ):
        if refused:
            raise ValueError(f"{itself}: {message}")


def _smac_settings(config: RunConfig) -> str:
    """What `environment.smac` says that it does not say by default."""
    told = config.environment.smac.model_dump(exclude_defaults=True)
    return ", ".join(f"{key} = {value!r}" for key, value in told.items())


def make_batched(
    make_env: Callable[..., ParallelEnv | AECEnv], config: RunConfig, wanted: Wanted
) -> BatchedEnv:
    """N copies of a PettingZoo environment, Parallel or AEC, with all else as the config says.

    Args:
        make_env: returns a fresh environment; it must be possible to send it to other processes.
        config: see `EnvironmentFactory.create`.
        wanted: see there.

    Raises:
        TypeError, ValueError, ModuleNotFoundError, WorkerDied: see `BatchedEnv`.
    """
    environment = config.environment
    first_env = make_copy(make_env, environment.name, drawing=wanted.render, number=wanted.first)
    make = PettingZooAECEnv if isinstance(first_env, AECEnv) else PettingZooParallelEnv
    return make(
        make_env,
        wanted.num_envs,
        opponent=environment.opponent,
        # a single copy gains nothing from a process of its own
        num_workers=min(environment.num_workers, wanted.num_envs) if wanted.num_envs > 1 else 0,
        group_by=environment.group_by,
        groups=environment.groups,
        split=not config.policy.share_policy_params,
        team_reward=environment.reward == "team",
        with_state=environment.state,
        name=environment.name,
        render=wanted.render,
        first=wanted.first,
        first_env=first_env,
    )
