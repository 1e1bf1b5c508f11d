"""Compiled functions that go on without a compiler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import BackendCompilerFailed

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
