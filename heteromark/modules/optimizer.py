"""The optimizer factory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from heteromark.config.schema import OptimizerConfig, RunConfig
from heteromark.modules.registry import Registry

OPTIMIZERS: Registry[Callable[[OptimizerConfig, nn.Module], Optimizer]] = Registry("optimizer_type")


class OptimizerFactory:
    """Creates one optimizer per network."""

    def create(self, config: RunConfig, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        """Optimizers by the networks' names, over the networks' own parameters."""
        make_optimizer = OPTIMIZERS[config.optimizer_type]
        return {name: make_optimizer(config.optimizer, net) for name, net in networks.items()}


@OPTIMIZERS.register("adam")
def _adam(config: OptimizerConfig, network: nn.Module) -> Optimizer:
    return torch.optim.Adam(
        network.parameters(),
        lr=config.learning_rate,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate_at(config: OptimizerConfig, iteration: int, num_iterations: int) -> float:
    """The learning rate of one iteration, counted from 0.

    A function of the iteration alone, so a resumed run needs no scheduler state.
    """
    if config.decay == "none":
        return config.learning_rate
    return config.learning_rate * (1.0 - iteration / num_iterations)
