"""Seeds of single episodes, and the log from which a running one is played again. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from heteromark.environment.pettingzoo.arrays import Arrays, Key

_MAX_BYTES = 2**28  # of a log; episodes whose beginning was dropped cannot be played again


class RunningEpisode(NamedTuple):
    """What a copy needs to play its running episode again up to now.

    Attributes:
        number: of the episode, counted from 0.
        acts: bool [T], by entry of the log, whether the copy acts. None: the episode cannot be
            played again.
        actions: by group, the actions of the copy's agents, [T, n] or [T, n, action_size].
        outputs: the copy's current outputs by key, without rewards.
    """

    number: int
    acts: np.ndarray | None
    actions: Mapping[Key, np.ndarray]
    outputs: Mapping[Key, np.ndarray]

    def converted(self, convert: Callable[[Any], Any]) -> RunningEpisode:
        """Return the episode with its arrays converted, for example to tensors."""
        return RunningEpisode(
            self.number,
            None if self.acts is None else convert(self.acts),
            {key: convert(action) for key, action in self.actions.items()},
            {key: convert(output) for key, output in self.outputs.items()},
        )


class ActionLog:
    """The actions since the oldest running episode of several copies began.

    An entry holds the actions of all copies in one call, so that adding one costs little.

    Args:
        actions: the arrays from which entries are copied, [copies, …].
    """

    def __init__(self, actions: Arrays) -> None:
        self._actions = actions
        self._n_copies = len(next(iter(actions.values())))
        entry_bytes = self._n_copies + sum(action.nbytes for action in actions.values())
        self._max_entries = _MAX_BYTES // entry_bytes
        self._entries: deque[tuple[np.ndarray, Arrays]] = deque()
        self._dropped = 0
        # by copy, how many entries had ever been added when its episode began
        self._begun = np.zeros(self._n_copies, np.int64)
        self._every = np.ones(self._n_copies, bool)

    def begin(self, i: int) -> None:
        """Forget copy i's actions: a new episode begins."""
        self._begun[i] = self._dropped + len(self._entries)

    def add(self, acts: np.ndarray | None = None) -> None:
        """Add the current actions of the copies `acts`, bool [copies], or of all."""
        acts = self._every if acts is None else acts
        self._entries.append((acts, {key: each.copy() for key, each in self._actions.items()}))
        needless = int(self._begun.min()) - self._dropped
        for _ in range(max(needless, len(self._entries) - self._max_entries)):
            self._entries.popleft()
            self._dropped += 1

    def of_copies(self) -> Iterator[tuple[np.ndarray | None, Arrays]]:
        """Yield each copy's `acts` and `actions`, as in `RunningEpisode`."""
        length = len(self._entries)
        acts = np.array([acts for acts, _ in self._entries], bool).reshape(length, self._n_copies)
        actions = {
            key: np.array([entry[key] for _, entry in self._entries], now.dtype)
            for key, now in self._actions.items()
        }
        for i, start in enumerate((self._begun - self._dropped).tolist()):
            if start < 0:
                yield None, {}
            elif start == length:
                yield acts[start:, i].copy(), {}
            else:  # copies: a checkpoint would save all of the memory that a view lies in
                own = {key: each[start:, i].copy() for key, each in actions.items()}
                yield acts[start:, i].copy(), own

    def replay(self, episodes: Mapping[int, RunningEpisode]) -> Iterator[list[int]]:
        """Write the actions of episodes that have just begun, entry by entry; all end together.

        Yields:
            The copies that act, whose actions are now in the arrays.
        """
        lengths = {i: len(each.acts) for i, each in episodes.items() if each.acts is not None}
        longest = max(lengths.values(), default=0)
        for i, length in lengths.items():
            self._begun[i] = self._dropped + len(self._entries) + longest - length
        for t in range(-longest, 0):
            acts = np.zeros(self._n_copies, bool)
            for i, episode in episodes.items():
                if episode.acts is not None and len(episode.acts) + t >= 0:
                    acts[i] = episode.acts[t]
                    for key, action in episode.actions.items():
                        self._actions[key][i] = action[t]
            self.add(acts)
            yield acts.nonzero()[0].tolist()


class LazyGenerator:
    """A `numpy.random.Generator` that is created when it is first used.

    Seeding an action space takes 15 µs, once per agent and episode, and hardly any environment
    draws from one.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        generator = self.__dict__.get("_generator")
        if generator is None:
            generator = self._generator = np.random.default_rng(self._seed)
        return getattr(generator, name)
