"""Compilation with a fallback to eager functions, and steps as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils._pytree import tree_map

logger = logging.getLogger("heteromark")


class Compiler:
    """Compiles functions of tensors at their first call with each set of shapes.

    If compilation fails, for example without a C++ compiler, it warns once and runs all functions
    uncompiled.
    """

    def __init__(self) -> None:
        self._works = True

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the compiled function; it must have no side effects."""
        # separate caches: the shapes of one environment do not trigger recompilation in another
        # ignored below: torch's overloads lack `isolate_recompiles`, its implementation has it
        compiled = torch.compile(  # type: ignore[call-overload]
            function, dynamic=False, isolate_recompiles=True
        )

        def call(*arguments: Any) -> Any:
            if not self._works:
                return function(*arguments)
            try:
                return compiled(*arguments)
            except BackendCompilerFailed as error:
                self._works = False
                reason = str(error).strip().partition("\n")[0]
                logger.warning(
                    "Skirmish could not be compiled and runs several times slower: %s. Install a "
                    "C++ compiler (on Debian: apt install g++), or set compile=false",
                    reason,
                )
                return function(*arguments)

        return call


class Graphed:
    """A function whose kernels are launched together, as one CUDA graph.

    With small tensors, a GPU mostly waits for Python and kernel launches; a graph needs one launch.
    It is captured at the first call. Inputs are copied to the graph's memory and results are copied
    from it, so later calls do not change earlier results. If the function cannot be captured, a
    warning is logged once and the function is called directly.

    Args:
        function: takes and returns tuples of tensors, all on the device, with constant shapes. It
            must have no side effects, and its Python code must not depend on tensor values.
        device: a GPU; below 0: keep the current device.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device | int) -> None:
        self._function, self._device = function, device
        self._graph: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        # work on a GPU other than the current one would not be captured
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._graph = self._capture(arguments)
            return tree_map(torch.clone, self._graph(*arguments))

    def _capture(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """Return the captured graph, or the function itself if capturing fails."""
        try:
            own = tree_map(torch.clone, arguments)
            return torch.cuda.make_graphed_callables(self._function, own)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            logger.warning(
                "Skirmish steps could not be captured as a CUDA graph and are slower in small "
                "batches: %s",
                reason,
            )
            return self._function
