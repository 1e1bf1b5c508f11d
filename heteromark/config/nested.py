"""Convert between nested dictionaries and dotted keys. Lists count as values, not containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a dictionary with dotted keys: `{"ppo": {"eps": 1}}` → `{"ppo.eps": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """Undo `flatten`.

    Raises:
        ValueError: one key is a prefix of another, e.g. `ppo` and `ppo.clip_range`.
    """
    data: dict[str, Any] = {}
    for dotted, value in flat.items():
        *parents, last = dotted.split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{dotted}: {parent} already has a value")
        node[last] = value
    return data


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Return the nested merge of `layers`; later layers win. The arguments are not modified."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = merge(result[key], value)
            elif isinstance(value, dict):
                result[key] = merge(value)
            else:
                result[key] = value
    return result


def value_at(data: Any, key: str) -> Any:
    """Return the value at a dotted key of nested mappings or models; None if it is missing."""
    for part in key.split("."):
        section = data if isinstance(data, Mapping) else getattr(data, "__dict__", {})
        data = section.get(part)
    return data


def overlap(first: str, second: str) -> bool:
    """Return whether one dotted key equals the other or is nested in it."""
    shorter, longer = sorted((first, second), key=len)
    return longer == shorter or longer.startswith(f"{shorter}.")


def lies_in(key: str, section: str) -> bool:
    """Return whether a dotted key equals `section` or is nested in it."""
    return f"{key}.".startswith(f"{section}.")
