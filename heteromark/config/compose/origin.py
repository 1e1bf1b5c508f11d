"""Where the value of a key of a composed config stands: the command line, or a file of config/.

Looked for only when there is a fault to tell.
"""

from __future__ import annotations

import re
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from heteromark.config.compose.hydra_loader import COMMAND_LINE, Loader, typed_overrides
from heteromark.config.nested import overlap

_REFERENCE = re.compile(r"^\$\{([\w.]+)\}$")


def origin_of(tree: DictConfig, key: str, loader: Loader) -> str:
    """The command line, or the file that has the last word on a key.

    A value that only refers to another key, as in `${agent.gamma}`, stands where that one does.
    """
    overrides = typed_overrides(tree)
    given = [o.key_or_group for o in loader.parse(overrides) if not loader.is_choice(o)]
    if any(overlap(written, key) for written in given):
        return COMMAND_LINE
    reference = _REFERENCE.match(str(raw_value(tree, key)))
    if reference:
        return origin_of(tree, reference[1], loader)
    primary = tree.hydra.job.config_name
    composed = loader.compute_defaults_list(primary, overrides, RunMode.RUN).defaults
    for default in reversed(composed):
        if not default.config_path or default.config_path.startswith("hydra/"):
            continue
        if (
            _descend(OmegaConf.to_container(loader.content_of(default), resolve=False), key)
            is not None
        ):
            return loader.file_of(default.config_path)
    return loader.file_of(primary)


def raw_value(tree: DictConfig, key: str) -> Any:
    """What stands at a dotted key, references as they are written; None where nothing stands."""
    return _descend(OmegaConf.to_container(tree, resolve=False), key)


def _descend(node: Any, key: str) -> Any:
    """The value at a dotted key; that of the list or number at which the key ends early."""
    for part in key.split("."):
        if not isinstance(node, dict):
            return node
        if part not in node:
            return None
        node = node[part]
    return node
