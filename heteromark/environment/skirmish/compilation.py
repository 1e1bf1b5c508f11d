"""Compiled functions that go on without a compiler, and steps as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils._pytree import tree_map

logger = logging.getLogger("heteromark")


class Compiler:
    """Compiles functions of tensors when they are first called for each size of their tensors.

    Where that fails, for want of a C++ compiler for example, it says so once and calls them all as
    they are.
    """

    def __init__(self) -> None:
        self._works = True

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function compiled; it must have no side effects."""
        # each environment has its own: sizes that one has seen are nothing to another
        compiled = torch.compile(function, dynamic=False, isolate_recompiles=True)

        def call(*arguments: Any) -> Any:
            if not self._works:
                return function(*arguments)
            try:
                return compiled(*arguments)
            except BackendCompilerFailed as error:
                self._works = False
                reason = str(error).strip().partition("\n")[0]
                logger.warning(
                    "Skirmish is not compiled, and so is several times slower: %s. Install a C++ "
                    "compiler (on Debian: apt install g++), or set compile=false",
                    reason,
                )
                return function(*arguments)

        return call


class Graphed:
    """A function whose kernels are launched together, as one CUDA graph.

    Called often on small tensors, a GPU waits for Python and for launches most of the time; a graph
    has one launch. It is captured at the first call. What goes in is copied to the graph's own
    memory, and what comes out is copied from there, so that results stay as they are when the
    function is called again. A function that cannot be captured is told once, and called as it is.

    Args:
        function: of tensors in tuples, all on the device, always of the same shapes; it must have
            no side effects, and nothing in it may depend on a tensor's value in Python.
        device: a GPU; below 0: the current device stays.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device | int) -> None:
        self._function, self._device = function, device
        self._graph: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        # what runs on another GPU than the current one would not become part of the graph
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._graph = self._captured(arguments)
            return tree_map(torch.clone, self._graph(*arguments))

    def _captured(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """The graph, or the function as it is."""
        try:
            own = tree_map(torch.clone, arguments)
            return torch.cuda.make_graphed_callables(self._function, own)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            logger.warning(
                "the steps of Skirmish are not captured as a CUDA graph, and so are slower in "
                "small batches: %s",
                reason,
            )
            return self._function
