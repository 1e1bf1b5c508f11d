"""Create environments with the SMAC API from a run config."""

from __future__ import annotations

from heteromark.config.models.run import RunConfig
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.factory import make_batched
from heteromark.environment.registry import ENVIRONMENTS, EnvironmentRequest, task_of
from heteromark.environment.smac.adapter import smac_factory


@ENVIRONMENTS.register("smac")
def make_smac(config: RunConfig, request: EnvironmentRequest) -> BatchedEnv:
    environment = config.environment
    if "seed" in environment.kwargs:
        raise ValueError(
            f"environment.kwargs.seed is {environment.kwargs['seed']}, but every copy's seed is "
            "derived from the run's seed; remove it"
        )
    make_env = smac_factory(task_of(config), environment.smac, environment.name)
    return make_batched(make_env, config, request)
