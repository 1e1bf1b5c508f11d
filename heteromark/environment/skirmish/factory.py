"""Skirmish, as a run config asks for it."""

from __future__ import annotations

from heteromark.config.models.run import RunConfig
from heteromark.environment.registry import ENVIRONMENTS, Wanted
from heteromark.environment.skirmish.env import SkirmishEnv


@ENVIRONMENTS.register("skirmish")
def make_skirmish(config: RunConfig, wanted: Wanted) -> SkirmishEnv:
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
