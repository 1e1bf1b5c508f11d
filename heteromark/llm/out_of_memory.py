"""Report out-of-memory errors with the settings to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from heteromark.config.models.run import RunConfig

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # in the message: torch has no exception class for the CPU


class OutOfMemory(RuntimeError):
    """Not enough memory. The message names the settings to lower."""


@contextmanager
def explain_out_of_memory(config: RunConfig, activity: str) -> Iterator[None]:
    """Convert torch's out-of-memory errors to `OutOfMemory`.

    Args:
        config: config of a run with language-model agents.
        activity: for the message, such as "sampling responses".

    Raises:
        OutOfMemory: Torch ran out of CPU or GPU memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _CPU_ALLOCATOR not in str(error):
            raise
        device = "CUDA" if isinstance(error, torch.OutOfMemoryError) else "the machine"
        settings = [
            f"grpo.micro_batch_size ({config.grpo.micro_batch_size})",
            f"environment.num_parallel_envs ({config.environment.num_parallel_envs})",
            f"generation.max_response_length ({config.generation.max_response_length})",
            f"grpo.num_generations ({config.grpo.num_generations})",
        ]
        remedy = f"lower {', '.join(settings)}"
        if config.model.specialization == "full":
            remedy += ", or train adapters only: model.specialization=lora"
        raise OutOfMemory(
            f"{device} ran out of memory while {activity}: {remedy}. The last checkpoint is kept, "
            "but changed settings start a new run"
        ) from error
