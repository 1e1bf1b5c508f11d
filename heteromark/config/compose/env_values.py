"""Find the values that a config takes from environment variables: they may be secret.

Records keep the expression instead, see `RunConfig.recorded`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from heteromark.config.errors import ConfigError
from heteromark.config.files import retyped

# Stands for a variable's value. Letters only, so that other resolvers take it for a word.
_MARK = "HeteromarkEnv{}EnvHeteromark"
_MARKED = re.compile(_MARK.format(r"(\w+?)"))


def from_environment(tree: Any, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the strings of a config that contain values of environment variables.

    Args:
        tree: the composed DictConfig.
        read: resolves the tree and returns the config made of it.

    Returns:
        Nested like the config, list items by index: the strings with `${oc.env:NAME}` in place of
        the values, also if they are read through other references.
    """
    if "oc.env" not in str(OmegaConf.to_container(tree, resolve=False)):
        return {}
    try:
        with _marking(numbers=True):
            data = read()
    except ConfigError:  # a key needs a number
        with _marking(numbers=False):
            data = read()
    return _marked_parts(data) or {}


@contextmanager
def _marking(*, numbers: bool) -> Iterator[None]:
    """Let `oc.env` return marks instead of values, also of numbers if `numbers` is set."""

    def marked(name: str, *default: Any) -> Any:
        value = os.environ.get(name)
        if value is None or (not numbers and not isinstance(retyped(value), str)):
            return oc.env(name, *default)
        return _MARK.format(name)

    OmegaConf.register_new_resolver("oc.env", marked, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _marked_parts(value: Any) -> Any:
    """Return the marked strings in a value, with expressions for marks; None: there is none."""
    if isinstance(value, str):
        return _MARKED.sub(r"${oc.env:\1}", value) if _MARKED.search(value) else None
    pairs: Any = enumerate(value) if isinstance(value, list) else ()
    pairs = value.items() if isinstance(value, dict) else pairs
    parts = {str(key): _marked_parts(part) for key, part in pairs}
    return {key: part for key, part in parts.items() if part is not None} or None
