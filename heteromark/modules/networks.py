"""Multi-layer perceptrons over agents; plain modules that know no TensorDict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


class AgentLinear(nn.Module):
    """One linear layer per agent: [..., n_agents, in_features] → [..., n_agents, out_features]."""

    def __init__(self, n_agents: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_agents, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(n_agents, out_features))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("...ai,aoi->...ao", inputs, self.weight) + self.bias


def make_mlp(
    in_features: int,
    out_features: int,
    hidden_sizes: Sequence[int],
    activation: str,
    *,
    head_gain: float,
    n_agents: int | None = None,
) -> nn.Sequential:
    """A perceptron over the last dimension, orthogonally initialised, biases zero.

    Args:
        in_features, out_features, hidden_sizes: layer widths.
        activation: tanh, relu or elu.
        head_gain: gain of the last layer; 0.01 starts a policy near uniform. Hidden layers have
            gain sqrt(2). (Andrychowicz et al., What Matters for On-Policy Deep Actor-Critic
            Methods?, ICLR 2021.)
        n_agents: give each of n agents weights of its own; by default all share one set.
    """
    widths = [in_features, *hidden_sizes, out_features]
    layers: list[nn.Module] = []
    for i, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
        last = i == len(hidden_sizes)
        if n_agents is None:
            layer: nn.Module = nn.Linear(width_in, width_out)
            weights = [layer.weight]
        else:
            layer = AgentLinear(n_agents, width_in, width_out)
            weights = list(layer.weight.detach())
        for weight in weights:
            nn.init.orthogonal_(weight, head_gain if last else math.sqrt(2))
        nn.init.zeros_(layer.bias)
        layers.append(layer)
        if not last:
            layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class JointObservation(nn.Module):
    """Concatenates what all agents of all groups see.

    Takes the observations [..., n_g, size_g] of every group, then the flags [..., n_g] of every
    group that say which agents are there. What absent agents "see" is replaced by zeros, so it
    cannot reach a value. Returns [..., sum of n_g * size_g].
    """

    def forward(self, *observations_then_active: Tensor) -> Tensor:
        half = len(observations_then_active) // 2
        seen = [
            torch.where(active.unsqueeze(-1), observation, 0.0).flatten(-2)
            for observation, active in zip(
                observations_then_active[:half], observations_then_active[half:], strict=True
            )
        ]
        return torch.cat(seen, dim=-1)
