"""Create PettingZoo environments from a run config."""

from __future__ import annotations

from collections.abc import Callable

from pettingzoo import AECEnv, ParallelEnv

from heteromark.config.models.run import RunConfig
from heteromark.environment.pettingzoo.aec import PettingZooAECEnv
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.copies import make_copy
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.environment.registry import ENVIRONMENTS, EnvironmentRequest, task_of


@ENVIRONMENTS.register("pettingzoo")
def make_pettingzoo(config: RunConfig, request: EnvironmentRequest) -> BatchedEnv:
    return make_batched(task_of(config), config, request)


def make_batched(
    make_env: Callable[..., ParallelEnv | AECEnv], config: RunConfig, request: EnvironmentRequest
) -> BatchedEnv:
    """Create N copies of a PettingZoo environment, Parallel or AEC, as configured.

    Args:
        make_env: returns a fresh environment; must be picklable if worker processes are used.
        config: see `EnvironmentFactory.create`.
        request: see `EnvironmentRequest`.

    Raises:
        TypeError, ValueError, ModuleNotFoundError, WorkerDied: see `BatchedEnv`.
    """
    environment = config.environment
    first_env = make_copy(make_env, environment.name, render=request.render, number=request.first)
    make = PettingZooAECEnv if isinstance(first_env, AECEnv) else PettingZooParallelEnv
    return make(
        make_env,
        request.num_envs,
        opponent=environment.opponent,
        # a separate process does not make a single copy faster
        num_workers=min(environment.num_workers, request.num_envs) if request.num_envs > 1 else 0,
        group_by=environment.group_by,
        groups=environment.groups,
        split=not config.policy.share_policy_params,
        team_reward=environment.reward == "team",
        with_state=environment.state and config.may_read_state,
        name=environment.name,
        render=request.render,
        first=request.first,
        first_env=first_env,
    )
