"""Networks over agents; plain modules without TensorDict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from heteromark.environment.groups import Image

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
}
_INITIALIZE = {"orthogonal": nn.init.orthogonal_, "xavier": nn.init.xavier_uniform_}
_HIDDEN_GAIN = math.sqrt(2)


@dataclass(frozen=True)
class Layers:
    """The layers of a perceptron, and of the perceptron in a recurrent network.

    Hidden layers have gain sqrt(2), biases start at 0. (Andrychowicz et al., What Matters for
    On-Policy Deep Actor-Critic Methods?, ICLR 2021.)
    """

    in_features: int
    out_features: int
    hidden_sizes: Sequence[int]
    activation: str = "tanh"  # tanh, relu, elu, gelu, leaky_relu, selu or sigmoid
    head_gain: float = 1.0  # of the last layer; 0.01 makes the initial policy nearly uniform
    initialization: str = "orthogonal"  # of weights; or xavier
    layer_norm: bool = False  # after each hidden layer's activation
    feature_norm: bool = False  # layer normalisation of the input
    observation_norm: bool = False  # see `RunningNorm`

    def body(self) -> list[nn.Module]:
        """Create all layers but the last."""
        layers: list[nn.Module] = []
        if self.observation_norm:
            layers.append(RunningNorm(self.in_features))
        if self.feature_norm:
            layers.append(nn.LayerNorm(self.in_features))
        for width_in, width_out in itertools.pairwise([self.in_features, *self.hidden_sizes]):
            layers += [self._linear(width_in, width_out, _HIDDEN_GAIN)]
            layers.append(_ACTIVATIONS[self.activation]())
            if self.layer_norm:
                layers.append(nn.LayerNorm(width_out))
        return layers

    def head(self, in_features: int) -> nn.Linear:
        """Create the last layer."""
        return self._linear(in_features, self.out_features, self.head_gain)

    def _linear(self, in_features: int, out_features: int, gain: float) -> nn.Linear:
        layer = nn.Linear(in_features, out_features)
        _INITIALIZE[self.initialization](layer.weight, gain)
        nn.init.zeros_(layer.bias)
        return layer


def make_mlp(layers: Layers) -> nn.Sequential:
    """Build a perceptron over the last dimension."""
    return nn.Sequential(*layers.body(), layers.head(layers.hidden_sizes[-1]))


class RunningNorm(nn.Module):
    """Shifts and scales each feature by its running mean and standard deviation.

    `update` changes the statistics, never `forward`, so that a policy stays the same while a batch
    is collected and trained on. Before the first update, nothing is changed. Results are clipped to
    -10 to 10. Statistics are in double precision, and part of the state dict.

    Source: Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
    1979; Dhariwal et al., OpenAI Baselines, 2017.
    """

    mean: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, dtype=torch.double))
        self.register_buffer("squares", torch.zeros(features, dtype=torch.double))
        self.register_buffer("count", torch.zeros((), dtype=torch.double))

    @torch.no_grad()
    def update(self, inputs: Tensor) -> None:
        """Add inputs [rows, features] to the statistics."""
        if not len(inputs):
            return
        rows = inputs.double()
        mean, count = rows.mean(0), len(rows)
        total = self.count + count
        distance = mean - self.mean
        self.squares += (rows - mean).square().sum(0)
        self.squares += distance.square() * (self.count * count / total)
        self.mean += distance * (count / total)
        self.count.copy_(total)

    def forward(self, inputs: Tensor) -> Tensor:
        variance = torch.where(self.count > 0, self.squares / self.count.clamp(min=1), 1.0)
        scale = (variance + 1e-8).rsqrt()
        return ((inputs - self.mean.to(inputs)) * scale.to(inputs)).clamp(-10.0, 10.0)


class ConvolutionalNetwork(nn.Module):
    """Convolutions over one or several pictures, then a perceptron over all features.

    Args:
        layers: of the perceptron; `in_features` is that of the flattened pictures.
        pictures: by kind of picture, its number and its form. Pictures of a kind share filters.
        channels: of the convolutional layers, each followed by the activation.
        kernel_size: width and height of the filters.
        stride: step of the filters.
        output_size: width and height to which the last layer is averaged, if it is larger.

    Source: Mnih et al., Human-level control through deep reinforcement learning, Nature 2015.
    """

    def __init__(
        self,
        layers: Layers,
        pictures: Sequence[tuple[int, Image]],
        *,
        channels: Sequence[int],
        kernel_size: int,
        stride: int,
        output_size: int,
    ) -> None:
        super().__init__()
        self.pictures = tuple(pictures)
        self.filters = nn.ModuleList()
        features = 0
        for number, image in pictures:
            depth, height, width = image.channels_then_size
            convolutions: list[nn.Module] = []
            for before, after in itertools.pairwise([depth, *channels]):
                convolution = nn.Conv2d(before, after, kernel_size, stride, kernel_size // 2)
                assert convolution.bias is not None
                _INITIALIZE[layers.initialization](convolution.weight, _HIDDEN_GAIN)
                nn.init.zeros_(convolution.bias)
                convolutions += [convolution, _ACTIVATIONS[layers.activation]()]
                height, width = (
                    (size + 2 * (kernel_size // 2) - kernel_size) // stride + 1
                    for size in (height, width)
                )
            height, width = min(height, output_size), min(width, output_size)
            pool = nn.AdaptiveAvgPool2d((height, width))
            self.filters.append(nn.Sequential(*convolutions, pool, nn.Flatten()))
            features += number * channels[-1] * height * width
        self.mlp = make_mlp(replace(layers, in_features=features))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs [..., out_features] of flattened pictures [..., in_features], 0 to 255."""
        sizes = [number * image.size for number, image in self.pictures]
        parts = inputs.flatten(0, -2).split(sizes, -1)
        features = []
        for part, (_, image), filters in zip(parts, self.pictures, self.filters, strict=True):
            pictures = part.reshape(-1, *image.shape)
            if not image.channels_first:
                pictures = pictures.movedim(-1, -3)
            features.append(filters(pictures / 255.0).view(len(part), -1))
        return self.mlp(torch.cat(features, -1)).view(*inputs.shape[:-1], -1)


class RecurrentNetwork(nn.Module):
    """A perceptron, then gated recurrent units, then a linear head.

    Args:
        layers: of perceptron and head.
        hidden_size: size of each recurrent layer.
        num_layers: recurrent layers, one on top of the other. Their states lie side by side in the
            hidden state, of `memory_size` numbers.

    Source: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014.
    """

    def __init__(self, layers: Layers, *, hidden_size: int, num_layers: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers.body())
        widths = [layers.hidden_sizes[-1], *[hidden_size] * (num_layers - 1)]
        self.cells = nn.ModuleList(nn.GRUCell(width, hidden_size) for width in widths)
        for name, parameter in self.cells.named_parameters():
            (nn.init.orthogonal_ if ".weight_" in name else nn.init.zeros_)(parameter)
        self.norm = nn.LayerNorm(hidden_size) if layers.layer_norm else nn.Identity()
        self.head = layers.head(hidden_size)

    def forward(
        self, inputs: Tensor, hidden: Tensor, step_count: Tensor, active: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run one step or a sequence of steps. The hidden state is reset where an episode begins.

        An inactive agent keeps its hidden state. So an agent that waits for its turn remembers its
        own turns, regardless of the number of other turns in between.

        Args:
            inputs: a step [B, *agents, in_features], or a sequence [B, T, *agents, in_features].
            hidden: the state before the step, [B, *agents, memory_size]; for a sequence
                [B, T, *agents, memory_size], of which only the first step is used.
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
        top = after[..., -self.head.in_features :]
        return self.head(self.norm(top)), after

    def _advance(
        self, features: Tensor, hidden: Tensor, step_count: Tensor, active: Tensor | None
    ) -> Tensor:
        begins = (step_count == 0).reshape(-1, *[1] * (hidden.dim() - 1))
        hidden = torch.where(begins, 0.0, hidden)
        states, inputs = [], features.flatten(0, -2)
        before = hidden.flatten(0, -2).chunk(len(self.cells), -1)
        for cell, state in zip(self.cells, before, strict=True):
            inputs = cell(inputs, state)
            states.append(inputs)
        after = torch.cat(states, -1).view_as(hidden)
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
