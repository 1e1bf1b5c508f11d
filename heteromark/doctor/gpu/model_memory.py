"""Estimate the memory of a language model for inference and training. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heteromark.doctor.finding import GIBIBYTE
from heteromark.doctor.gpu.model_size import ModelSize

Use = Literal["inference", "LoRA", "full"]
USES: tuple[Use, ...] = ("inference", "LoRA", "full")

BYTES = {"float32": 4, "bfloat16": 2}
ADAPTER_BYTES = 4  # peft keeps adapters in single precision
ADAM_MOMENTS = 2
# For torch and CUDA themselves, and for memory that is reserved but not used.
OVERHEAD = GIBIBYTE
# Tensors kept for the backward pass, in values of the model's dtype per token and unit of a layer's
# width. Measured with torch's saved_tensors_hooks on one layer of each known model and of the tiny
# model, with and without adapters: 3.2 to 4.7 in float32, 3.9 to 7.0 in bfloat16, where
# normalisation layers compute in float32.
KEPT = {"float32": 4.5, "bfloat16": 6.5}
# Logits in float32, their log-softmax, and the gradients of both.
LOGIT_BYTES = 16


@dataclass(frozen=True)
class Work:
    """The amount of work computed at once.

    Attributes:
        responses: number of responses.
        prompt_length, response_length: maximum number of tokens of each.
        lora_rank: rank of the adapters.
    """

    responses: int
    prompt_length: int
    response_length: int
    lora_rank: int


@dataclass(frozen=True)
class Estimate:
    """Memory for one use of a model, in bytes.

    Attributes:
        weights: weights of the model and its adapter.
        training: gradients of the trained weights, and Adam's moments.
        response: memory per response while it is computed.
    """

    weights: int
    training: int
    response: int

    def total(self, responses: int) -> int:
        """Return the memory needed with this number of responses at once."""
        return OVERHEAD + self.weights + self.training + responses * self.response

    def most_responses(self, available: int) -> int:
        """Return how many responses at once fit; 0 if not even one fits."""
        return max(0, available - self.total(0)) // self.response


def estimate(size: ModelSize, use: Use, work: Work) -> Estimate:
    """Estimate the memory for one use of a model."""
    each = BYTES[size.dtype]
    base = size.parameters * each
    tokens = work.prompt_length + work.response_length
    if use == "inference":
        return Estimate(base, 0, size.cache * each * tokens + LOGIT_BYTES * size.vocabulary)
    kept = int(KEPT[size.dtype] * each * size.width * tokens)
    response = kept + LOGIT_BYTES * size.vocabulary * work.response_length
    if use == "full":
        return Estimate(base, (1 + ADAM_MOMENTS) * base, response)
    adapter = size.adapter * work.lora_rank * ADAPTER_BYTES
    return Estimate(base + adapter, (1 + ADAM_MOMENTS) * adapter, response)
