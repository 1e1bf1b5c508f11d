"""The state of a simulator that does not hand it out: its tensors and numbers, by path.

A path names the attributes and positions that lead from an object to a value, such as
`scenario._world._agents.0._state._pos`. Of torch's objects only
distributions are searched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

Number = bool | int | float
_NOT_SEARCHED = ("torch", "numpy", "builtins", "gym", "gymnasium", "pyglet", "types")


def tensors_of(root: Any) -> dict[str, Tensor]:
    """Return copies of all tensors within an object, by path."""
    found = _leaves(root, "", set())
    return {path: leaf.clone() for path, leaf in found if isinstance(leaf, Tensor)}


def numbers_of(root: Any) -> dict[str, Number]:
    """Return all numbers within an object, by path."""
    return {path: leaf for path, leaf in _leaves(root, "", set()) if isinstance(leaf, Number)}


def restore(root: Any, tensors: Mapping[str, Tensor], numbers: Mapping[str, Number]) -> None:
    """Set tensors and numbers within an object of the same structure.

    Raises:
        ValueError: the object has no place for a value.
    """
    here = dict(_leaves(root, "", set()))
    for path, value in {**tensors, **numbers}.items():
        if isinstance(value, Tensor):
            old = here.get(path)
            value = value.to(old.device if isinstance(old, Tensor) else value.device).clone()
        elif here.get(path) == value:
            continue
        *steps, last = path.split(".")
        holder = root
        try:
            for step in steps:
                holder = _child(holder, step)
        except (AttributeError, IndexError) as error:
            raise ValueError(f"the simulator has no {path}: {error}") from error
        if isinstance(holder, list):
            holder[int(last)] = value
        elif isinstance(holder, dict):
            holder[list(holder)[int(last)]] = value
        else:
            setattr(holder, last, value)


def _leaves(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield path and value of all tensors and numbers; each object is searched once."""
    if isinstance(value, Tensor | Number):
        yield path, value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    for name, child in _children(value):
        yield from _leaves(child, f"{path}.{name}" if path else name, seen)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((str(k), child) for k, child in enumerate(value))
    elif isinstance(value, dict):
        yield from ((str(k), child) for k, child in enumerate(value.values()))
    elif _is_searched(type(value).__module__):
        yield from getattr(value, "__dict__", {}).items()


def _is_searched(module: str) -> bool:
    return module.startswith("torch.distributions.") or module.split(".")[0] not in _NOT_SEARCHED


def _child(value: Any, step: str) -> Any:
    if isinstance(value, list):
        return value[int(step)]
    if isinstance(value, dict):
        return list(value.values())[int(step)]
    return getattr(value, step)
