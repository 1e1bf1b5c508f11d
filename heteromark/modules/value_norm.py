"""Normalisation of the values that a critic learns."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.modules.value_norm import PopArtValueNorm


class PreciseValueNorm(PopArtValueNorm):
    """`PopArtValueNorm` of scalars [..., 1], with running averages in double precision.

    The variance is the mean of the squares minus the square of the mean. In single precision it is
    off by a quarter if the mean is 300 times the deviation, and useless at 1000 times. Results have
    the precision of the argument.

    Args:
        floor: lower limit of the variance.
        device: of the statistics.

    Source: Yu et al., The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games,
    NeurIPS 2022.
    """

    def __init__(self, floor: float = 1e-5, device: torch.device | None = None) -> None:
        super().__init__(shape=1, device=device)
        self.double()
        self.floor = floor

    def _running_stats(self) -> tuple[Tensor, Tensor]:
        mean, variance = super()._running_stats()
        return mean, variance.clamp(min=self.floor)

    def update(self, value_target: Tensor) -> None:
        super().update(value_target.double())

    def normalize(self, value_target: Tensor) -> Tensor:
        return super().normalize(value_target).to(value_target)

    def denormalize(self, normalised_value: Tensor) -> Tensor:
        return super().denormalize(normalised_value).to(normalised_value)
