"""The GPUs and the CPU of this machine, as plain data."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One CUDA device. Memory is in bytes.

    Attributes:
        capability: e.g. "9.0".
        bfloat16: whether it computes in bfloat16 by itself.
    """

    name: str
    total: int
    free: int
    capability: str
    bfloat16: bool


@dataclass(frozen=True)
class Cpu:
    """What a run on the CPU has: cores that this process may use, and memory in bytes."""

    cores: int
    total: int
    available: int


@dataclass(frozen=True)
class Machine:
    """What there is to train on.

    Attributes:
        gpus: that torch sees.
        cpu: beside them.
        torch_version: installed.
        cuda_version: that torch was built with; None: without CUDA.
    """

    gpus: tuple[Gpu, ...]
    cpu: Cpu
    torch_version: str
    cuda_version: str | None


def this_machine() -> Machine:
    """What torch sees here. Imports torch."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    cpu = Cpu(len(os.sched_getaffinity(0)), memory.total, memory.available)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(_gpu(index) for index in range(count))
    return Machine(gpus, cpu, torch.__version__, torch.version.cuda)


def _gpu(index: int) -> Gpu:
    import torch

    told = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Gpu(told.name, total, free, f"{told.major}.{told.minor}", bfloat16)
