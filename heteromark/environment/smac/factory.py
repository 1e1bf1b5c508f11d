"""Environments with the SMAC API, as a run config asks for them."""

from __future__ import annotations

from heteromark.config.models.run import RunConfig
from heteromark.environment.pettingzoo.batched import BatchedEnv
from heteromark.environment.pettingzoo.factory import make_batched
from heteromark.environment.registry import ENVIRONMENTS, Wanted
from heteromark.environment.smac.adapter import smac_factory
from heteromark.import_paths import Task


@ENVIRONMENTS.register("smac")
def make_smac(config: RunConfig, wanted: Wanted) -> BatchedEnv:
    environment = config.environment
    if "seed" in environment.kwargs:
        raise ValueError(
            f"environment.kwargs.seed is {environment.kwargs['seed']}, but every copy's seed "
            "follows from the run's seed; remove it"
        )
    task = Task(environment.task, environment.kwargs)
    make_env = smac_factory(task, environment.smac, environment.name)
    return make_batched(make_env, config, wanted)
