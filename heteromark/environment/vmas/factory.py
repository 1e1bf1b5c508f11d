"""Create environments of VMAS from a run config."""

from __future__ import annotations

from heteromark.config.models.run import RunConfig
from heteromark.environment.registry import ENVIRONMENTS, EnvironmentRequest
from heteromark.environment.vmas.env import VMASEnv


@ENVIRONMENTS.register("vmas")
def make_vmas(config: RunConfig, request: EnvironmentRequest) -> VMASEnv:
    environment = config.environment
    if request.render:
        raise ValueError(
            f"environment {environment.name!r} cannot render: VMAS draws with OpenGL in a window, "
            "which is not supported here; use vmas.render_interactively in a program of your own"
        )
    return VMASEnv(
        **environment.kwargs,
        num_envs=request.num_envs,
        device=request.device,
        group_by=environment.group_by,
        groups=environment.groups,
        split=not config.policy.share_policy_params,
        team_reward=environment.reward == "team",
        first=request.first,
    )
