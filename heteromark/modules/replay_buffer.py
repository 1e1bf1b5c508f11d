"""The replay-buffer factory: cuts a batch into minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement

from heteromark.config.schema import RunConfig
from heteromark.modules.registry import Registry

BUFFERS: Registry[Callable[[int, int, torch.device], ReplayBuffer]] = Registry("buffer_type")


class ReplayBufferFactory:
    """Creates one buffer per network, so that each holds only what its network is trained on."""

    def create(
        self, config: RunConfig, names: Iterable[str], device: torch.device
    ) -> dict[str, ReplayBuffer]:
        """Buffers for one batch of frames, which iterate over it once in shuffled minibatches."""
        make_buffer = BUFFERS[config.buffer_type]
        capacity, size = config.collector.frames_per_batch, config.replay_buffer.minibatch_size
        return {name: make_buffer(capacity, size, device) for name in names}


@BUFFERS.register("tensor")
def _tensor_buffer(capacity: int, minibatch_size: int, device: torch.device) -> ReplayBuffer:
    return ReplayBuffer(
        storage=LazyTensorStorage(capacity, device=device),
        sampler=SamplerWithoutReplacement(),
        batch_size=minibatch_size,
    )
