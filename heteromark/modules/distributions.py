"""Distributions of actions that torch and TorchRL do not have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Categorical, Independent

from heteromark.config.models.components import GaussianConfig

_SMALLEST_STD = 1e-4


class GaussianHead(nn.Module):
    """Turns a network's outputs into mean and standard deviation of each action dimension.

    An output of 0 is the middle of the action's range, and 1 its upper bound (before tanh, if
    actions are squashed by tanh). The standard deviation is in these units too. It is softplus of a
    parameter, or its sigmoid times `max_std`.

    A dimension whose bounds are equal gets a range of 1: the environment clips its actions.

    Args:
        config: how the standard deviation is found.
        space: the actions, [size].

    Source: Andrychowicz et al., What Matters for On-Policy Deep Actor-Critic Methods?, ICLR 2021;
    Zhong et al., Heterogeneous-Agent RL, JMLR 2024 (the sigmoid).
    """

    low: Tensor
    high: Tensor
    middle: Tensor
    reach: Tensor

    def __init__(self, config: GaussianConfig, space: spaces.Box) -> None:
        super().__init__()
        low = torch.as_tensor(space.low, dtype=torch.float32)
        high = torch.as_tensor(space.high, dtype=torch.float32)
        fixed = low == high
        self._squashes = config.bounds == "tanh"
        self._max_std = config.max_std
        share = config.initial_std / (config.max_std or 1.0)
        start = math.log(math.expm1(share)) if config.max_std is None else _logit(share)
        self.register_buffer("low", torch.where(fixed, low - 0.5, low), persistent=False)
        self.register_buffer("high", torch.where(fixed, high + 0.5, high), persistent=False)
        self.register_buffer("middle", (self.low + self.high) / 2, persistent=False)
        self.register_buffer("reach", (self.high - self.low) / 2, persistent=False)
        self.start = start
        self.raw_std: nn.Parameter | None = None
        if config.std == "shared":
            self.raw_std = nn.Parameter(torch.zeros(space.shape))

    def forward(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, [..., size] each.

        Args:
            outputs: [..., size], or [..., 2 * size] with the standard deviation by observation.
        """
        if self.raw_std is None:
            mean, raw = outputs.chunk(2, -1)
        else:
            mean, raw = outputs, self.raw_std.expand_as(outputs)
        raw = raw + self.start
        if self._max_std is None:
            std = nn.functional.softplus(raw)
        else:
            std = self._max_std * raw.sigmoid()
        std = std.clamp_min(_SMALLEST_STD)
        if self._squashes:
            return mean, std
        return self.middle + self.reach * mean, self.reach * std


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


class MultiCategorical(Independent[Categorical]):
    """Independent choices: one categorical distribution for each dimension of an action.

    Args:
        logits: [..., sum(choices)], those of each dimension after those of the one before.
        choices: number of choices by dimension.
        event_dims: 1: log-probabilities are those of the whole action, [...]; 0: of each dimension,
            [..., dimensions].
    """

    def __init__(self, logits: Tensor, choices: Sequence[int], event_dims: int = 1) -> None:
        parts = logits.split(list(choices), -1)
        widest = max(choices)
        padded = [
            nn.functional.pad(part, (0, widest - part.shape[-1]), value=-math.inf) for part in parts
        ]
        together = torch.stack(padded, -2)
        super().__init__(
            Categorical(logits=together, validate_args=False), event_dims, validate_args=False
        )
