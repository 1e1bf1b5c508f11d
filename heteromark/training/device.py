"""The device and the number of threads of a run, and reproducible arithmetic on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.run import RunConfig

# Any: torch adds the attribute `fill_uninitialized_memory` at run time.
_DETERMINISTIC: Any = torch.utils.deterministic


def set_arithmetic(config: RunConfig, device: torch.device | str) -> None:
    """Set the run's number of threads and precision, and deterministic algorithms on or off.

    These are on for the CPU. Without them, several threads add the gradients of indexed rows in a
    varying order, and a run with `num_threads=2` differs in its last digits each time. They are off
    for a GPU, where not every operation has a deterministic version.
    """
    torch.set_num_threads(config.training.num_threads)
    torch.set_float32_matmul_precision(config.training.matmul_precision)
    torch.use_deterministic_algorithms(torch.device(device).type == "cpu")
    # This code never reads uninitialised memory, so filling it would only cost time.
    _DETERMINISTIC.fill_uninitialized_memory = False


@contextlib.contextmanager
def arithmetic_of(config: RunConfig, device: torch.device | str) -> Iterator[None]:
    """Use a run's arithmetic settings; restore the previous ones on exit.

    A different number of threads rounds sums differently.
    """
    threads = torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    exact = torch.are_deterministic_algorithms_enabled()
    filled = _DETERMINISTIC.fill_uninitialized_memory
    set_arithmetic(config, device)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(exact)
        _DETERMINISTIC.fill_uninitialized_memory = filled


def require_device(config: RunConfig) -> torch.device:
    """Return the device of a run.

    Raises:
        ConfigError: the device is "cuda", but torch sees no GPU.
    """
    try:
        return resolve_device(config.device)
    except ValueError as error:
        fault = Fault("config", str(error), "device")
        raise ConfigError([fault]) from error


def resolve_device(name: str) -> torch.device:
    """Return the device for a config's `device`. "auto" is the GPU if there is one, else the CPU.

    Raises:
        ValueError: the device is "cuda", but torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError(
            "device is cuda, but torch sees no CUDA GPU on this machine; use device=auto or "
            "device=cpu, or check the driver and whether torch was installed with CUDA support"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    # Include the index: TorchRL's collector treats "cuda" and "cuda:0" as two devices, and would
    # act with a copy of the policy that is never updated.
    return torch.device("cuda", torch.cuda.current_device())
