"""How a run computes: on how many threads, and on the CPU with the same roundings every time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

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
