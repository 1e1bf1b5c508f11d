"""Where a run computes, on how many threads, and on the CPU with the same roundings every time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.run import RunConfig


def set_arithmetic(config: RunConfig, device: torch.device | str) -> None:
    """Compute on as many threads as the run, from now on.

    On the CPU sums are also taken in an order of their own. Otherwise several threads add the
    gradients of rows that were indexed in whatever order they come, and a run with
    `num_threads=2` differs in its last digits each time. On a GPU, where not every operation has
    such an order, that is switched off, also after a run on the CPU.
    """
    torch.set_num_threads(config.training.num_threads)
    torch.use_deterministic_algorithms(torch.device(device).type == "cpu")
    # Nothing here reads memory that was never written, so filling it would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False


@contextlib.contextmanager
def arithmetic_of(config: RunConfig, device: torch.device | str) -> Iterator[None]:
    """Compute as the run does: on other numbers of threads, sums come out in other roundings."""
    threads, settings = torch.get_num_threads(), torch.utils.deterministic
    exact = torch.are_deterministic_algorithms_enabled()
    filled = settings.fill_uninitialized_memory
    set_arithmetic(config, device)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact)
        settings.fill_uninitialized_memory = filled


def require_device(config: RunConfig) -> torch.device:
    """The device of a run.

    Raises:
        ConfigError: it is "cuda", and torch sees no GPU.
    """
    try:
        return resolve_device(config.device)
    except ValueError as error:
        fault = Fault("config", str(error), "device")
        raise ConfigError([fault]) from error


def resolve_device(name: str) -> torch.device:
    """The device of a config: auto takes a GPU if there is one.

    Raises:
        ValueError: "cuda" is asked for and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError(
            "device is cuda, but torch sees no CUDA GPU on this machine; use device=auto or "
            "device=cpu, or check the driver and that torch was installed with CUDA"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    # With its index: TorchRL's collector takes "cuda" and "cuda:0" for two devices, and would act
    # with a copy of the policy that is never updated.
    return torch.device("cuda", torch.cuda.current_device())
