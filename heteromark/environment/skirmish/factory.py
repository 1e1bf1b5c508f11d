"""Create Skirmish from a run config."""

from __future__ import annotations

from heteromark.config.models.run import RunConfig
from heteromark.environment.registry import ENVIRONMENTS, EnvironmentRequest
from heteromark.environment.skirmish.env import SkirmishEnv


@ENVIRONMENTS.register("skirmish")
def make_skirmish(config: RunConfig, request: EnvironmentRequest) -> SkirmishEnv:
    environment = config.environment
    return SkirmishEnv(
        **environment.skirmish.model_dump(),
        num_envs=request.num_envs,
        device=request.device,
        group_by=environment.group_by,
        groups=environment.groups,
        split=not config.policy.share_policy_params,
        with_state=environment.state and config.may_read_state,
        first=request.first,
    )
