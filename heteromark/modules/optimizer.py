"""The optimizer factory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from heteromark.config.models.components import OptimizerConfig
from heteromark.config.models.llm import SchedulerConfig
from heteromark.config.models.run import RunConfig
from heteromark.environment.groups import Group, override_of
from heteromark.import_paths import Registry

OptimizerMaker = Callable[[OptimizerConfig, list[nn.Parameter]], Optimizer]
OPTIMIZERS: Registry[OptimizerMaker] = Registry("optimizer_type")


class OptimizerFactory:
    """Creates one optimizer per network."""

    def create_for_actors(
        self, config: RunConfig, actors: Mapping[str, nn.Module], groups: Mapping[str, Group]
    ) -> dict[str, Optimizer]:
        """Create the actors' optimizers by group, with the group's overrides."""
        common = config.optimizer
        optimizers = {}
        for name, actor in actors.items():
            override = override_of(common.groups, groups[name])
            changes = override.model_dump(exclude_none=True) if override else {}
            own = common.model_copy(update=changes)
            optimizers[name] = make_optimizer(config.optimizer_type, own, actor.parameters())
        return optimizers

    def create_for_critics(
        self, config: RunConfig, critics: Mapping[str, nn.Module]
    ) -> dict[str, Optimizer]:
        """Create the critics' optimizers by critic name."""
        common = config.optimizer
        rate = common.critic_learning_rate or common.learning_rate
        own = common.model_copy(update={"learning_rate": rate})
        return {
            name: make_optimizer(config.optimizer_type, own, net.parameters())
            for name, net in critics.items()
        }


def learning_rate_share(config: SchedulerConfig, iteration: int, num_iterations: int) -> float:
    """Return the factor of the learning rates in an iteration, counted from 0.

    It depends only on the iteration, so a resumed run needs no scheduler state. It rises to 1 over
    the first `warmup_ratio` of the iterations, and decays over the rest.
    """
    warmup = round(config.warmup_ratio * num_iterations)
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    if config.decay == "none":
        return 1.0
    passed = (iteration - warmup) / (num_iterations - warmup)
    return 1.0 - passed if config.decay == "linear" else (1.0 + math.cos(math.pi * passed)) / 2


def set_learning_rates(config: RunConfig, optimizers: Iterable[Optimizer], iteration: int) -> float:
    """Set all learning rates for an iteration, counted from 0; return the common one."""
    share = learning_rate_share(config.scheduler, iteration, config.num_iterations)
    for optimizer in optimizers:
        for parameters in optimizer.param_groups:
            parameters["lr"] = parameters["initial_lr"] * share
    return config.optimizer.learning_rate * share


def make_optimizer(
    optimizer_type: str, config: OptimizerConfig, parameters: Iterable[nn.Parameter]
) -> Optimizer:
    """Create an optimizer that stores its initial learning rate in each parameter group."""
    optimizer = OPTIMIZERS[optimizer_type](config, list(parameters))
    for group in optimizer.param_groups:
        group["initial_lr"] = config.learning_rate
    return optimizer


def _built_in(optimizer: Callable[..., Optimizer], *fields: str, **options: Any) -> OptimizerMaker:
    """Return a maker of a torch optimizer that reads these config fields and has these options."""

    def make(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimizer:
        given = {field: getattr(config, field) for field in ("weight_decay", *fields)}
        return optimizer(parameters, lr=config.learning_rate, **given, **options)

    return make


OPTIMIZERS.register("adam")(_built_in(torch.optim.Adam, "betas", "eps", fused=True))
OPTIMIZERS.register("adamw")(_built_in(torch.optim.AdamW, "betas", "eps", fused=True))
OPTIMIZERS.register("sgd")(_built_in(torch.optim.SGD, "momentum", "nesterov"))
OPTIMIZERS.register("rmsprop")(_built_in(torch.optim.RMSprop, "alpha", "eps", "momentum"))
