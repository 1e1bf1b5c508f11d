"""Arrays of N copies of an environment in one block of memory.

The whole block can be shared between processes and copied at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heteromark.environment.groups import Group

Key = str | tuple[str, str]
Fields = dict[Key, tuple[tuple[int, ...], Any]]  # shape of one copy's part, and dtype
Arrays = dict[Key, np.ndarray]

_ALIGNMENT = 64  # bytes; a cache line


class Layout:
    """Shape, dtype and offset of each array in a block of bytes.

    Args:
        fields: by key, the shape of one copy's part and its dtype.
        num_copies: the first dimension N of every array.
    """

    def __init__(self, fields: Fields, num_copies: int) -> None:
        self._entries: dict[Key, tuple[tuple[int, ...], np.dtype, int]] = {}
        offset = 0
        for key, (shape, kind) in fields.items():
            full, dtype = (num_copies, *shape), np.dtype(kind)
            self._entries[key] = (full, dtype, offset)
            size = int(np.prod(full, dtype=np.int64)) * dtype.itemsize
            offset += -(-size // _ALIGNMENT) * _ALIGNMENT
        self.size = offset

    def views(self, block: Any, offset: int = 0) -> Arrays:
        """Return the arrays, by key, as views of a block of at least `offset + size` bytes."""
        return {
            key: np.ndarray(shape, dtype, block, start + offset)
            for key, (shape, dtype, start) in self._entries.items()
        }


def views_of(layouts: Sequence[Layout], block: Any) -> list[Arrays]:
    """Return the arrays of consecutive layouts in a block."""
    starts = itertools.accumulate((layout.size for layout in layouts), initial=0)
    return [layout.views(block, start) for layout, start in zip(layouts, starts, strict=False)]


def output_layout(
    groups: Mapping[str, Group], num_copies: int, state_size: int | None = None
) -> Layout:
    """Return the layout of the copies' outputs: the keys of `make_specs`, and (group, "reward")."""
    fields: Fields = {}
    for name, group in groups.items():
        fields |= _observation_fields(name, group)
        fields[name, "reward"] = ((len(group.agents), 1), np.float32)
    if state_size is not None:
        fields["state"] = ((state_size,), np.float32)
    fields["episode_return"] = ((1,), np.float32)
    fields["step_count"] = ((1,), np.int64)
    fields["won"] = ((1,), np.int8)
    for flag in ("done", "terminated", "truncated"):
        fields[flag] = ((1,), bool)
    return Layout(fields, num_copies)


def action_layout(groups: Mapping[str, Group], num_copies: int) -> Layout:
    """Return the layout of actions: (group, "action"), with the shapes of `make_specs`."""
    fields: Fields = {}
    for name, group in groups.items():
        n_agents = len(group.agents)
        shape = (n_agents,) if group.is_discrete else (n_agents, group.action_size)
        fields[name, "action"] = (shape, np.float32 if group.is_continuous else np.int64)
    return Layout(fields, num_copies)


def request_layout(groups: Mapping[str, Group], num_copies: int) -> Layout:
    """Return the layout of requests to past policies for the actions of their agents.

    (group, "observation"), (group, "action_mask") and (group, "active") are as in `make_specs`.
    "draw", float64 [N, 1], selects the policy for this episode as a fraction of their number.
    "turns", int64 [N, 1], counts the requests so far in this episode.
    """
    fields: Fields = {}
    for name, group in groups.items():
        fields |= _observation_fields(name, group)
    fields["draw"] = ((1,), np.float64)
    fields["turns"] = ((1,), np.int64)
    return Layout(fields, num_copies)


def _observation_fields(name: str, group: Group) -> Fields:
    n_agents = len(group.agents)
    fields: Fields = {
        (name, "observation"): ((n_agents, group.observation_size), np.float32),
        (name, "active"): ((n_agents,), bool),
    }
    if group.masked:
        fields[name, "action_mask"] = ((n_agents, group.action_size), bool)
    return fields
