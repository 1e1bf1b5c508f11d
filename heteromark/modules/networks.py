"""Networks over agents; plain modules without TensorDict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
_HIDDEN_GAIN = math.sqrt(2)


def make_mlp(
    in_features: int,
    out_features: int,
    hidden_sizes: Sequence[int],
    activation: str,
    *,
    head_gain: float,
) -> nn.Sequential:
    """Build a perceptron over the last dimension, with orthogonal weights and zero biases.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        hidden_sizes: widths of the hidden layers.
        activation: tanh, relu or elu.
        head_gain: gain of the last layer; 0.01 makes the initial policy nearly uniform. Hidden
            layers have gain sqrt(2). (Andrychowicz et al., What Matters for On-Policy Deep
            Actor-Critic Methods?, ICLR 2021.)
    """
    layers = _hidden_layers([in_features, *hidden_sizes], activation)
    return nn.Sequential(*layers, _linear(hidden_sizes[-1], out_features, head_gain))


class RecurrentNetwork(nn.Module):
    """A perceptron, then a gated recurrent unit, then a linear head.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        hidden_sizes: widths of the perceptron's hidden layers.
        activation: tanh, relu or elu.
        head_gain: gain of the head.
        hidden_size: size of the recurrent hidden state.

    Source: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_sizes: Sequence[int],
        activation: str,
        *,
        head_gain: float,
        hidden_size: int,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.body = nn.Sequential(*_hidden_layers([in_features, *hidden_sizes], activation))
        self.cell = nn.GRUCell(hidden_sizes[-1], hidden_size)
        for weight in (self.cell.weight_ih, self.cell.weight_hh):
            nn.init.orthogonal_(weight)
        for bias in (self.cell.bias_ih, self.cell.bias_hh):
            nn.init.zeros_(bias)
        self.head = _linear(hidden_size, out_features, head_gain)

    def forward(
        self, inputs: Tensor, hidden: Tensor, step_count: Tensor, active: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run one step or a sequence of steps. The hidden state is reset where an episode begins.

        An inactive agent keeps its hidden state. So an agent that waits for its turn remembers its
        own turns, regardless of the number of other turns in between.

        Args:
            inputs: a step [B, *agents, in_features], or a sequence [B, T, *agents, in_features].
            hidden: the state before the step, [B, *agents, hidden_size]; for a sequence
                [B, T, *agents, hidden_size], of which only the first step is used.
            step_count: [B, 1] or [B, T, 1], steps of the episode so far; 0 at its beginning.
            active: bool [B, *agents] or [B, T, *agents], agents that act in the step; None: all.

        Returns:
            Outputs [..., out_features], and the states after each step, shaped as `hidden`.
        """
        features = self.body(inputs)
        if step_count.dim() == 2:
            after = self._advance(features, hidden, step_count, active)
        else:
            state, states = hidden[:, 0], []
            for t in range(features.shape[1]):
                active_now = None if active is None else active[:, t]
                state = self._advance(features[:, t], state, step_count[:, t], active_now)
                states.append(state)
            after = torch.stack(states, dim=1)
        return self.head(after), after

    def _advance(
        self, features: Tensor, hidden: Tensor, step_count: Tensor, active: Tensor | None
    ) -> Tensor:
        begins = (step_count == 0).reshape(-1, *[1] * (hidden.dim() - 1))
        hidden = torch.where(begins, 0.0, hidden)
        after = self.cell(features.flatten(0, -2), hidden.flatten(0, -2)).view_as(hidden)
        return after if active is None else torch.where(active.unsqueeze(-1), after, hidden)


class JointObservation(nn.Module):
    """Concatenates the observations of all agents, for a centralised critic.

    The inputs are the observations [..., n_g, size_g] of every group, then the flags [..., n_g] of
    every group for active agents. Observations of inactive agents are replaced by zeros, so that
    they do not affect the value. Returns [..., sum of n_g * size_g].
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


def _hidden_layers(widths: Sequence[int], activation: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [_linear(width_in, width_out, _HIDDEN_GAIN), _ACTIVATIONS[activation]()]
    return layers


def _linear(in_features: int, out_features: int, gain: float) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
