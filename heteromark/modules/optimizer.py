"""The optimizer factory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from heteromark.config.components import OptimizerConfig
from heteromark.config.schema import RunConfig
from heteromark.environment.groups import Group
from heteromark.modules.policy import override_of
from heteromark.modules.registry import Registry

OptimizerMaker = Callable[[OptimizerConfig, list[nn.Parameter]], Optimizer]
OPTIMIZERS: Registry[OptimizerMaker] = Registry("optimizer_type")


class OptimizerFactory:
    """Creates one optimizer per network, over the network's own parameters."""

    def create_for_actors(
        self, config: RunConfig, actors: Mapping[str, nn.Module], groups: Mapping[str, Group]
    ) -> dict[str, Optimizer]:
        """Optimizers by group, with the group's overrides."""
        common = config.optimizer
        optimizers = {}
        for name, actor in actors.items():
            override = override_of(common.groups, groups[name])
            changes = override.model_dump(exclude_none=True) if override else {}
            own = common.model_copy(update=changes)
            optimizers[name] = _make(config.optimizer_type, own, actor)
        return optimizers

    def create_for_critics(
        self, config: RunConfig, critics: Mapping[str, nn.Module]
    ) -> dict[str, Optimizer]:
        """Optimizers by critic."""
        common = config.optimizer
        rate = common.critic_learning_rate or common.learning_rate
        own = common.model_copy(update={"learning_rate": rate})
        return {name: _make(config.optimizer_type, own, net) for name, net in critics.items()}


def learning_rate_share(config: OptimizerConfig, iteration: int, num_iterations: int) -> float:
    """What is left of the learning rates in one iteration, counted from 0.

    A function of the iteration alone, so a resumed run needs no scheduler state.
    """
    return 1.0 if config.decay == "none" else 1.0 - iteration / num_iterations


def _make(optimizer_type: str, config: OptimizerConfig, network: nn.Module) -> Optimizer:
    optimizer = OPTIMIZERS[optimizer_type](config, list(network.parameters()))
    for parameters in optimizer.param_groups:
        parameters["initial_lr"] = config.learning_rate
    return optimizer


@OPTIMIZERS.register("adam")
def _adam(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(
        parameters,
        lr=config.learning_rate,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


@OPTIMIZERS.register("adamw")
def _adamw(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


@OPTIMIZERS.register("sgd")
def _sgd(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


@OPTIMIZERS.register("rmsprop")
def _rmsprop(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.RMSprop(
        parameters,
        lr=config.learning_rate,
        alpha=config.alpha,
        eps=config.eps,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
