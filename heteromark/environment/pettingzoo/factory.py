"""PettingZoo environments, as a run config asks for them."""

from __future__ import annotations

from collections.abc import Callable

from pettingzoo import AECEnv, ParallelEnv

from heteromark.config.models.run import RunConfig
from heteromark.environment.pettingzoo.aec import PettingZooAECEnv
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.copies import make_copy
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.environment.registry import ENVIRONMENTS, Wanted
from heteromark.import_paths import Task


@ENVIRONMENTS.register("pettingzoo")
def make_pettingzoo(config: RunConfig, wanted: Wanted) -> BatchedEnv:
    task = Task(config.environment.task, config.environment.kwargs)
    return make_batched(task, config, wanted)


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
