"""Seed, save and restore all global random generators together."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

# ruff: noqa: NPY002 - environments may draw from numpy's global generator


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and random.

    Args:
        seed: 0 ≤ seed < 2**32.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """Return the state of all generators, as tensors and plain containers."""
    # A tuple because of `legacy=True`; numpy's annotation also allows a dict.
    numpy_state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, cached_gaussian = numpy_state
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(keys.astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached_gaussian": float(cached_gaussian),
        },
        "random": {"version": version, "internal": list(internal), "gauss_next": gauss_next},
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore a state from `random_state`.

    If the number of GPUs differs, restore those that exist on both machines.
    """
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        for i, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state.cpu(), i)
    numpy_state = state["numpy"]
    np.random.set_state(
        (
            numpy_state["kind"],
            numpy_state["keys"].numpy().astype(np.uint32),
            numpy_state["position"],
            numpy_state["has_gauss"],
            numpy_state["cached_gaussian"],
        )
    )
    python_state = state["random"]
    random.setstate(
        (python_state["version"], tuple(python_state["internal"]), python_state["gauss_next"])
    )


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the state of all generators on exit."""
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all generators, and restore their state on exit."""
    with preserved_random_state():
        seed_everything(seed)
        yield


class OwnRandomState:
    """The random state of one of several runs in a process, which take turns.

    It begins with the state at the first turn.
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._is_current = False

    @classmethod
    def seeded(cls, seed: int) -> OwnRandomState:
        """Return the state after `seed_everything`."""
        own = cls()
        with seeded(seed):
            own._state = random_state()
        return own

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Use the run's generators within this context, and keep their state for its next turn."""
        if self._state is not None:
            restore_random_state(self._state)
        self._is_current = True
        try:
            yield
        finally:
            self._is_current = False
            self._state = random_state()

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from torch's generator of the run on the CPU, even in the turn of another run."""
        if self._is_current or self._state is None:
            yield
            return
        others = torch.get_rng_state()
        torch.set_rng_state(self._state["torch"])
        try:
            yield
        finally:
            self._state["torch"] = torch.get_rng_state()
            torch.set_rng_state(others)
