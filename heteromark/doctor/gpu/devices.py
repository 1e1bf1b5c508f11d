"""The GPUs and the CPU of this machine, as plain data."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One CUDA device. Memory is in bytes.

    Attributes:
        capability: e.g. "9.0".
        bfloat16: whether it supports bfloat16 in hardware.
    """

    name: str
    total: int
    free: int
    capability: str
    bfloat16: bool


@dataclass(frozen=True)
class Cpu:
    """The CPU: number of cores that this process may use, and memory in bytes."""

    cores: int
    total: int
    available: int


@dataclass(frozen=True)
class Machine:
    """The devices to train on, and the installed torch.

    Attributes:
        gpus: the GPUs that torch finds.
        cpu: the CPU.
        torch_version: version of the installed torch.
        cuda_version: CUDA version that torch was built with; None: built without CUDA.
    """

    gpus: tuple[Gpu, ...]
    cpu: Cpu
    torch_version: str
    cuda_version: str | None


def this_machine() -> Machine:
    """Return the devices of this machine. Imports torch."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    cpu = Cpu(len(os.sched_getaffinity(0)), memory.total, memory.available)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(_gpu(index) for index in range(count))
    return Machine(gpus, cpu, torch.__version__, torch.version.cuda)


def _gpu(index: int) -> Gpu:
    import torch

    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Gpu(properties.name, total, free, f"{properties.major}.{properties.minor}", bfloat16)
