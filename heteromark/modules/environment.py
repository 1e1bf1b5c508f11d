"""The environment factory."""

from __future__ import annotations

from collections.abc import Callable

from pettingzoo import AECEnv, ParallelEnv

from heteromark.config.schema import OpponentConfig, RunConfig
from heteromark.environment.aec import PettingZooAECEnv
from heteromark.environment.batched import BatchedEnv
from heteromark.environment.copies import make_copy
from heteromark.environment.pettingzoo import PettingZooParallelEnv
from heteromark.environment.task import Task
from heteromark.modules.registry import Registry

EnvironmentMaker = Callable[[RunConfig, int, bool], BatchedEnv]
ENVIRONMENTS: Registry[EnvironmentMaker] = Registry("env_type")


class EnvironmentFactory:
    """Creates the batched environment that a run config asks for."""

    def create(
        self,
        config: RunConfig,
        num_envs: int | None = None,
        opponent: OpponentConfig | None = None,
        render: bool = False,
    ) -> BatchedEnv:
        """An unseeded environment of batch size [num_envs], on the CPU.

        Args:
            config: the run.
            num_envs: number of copies; by default `environment.num_parallel_envs`.
            opponent: who plays the other seats of a turn-based game; by default
                `environment.opponent`.
            render: make copy 0 so that `render()` draws it.

        Raises:
            ModuleNotFoundError, ValueError: the task cannot be imported, its agents do not fit the
                groups of the config, or it cannot draw.
        """
        copies = config.environment.num_parallel_envs if num_envs is None else num_envs
        if opponent is not None:
            environment = config.environment.model_copy(update={"opponent": opponent})
            config = config.model_copy(update={"environment": environment})
        return ENVIRONMENTS[config.env_type](config, copies, render)


@ENVIRONMENTS.register("pettingzoo")
def _pettingzoo(config: RunConfig, num_envs: int, render: bool) -> BatchedEnv:
    task = Task(config.environment.task, config.environment.kwargs)
    return make_batched(task, config, num_envs, render)


def make_batched(
    make_env: Callable[..., ParallelEnv | AECEnv], config: RunConfig, num_envs: int, render: bool
) -> BatchedEnv:
    """N copies of a PettingZoo environment, Parallel or AEC, with all else as the config says.

    Args:
        make_env: returns a fresh environment; it must be possible to send it to other processes.
        config, num_envs, render: see `EnvironmentFactory.create`.

    Raises:
        TypeError: `make_env` returns something else.
        ValueError: see `PettingZooParallelEnv` and `PettingZooAECEnv`; or a Parallel environment is
            to have opponents.
    """
    environment = config.environment
    first_env = make_copy(make_env, environment.name, drawing=render)
    common = {
        # a single copy gains nothing from a process of its own
        "num_workers": min(environment.num_workers, num_envs) if num_envs > 1 else 0,
        "group_by": environment.group_by,
        "groups": environment.groups,
        "split": not config.policy.share_policy_params,
        "team_reward": environment.reward == "team",
        "with_state": environment.state,
        "name": environment.name,
        "render": render,
        "first_env": first_env,
    }
    if isinstance(first_env, AECEnv):
        return PettingZooAECEnv(make_env, num_envs, opponent=environment.opponent, **common)
    if environment.opponent.kind != "self":
        raise ValueError(
            f"environment.opponent.kind is {environment.opponent.kind}, but in environment "
            f"{environment.name!r} all agents act at once; opponents play in turn-based (AEC) "
            "environments only"
        )
    return PettingZooParallelEnv(make_env, num_envs, **common)
