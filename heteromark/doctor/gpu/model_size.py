"""How large language models are, found out without loading them. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heteromark.config.models.llm import TINY, ModelConfig, TinyModelConfig

TINY_VOCABULARY = 99  # printable ASCII, the newline, and three tokens for padding, end, unknown


class UnknownSize(ValueError):
    """How large a model is cannot be told here; the message says why, and what to do."""


@dataclass(frozen=True)
class Shape:
    """What decides how large a decoder-only model with tied embeddings is.

    Attributes:
        layers: how many.
        hidden: width between layers.
        intermediate: width within a layer's perceptron, which has a gate.
        query, key_value: widths of all heads' queries, and of their keys, together.
        vocabulary: tokens.
        norms: weights of a layer's normalisations.
    """

    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    vocabulary: int
    norms: int

    @property
    def linear(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a layer's linear modules, without biases."""
        return (
            (self.hidden, self.query),
            (self.hidden, self.key_value),
            (self.hidden, self.key_value),
            (self.query, self.hidden),
            (self.hidden, self.intermediate),
            (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        )

    @property
    def parameters(self) -> int:
        """Weights in all."""
        layer = self.norms + sum(inputs * outputs for inputs, outputs in self.linear)
        return self.vocabulary * self.hidden + self.layers * layer + self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Weights of one low-rank adapter on all linear modules but the head."""
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs in self.linear)


def _gemma3(layers: int, hidden: int, intermediate: int, heads: int, key_value_heads: int) -> Shape:
    head = 256
    return Shape(
        layers,
        hidden,
        intermediate,
        query=heads * head,
        key_value=key_value_heads * head,
        vocabulary=262_144,
        norms=4 * hidden + 2 * head,
    )


def _qwen3(layers: int, hidden: int, intermediate: int, heads: int, key_value_heads: int) -> Shape:
    head = 128
    return Shape(
        layers,
        hidden,
        intermediate,
        query=heads * head,
        key_value=key_value_heads * head,
        vocabulary=151_936,
        norms=2 * hidden + 2 * head,
    )


# Models of the Hugging Face hub, as their config.json says; these come out at 268 M, 1.00 B, 596 M
# and 1.72 B parameters.
KNOWN: Mapping[str, Shape] = {
    "google/gemma-3-270m-it": _gemma3(18, 640, 2048, heads=4, key_value_heads=1),
    "google/gemma-3-1b-it": _gemma3(26, 1152, 6912, heads=4, key_value_heads=1),
    "Qwen/Qwen3-0.6B": _qwen3(28, 1024, 3072, heads=16, key_value_heads=8),
    "Qwen/Qwen3-1.7B": _qwen3(28, 2048, 6144, heads=16, key_value_heads=8),
}


@dataclass(frozen=True)
class ModelSize:
    """How large one model is.

    Attributes:
        parameters: as its files say, or its shape where there are none.
        shape: what its activations and adapters follow from.
        dtype: of its weights.
    """

    parameters: int
    shape: Shape
    dtype: str


def size_of(model: ModelConfig) -> ModelSize:
    """How large a config's model is.

    Raises:
        UnknownSize: it is neither tiny, nor known here, nor in a folder that can be read.
    """
    if model.path == TINY:
        shape = tiny_shape(model.tiny)
        return ModelSize(shape.parameters, shape, "float32")
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        return ModelSize(stored_parameters(folder), _stored_shape(folder), model.dtype)
    if model.path not in KNOWN:
        raise UnknownSize(
            f"{model.path} is no folder, and its size is not known here; save it to a folder, and "
            "set model.path to that"
        )
    shape = KNOWN[model.path]
    return ModelSize(shape.parameters, shape, model.dtype)


def tiny_shape(tiny: TinyModelConfig) -> Shape:
    """The shape of a model that `llm.backbone.tiny_backbone` builds."""
    hidden, head = tiny.hidden_size, tiny.hidden_size // tiny.num_heads
    norms = {"llama": 2 * hidden, "qwen3": 2 * hidden + 2 * head, "gemma3": 4 * hidden + 2 * head}
    return Shape(
        layers=tiny.num_layers,
        hidden=hidden,
        intermediate=3 * hidden,
        query=hidden,
        key_value=max(1, tiny.num_heads // 2) * head,
        vocabulary=TINY_VOCABULARY,
        norms=norms[tiny.architecture],
    )


def stored_parameters(folder: Path) -> int:
    """Weights in a folder's safetensors files, of which only the headers are read.

    Raises:
        UnknownSize: there are none, or they are damaged.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UnknownSize(
            f"{folder} has no model*.safetensors; save the model there with save_pretrained"
        )
    return sum(math.prod(shape) for file in files for shape in _tensor_shapes(file))


def _tensor_shapes(file: Path) -> Iterator[list[int]]:
    """Format: https://github.com/huggingface/safetensors#format"""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError(f"its header would have {length:,} bytes")
            header = json.loads(content.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield tensor["shape"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnknownSize(f"{file} is damaged or no safetensors file: {error}") from error


def _stored_shape(folder: Path) -> Shape:
    path = folder / "config.json"
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        told = told.get("text_config", told)  # of models that see, too
        heads = told["num_attention_heads"]
        head = told.get("head_dim") or told["hidden_size"] // heads
        return Shape(
            layers=told["num_hidden_layers"],
            hidden=told["hidden_size"],
            intermediate=told["intermediate_size"],
            query=heads * head,
            key_value=told.get("num_key_value_heads", heads) * head,
            vocabulary=told["vocab_size"],
            norms=2 * told["hidden_size"],
        )
    except (OSError, ValueError) as error:
        raise UnknownSize(f"{path} cannot be read: {error}") from error
    except KeyError as error:
        raise UnknownSize(f"{path} does not say {error.args[0]}, so its size is unknown") from error
