"""What algorithms train, whatever kind of agents they train, and the step of an optimizer."""

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
    """Training produced a quantity that is not finite; `reason` names it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def of(self, owner: str, iteration: int) -> Diverged:
        """The same, with whose quantity it is, and in which iteration, counted from 0."""
        return Diverged(f"{owner}: {self.reason} in iteration {iteration + 1}")


@dataclass(frozen=True)
class Learner:
    """What a run trains and trains with; dicts by group, or by name of the policy or critic.

    A checkpoint holds the states of actors, critics, optimizers, value norms and opponent pool.
    """

    actors: Mapping[str, nn.Module]
    actor_optimizers: Mapping[str, Optimizer]
    critics: Mapping[str, nn.Module] = field(default_factory=dict)
    critic_optimizers: Mapping[str, Optimizer] = field(default_factory=dict)
    value_norms: Mapping[str, ValueNorm] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    losses: Losses | None = None  # of networks; algorithms of language models make their own
    actor_buffers: Mapping[str, ReplayBuffer] = field(default_factory=dict)
    critic_buffers: Mapping[str, ReplayBuffer] = field(default_factory=dict)
    turn_based: bool = False  # the environment's agents wait for their turns
    opponent_pool: OpponentPool | None = None  # that the environment plays against


def take_step(
    optimizer: Optimizer, max_grad_norm: float | None, measured: Mapping[str, Tensor | float]
) -> dict[str, float]:
    """Clip the gradients and take one step, unless something is not finite.

    Args:
        optimizer: of all parameters whose gradients are clipped together.
        max_grad_norm: None: gradients are measured, but not clipped.
        measured: losses, and what else must be finite before the step.

    Returns:
        the measured numbers, and grad_norm, of the gradients before clipping.

    Raises:
        Diverged: one of them is not finite; no weight was changed.
    """
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.clip_grad_norm_(
        parameters, math.inf if max_grad_norm is None else max_grad_norm
    )
    told = {name: torch.as_tensor(value).detach() for name, value in measured.items()}
    told["grad_norm"] = norm
    # one transfer from the device, before the step that bad gradients would spoil
    values = torch.stack([value.to(norm) for value in told.values()]).tolist()
    numbers = dict(zip(told, values, strict=True))
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise Diverged(f"{name} is {number}")
    optimizer.step()
    return numbers
