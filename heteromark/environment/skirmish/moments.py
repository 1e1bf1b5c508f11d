"""What battles are between two steps, and what comes of one."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.layout import Notes, Options
from heteromark.environment.skirmish.state import Pairs, Roster, Units


class Episode(NamedTuple):
    """What is fixed throughout an episode.

    Attributes:
        key: int64 [B], what its random numbers follow from.
        roster, pairs: the units, and what they are to each other.
        bits: [U, type bits, B] or [U, type bits, 1], 1 for a unit's type.
        objective: [2, B], the middle of where the agents started, as the other side sees it.
        max_reward: [B], that of a victory without losses of reward: damage, kills, and the win.
    """

    key: Tensor
    roster: Roster
    pairs: Pairs
    bits: Tensor
    objective: Tensor
    max_reward: Tensor


class View(NamedTuple):
    """What agents see; [B, A, …].

    Attributes:
        observation: [B, A, observation_size].
        offered: bool [B, A, actions].
        state: [B, state_size].
        alive: bool [B, A].
    """

    observation: Tensor
    offered: Tensor
    state: Tensor
    alive: Tensor


class Outcome(NamedTuple):
    """What came of a step; [B].

    Attributes:
        reward: of the team.
        terminated, truncated, won: bool.
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    won: Tensor


class Moment(NamedTuple):
    """A battle between two steps: all that the next one follows from, besides its episode.

    Attributes:
        units, notes: of the episode so far.
        options: what the agents may do.
        steps: int64 [B], of this episode so far.
    """

    units: Units
    notes: Notes
    options: Options
    steps: Tensor


class Scene(NamedTuple):
    """All there is to know of battles at a moment.

    Attributes:
        episode, moment: what the next step follows from.
        observation: [A, observation_size, B].
        state: [state_size, B].
        living: [A, B], 1 or 0.
    """

    episode: Episode
    moment: Moment
    observation: Tensor
    state: Tensor
    living: Tensor

    def view(self) -> View:
        """What agents see of it; the numbers are in the same memory."""
        seen = (self.observation, self.moment.options.offered, self.state, self.living > 0)
        return View(*(part.movedim(-1, 0) for part in seen))


def chosen(where: Tensor, new: Any, old: Any) -> Any:
    """`new` in the battles where it says so, else `old`; what all battles share stays."""
    if isinstance(new, Tensor):
        return torch.where(where, new, old) if new.shape[-1] == where.shape[0] else old
    return type(new)(*(chosen(where, *parts) for parts in zip(new, old, strict=True)))
