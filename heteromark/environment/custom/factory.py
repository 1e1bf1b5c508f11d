"""What a factory of the user's own makes, as a run config asks for it."""

from __future__ import annotations

from pettingzoo import AECEnv, ParallelEnv
from torchrl.envs import EnvBase

from heteromark.config.models.run import RunConfig
from heteromark.environment.contract import check_contract
from heteromark.environment.errors import OpponentMisfit
from heteromark.environment.pettingzoo.factory import make_pettingzoo
from heteromark.environment.registry import ENVIRONMENTS, Wanted
from heteromark.environment.smac.adapter import missing_from_smac_api
from heteromark.environment.smac.factory import make_smac
from heteromark.import_paths import Task


@ENVIRONMENTS.register("custom")
def make_custom(config: RunConfig, wanted: Wanted) -> EnvBase:
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
        return make_pettingzoo(config, wanted)
    if missing := missing_from_smac_api(getattr(made, "unwrapped", made)):
        raise TypeError(
            f"the factory of environment {environment.name!r} returned {type(made).__name__}, "
            "which is neither a torchrl.envs.EnvBase nor a pettingzoo ParallelEnv or AECEnv, and "
            f"lacks {', '.join(missing)} of the SMAC API"
        )
    return make_smac(config, wanted)


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
