"""Create the environments of user-defined factories from a run config."""

from __future__ import annotations

from pettingzoo import AECEnv, ParallelEnv
from torchrl.envs import EnvBase

from heteromark.config.models.run import RunConfig
from heteromark.environment.contract import check_contract
from heteromark.environment.errors import IncompatibleOpponent
from heteromark.environment.pettingzoo.factory import make_pettingzoo
from heteromark.environment.registry import ENVIRONMENTS, EnvironmentRequest, task_of
from heteromark.environment.smac.adapter import missing_from_smac_api
from heteromark.environment.smac.factory import make_smac


@ENVIRONMENTS.register("custom")
def make_custom(config: RunConfig, request: EnvironmentRequest) -> EnvBase:
    """Create the environment of a user-defined task; see `heteromark.environment.contract`."""
    environment = config.environment
    task = task_of(config)
    makes_all = "num_envs" in task.parameters
    made = task(num_envs=request.num_envs) if makes_all else task()
    if isinstance(made, EnvBase):
        check_contract(made, request.num_envs, environment.name, config.critic)
        _check_options(made, config, request.render)
        # a custom EnvBase controls its opponents itself
        made.opponent_pool = None
        return made
    if makes_all:
        raise TypeError(
            f"the factory of environment {environment.name!r} has a parameter num_envs, so it must "
            f"return a torchrl.envs.EnvBase, but it returned {type(made).__name__}"
        )
    # this copy only showed the type: copies are created in the process that steps them
    if hasattr(made, "close"):
        made.close()
    if isinstance(made, ParallelEnv | AECEnv):
        if settings := _smac_settings(config):
            raise ValueError(
                f"environment.smac sets {settings}, but environment {environment.name!r} is a "
                f"{type(made).__name__} without the SMAC API; remove these settings"
            )
        return make_pettingzoo(config, request)
    if missing := missing_from_smac_api(getattr(made, "unwrapped", made)):
        raise TypeError(
            f"the factory of environment {environment.name!r} returned {type(made).__name__}, "
            "which is neither a torchrl.envs.EnvBase nor a pettingzoo ParallelEnv or AECEnv, and "
            f"lacks {', '.join(missing)} from the SMAC API"
        )
    return make_smac(config, request)


def _check_options(env: EnvBase, config: RunConfig, render: bool) -> None:
    """Check that the config has no settings that a custom EnvBase cannot follow.

    Raises:
        ValueError: it has such a setting.
    """
    environment = config.environment
    prefix = (
        f"environment {environment.name!r} is a {type(env).__name__} that creates all copies itself"
    )
    if environment.opponent.kind != "self":
        raise IncompatibleOpponent(
            environment.opponent.kind,
            f"{prefix}, so it also controls its opponents; the opponent must be self",
        )
    shared = [name for name, group in env.groups.items() if len(group.agents) > 1]
    for refused, message in (
        (
            environment.groups is not None,
            "environment.groups is set, but it defines its groups itself; set "
            "environment.groups=null",
        ),
        (
            shared and environment.group_by == "agent",
            "environment.group_by is agent, but these of its groups have several agents: "
            f"{', '.join(shared)}; set environment.group_by=prefix",
        ),
        (
            bool(_smac_settings(config)),
            f"environment.smac sets {_smac_settings(config)}, but it has no SMAC API; remove these "
            "settings",
        ),
        (
            environment.num_workers > 0,
            f"environment.num_workers is {environment.num_workers}, but it steps its copies "
            "itself; set environment.num_workers=0",
        ),
        (
            shared and not config.policy.share_policy_params,
            "policy.share_policy_params is false, but these of its groups have several agents: "
            f"{', '.join(shared)}; set policy.share_policy_params=true",
        ),
        (
            environment.state and config.may_read_state and env.state_size is None,
            "environment.state is true, but it has no state; set environment.state=false",
        ),
        (
            render and not callable(getattr(env, "render", None)),
            "it cannot render: it has no method render()",
        ),
    ):
        if refused:
            raise ValueError(f"{prefix}: {message}")


def _smac_settings(config: RunConfig) -> str:
    """List the settings of `environment.smac` that differ from their defaults."""
    settings = config.environment.smac.model_dump(exclude_defaults=True)
    return ", ".join(f"{key} = {value!r}" for key, value in settings.items())
