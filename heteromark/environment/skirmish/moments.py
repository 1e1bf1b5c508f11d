"""Data structures for battles between steps, and for the outcome of a step."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from heteromark.environment.skirmish.layout import Notes, Options
from heteromark.environment.skirmish.state import Pairs, Roster, Units


class Episode(NamedTuple):
    """What stays fixed during an episode."""

    key: Tensor  # int64 [B], determines its random numbers
    roster: Roster
    pairs: Pairs
    bits: Tensor  # one-hot unit types, [U, type bits, B] or [U, type bits, 1]
    objective: Tensor  # [2, B], mean start position of the agents, as the other side sees it
    max_reward: (
        Tensor  # [B], unscaled return of a win: damage and kills of all enemies, and the win
    )


class View(NamedTuple):
    """What agents observe."""

    observation: Tensor  # [B, A, observation_size]
    offered: Tensor  # legal actions, bool [B, A, actions]
    state: Tensor  # [B, state_size]
    alive: Tensor  # bool [B, A]


class Outcome(NamedTuple):
    """Outcome of a step; [B]."""

    reward: Tensor  # the team's
    terminated: Tensor  # bool
    truncated: Tensor  # bool
    won: Tensor  # bool


class Moment(NamedTuple):
    """Battles between two steps; with their `Episode`, this determines the next step."""

    units: Units
    notes: Notes  # of the episode so far
    options: Options  # the agents' legal actions
    steps: Tensor  # int64 [B], steps of this episode so far


class Scene(NamedTuple):
    """Battles and their observations; `episode` and `moment` determine the next step."""

    episode: Episode
    moment: Moment
    observation: Tensor  # [A, observation_size, B]
    state: Tensor  # [state_size, B]
    living: Tensor  # [A, B], 1 or 0

    def view(self) -> View:
        """Return what agents observe, as views of the same memory."""
        seen = (self.observation, self.moment.options.offered, self.state, self.living > 0)
        return View(*(part.movedim(-1, 0) for part in seen))


def select(where: Tensor, new: Any, old: Any) -> Any:
    """Take `new` where `where` is True, else `old`; keep tensors that all battles share."""
    if isinstance(new, Tensor):
        return torch.where(where, new, old) if new.shape[-1] == where.shape[0] else old
    return type(new)(*(select(where, *parts) for parts in zip(new, old, strict=True)))


def split_battles(state: Any, battles: int, shares: int) -> list[Any]:
    """Divide the state of battles into equal shares.

    Args:
        state: tensors in dictionaries, lists and tuples. Their last dimension is the battles, or of
            size 1 if all battles share them.
        battles: B, more than 1.
        shares: number of shares.
    """
    size = battles // shares

    def of_share(number: int, part: Any) -> Any:
        if not isinstance(part, Tensor) or part.shape[-1] != battles:
            return part
        share = part.narrow(-1, number * size, size)
        return share.clone(memory_format=torch.contiguous_format)

    return [tree_map(functools.partial(of_share, number), state) for number in range(shares)]


def join_battles(like: Any, battles: int, shares: Sequence[Any]) -> Any:
    """Put the shares of `split_battles` together; `like`: the state of any B battles."""

    def join(model: Any, *parts: Any) -> Any:
        if not isinstance(model, Tensor) or model.shape[-1] != battles:
            return parts[0]
        return torch.cat([part.to(model.device) for part in parts], -1)

    return tree_map(join, like, *shares)
