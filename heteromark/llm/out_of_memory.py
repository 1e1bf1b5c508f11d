"""Running out of memory, told with what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from heteromark.config.models.run import RunConfig

_ON_THE_CPU = "DefaultCPUAllocator"  # torch has no class of its own for it


class OutOfMemory(RuntimeError):
    """There was not enough memory. The message says what to lower."""


@contextmanager
def memory_told(config: RunConfig, doing: str) -> Iterator[None]:
    """Tell torch's errors about memory as `OutOfMemory`.

    Args:
        config: of language-model agents.
        doing: what is being done, for the message.

    Raises:
        OutOfMemory: instead of them.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _ON_THE_CPU not in str(error):
            raise
        kind = "CUDA" if isinstance(error, torch.OutOfMemoryError) else "the machine"
        levers = [
            f"grpo.micro_batch_size ({config.grpo.micro_batch_size})",
            f"environment.num_parallel_envs ({config.environment.num_parallel_envs})",
            f"generation.max_response_length ({config.generation.max_response_length})",
            f"grpo.num_generations ({config.grpo.num_generations})",
        ]
        remedy = f"lower {', '.join(levers)}"
        if config.model.specialization == "full":
            remedy += ", or train adapters only: model.specialization=lora"
        raise OutOfMemory(
            f"{kind} ran out of memory while {doing}: {remedy}. The last checkpoint stands; with "
            "other values it is another run"
        ) from error
