"""The trainable parts of a run, for any kind of agents, and the optimizer step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torchrl.data import ReplayBuffer
    from torchrl.modules.value_norm import ValueNorm

    from heteromark.environment.groups import Group
    from heteromark.environment.opponents.pool import OpponentPool
    from heteromark.modules.loss import Losses


class Diverged(Exception):
    """Training produced a quantity that is not finite; `reason` names the quantity."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def of(self, owner: str, iteration: int) -> Diverged:
        """Return a copy that names the quantity's owner and the iteration, counted from 0."""
        return Diverged(f"{owner}: {self.reason} in iteration {iteration + 1}")


@dataclass(frozen=True)
class Learner:
    """The networks of a run and what is needed to train them; dicts by group or by network name.

    A checkpoint contains the states of actors, critics, optimizers, value norms and opponent pool.
    """

    actors: Mapping[str, nn.Module]
    actor_optimizers: Mapping[str, Optimizer]
    critics: Mapping[str, nn.Module] = field(default_factory=dict)
    critic_optimizers: Mapping[str, Optimizer] = field(default_factory=dict)
    value_norms: Mapping[str, ValueNorm] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    losses: Losses | None = None  # None for language models: their algorithms create the losses
    actor_buffers: Mapping[str, ReplayBuffer] = field(default_factory=dict)
    critic_buffers: Mapping[str, ReplayBuffer] = field(default_factory=dict)
    turn_based: bool = False  # the environment's agents act in turns
    opponent_pool: OpponentPool | None = None  # past policies that the environment plays against


def take_step(
    optimizer: Optimizer, max_grad_norm: float | None, measured: Mapping[str, Tensor | float]
) -> dict[str, float]:
    """Clip the gradients and take one optimizer step, unless a quantity is not finite.

    Args:
        optimizer: holds all parameters whose gradients are clipped together.
        max_grad_norm: None: gradients are measured, but not clipped.
        measured: losses and other quantities that must be finite before the step.

    Returns:
        The measured numbers, and grad_norm before clipping.

    Raises:
        Diverged: one of these is not finite; no weight was changed.
    """
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.clip_grad_norm_(
        parameters, math.inf if max_grad_norm is None else max_grad_norm
    )
    tensors = {name: torch.as_tensor(value).detach() for name, value in measured.items()}
    tensors["grad_norm"] = norm
    # Transfer all numbers at once, and check them before bad gradients can change the weights.
    values = torch.stack([value.to(norm) for value in tensors.values()]).tolist()
    numbers = dict(zip(tensors, values, strict=True))
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise Diverged(f"{name} is {number}")
    optimizer.step()
    return numbers
