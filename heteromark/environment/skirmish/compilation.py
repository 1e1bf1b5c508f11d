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
        function: of tensors in tuples, all on the current GPU, always of the same shapes; it must
            have no side effects, and nothing in it may depend on a tensor's value in Python.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._graph: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._graph is None:
            try:
                own = tree_map(torch.clone, arguments)
                self._graph = torch.cuda.make_graphed_callables(self._function, own)
            except RuntimeError as error:
                self._graph = self._function
                reason = str(error).strip().partition("\n")[0]
                logger.warning(
                    "the steps of Skirmish are not captured as a CUDA graph, and so are slower in "
                    "small batches: %s",
                    reason,
                )
        return tree_map(torch.clone, self._graph(*arguments))
