"""The replay-buffer factory. Buffers split a batch into minibatches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from tensordict.nn import TensorDictModuleBase
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    ReplayBuffer,
    SamplerWithoutReplacement,
)

from heteromark.config.models.run import RunConfig
from heteromark.import_paths import Registry
from heteromark.modules.policy import is_recurrent

BufferMaker = Callable[[int, int, torch.device], ReplayBuffer]
BUFFERS: Registry[BufferMaker] = Registry("buffer_type")


class ReplayBufferFactory:
    """Creates one buffer per network, for the entries that its training needs."""

    def create(
        self,
        config: RunConfig,
        networks: Mapping[str, TensorDictModuleBase],
        device: torch.device,
        minibatch_size: int | None = None,
    ) -> dict[str, ReplayBuffer]:
        """Create buffers for one batch, which iterate over it once in shuffled minibatches.

        A minibatch consists of frames; for a recurrent network, of sequences with the same total
        number of frames: `minibatch_size`, by default `replay_buffer.minibatch_size`.
        """
        minibatch_size = minibatch_size or config.replay_buffer.minibatch_size
        make_buffer = BUFFERS[config.buffer_type]
        buffers = {}
        for name, network in networks.items():
            frames = config.policy.gru.chunk_length if is_recurrent(network) else 1
            capacity = config.collector.frames_per_batch // frames
            size = minibatch_size // frames
            buffers[name] = make_buffer(capacity, size, device)
        return buffers


@BUFFERS.register("tensor")
def _tensor(capacity: int, minibatch_size: int, device: torch.device) -> ReplayBuffer:
    return ReplayBuffer(
        storage=LazyTensorStorage(capacity, device=device),
        sampler=SamplerWithoutReplacement(),
        batch_size=minibatch_size,
    )


@BUFFERS.register("memmap")
def _memmap(capacity: int, minibatch_size: int, device: torch.device) -> ReplayBuffer:
    """Store the batch on disk, in the temporary folder, if it does not fit into memory."""
    return ReplayBuffer(
        storage=LazyMemmapStorage(capacity),
        sampler=SamplerWithoutReplacement(),
        batch_size=minibatch_size,
        transform=lambda minibatch: minibatch.to(device),
    )
