"""What battles are between two steps, and what comes of one."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.layout import Notes, Options
from heteromark.environment.skirmish.state import Pairs, Roster, Units


class Episode(NamedTuple):
    """What is fixed throughout an episode."""

    key: Tensor  # int64 [B], what its random numbers follow from
    roster: Roster
    pairs: Pairs
    bits: Tensor  # [U, type bits, B] or [U, type bits, 1], 1 for a unit's type
    objective: Tensor  # [2, B], the middle of where the agents started, as the other side sees it
    max_reward: Tensor  # [B], of a victory without losses of reward: damage, kills, and the win


class View(NamedTuple):
    """What agents see."""

    observation: Tensor  # [B, A, observation_size]
    offered: Tensor  # bool [B, A, actions]
    state: Tensor  # [B, state_size]
    alive: Tensor  # bool [B, A]


class Outcome(NamedTuple):
    """What came of a step; [B]."""

    reward: Tensor  # of the team
    terminated: Tensor  # bool
    truncated: Tensor  # bool
    won: Tensor  # bool


class Moment(NamedTuple):
    """A battle between two steps: all that the next one follows from, besides its episode."""

    units: Units
    notes: Notes  # of the episode so far
    options: Options  # what the agents may do
    steps: Tensor  # int64 [B], of this episode so far


class Scene(NamedTuple):
    """All there is to know of battles at a moment; the next step follows from the first two."""

    episode: Episode
    moment: Moment
    observation: Tensor  # [A, observation_size, B]
    state: Tensor  # [state_size, B]
    living: Tensor  # [A, B], 1 or 0

    def view(self) -> View:
        """What agents see of it; the numbers are in the same memory."""
        seen = (self.observation, self.moment.options.offered, self.state, self.living > 0)
        return View(*(part.movedim(-1, 0) for part in seen))


def chosen(where: Tensor, new: Any, old: Any) -> Any:
    """`new` in the battles where it says so, else `old`; what all battles share stays."""
    if isinstance(new, Tensor):
        return torch.where(where, new, old) if new.shape[-1] == where.shape[0] else old
    return type(new)(*(chosen(where, *parts) for parts in zip(new, old, strict=True)))
