"""Python's and NumPy's global generators, one of each for every copy. Imports no torch."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from heteromark.seeds import stream_seed


class GlobalStreams:
    """What a process's copies find in the global generators.

    Environments ought to draw from generators of their own, but some draw from the global ones.
    Then copies that are stepped in one process would disturb each other, differently for every
    number of processes, and the process that trains. So each copy gets its own state of both.

    That costs some 4 % of collecting the particle environments, which draw from neither. So it
    ends where every copy has played a whole episode and none has drawn; one that draws later is
    warned about.

    Args:
        seeds: one for every copy, from which all that it draws follows.
        name: the environment's in the warning.
    """

    def __init__(self, seeds: Iterable[int], name: str) -> None:
        self._own = [_Streams(seed) for seed in seeds]
        self._common = _Watched()  # where no copy draws
        self._name = name
        self._first_episode = set(range(len(self._own)))  # copies that are in theirs
        self._exchanges = True

    def episodes_ended(self, copies: Iterable[int]) -> None:
        """Take note of copies that have played to an end."""
        self._first_episode.difference_update(copies)
        if self._exchanges and not self._first_episode:
            self._exchanges = any(own.were_drawn_from() for own in self._own)

    def run(self, function: Callable[[int], None], copies: Iterable[int]) -> None:
        """Call it for one copy after the other; the process's own generators are put back.

        But for a normal number that NumPy's legacy generator holds in reserve: it is dropped.
        """
        python, numpy = random.getstate(), np.random.get_bit_generator()
        try:
            if self._exchanges:
                for i in copies:
                    self._own[i].run(function, i)
            else:
                self._common.install()
                for i in copies:
                    function(i)
                if self._common.was_drawn_from():
                    self._exchanges = True
                    self._warn()
        finally:
            random.setstate(python)
            np.random.set_bit_generator(numpy)

    def _warn(self) -> None:
        warnings.warn(
            f"environment {self._name!r} draws from Python's or NumPy's global generator, and did "
            "not in its first episodes: what it drew now depends on environment.num_workers. Let "
            "it draw from a generator of its own, seeded by reset(seed)",
            stacklevel=1,
        )


class _Streams:
    """States of both generators that follow from a seed."""

    def __init__(self, seed: int) -> None:
        self._numpy = np.random.MT19937(stream_seed(seed, "numpy"))
        self._python = random.Random(stream_seed(seed, "random")).getstate()
        self._initial = self._states()

    def install(self) -> None:
        np.random.set_bit_generator(self._numpy)
        random.setstate(self._python)

    def run(self, function: Callable[[int], None], copy: int) -> None:
        self.install()
        try:
            function(copy)
        finally:
            self._python = random.getstate()

    def were_drawn_from(self) -> bool:
        return self._states() != self._initial

    def _states(self) -> tuple[Any, ...]:
        numpy = self._numpy.state["state"]
        return self._python, numpy["pos"], numpy["key"].tobytes()


class _Watched(_Streams):
    """States that nobody ought to draw from. Reading one takes long; a number of each is quick."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self._alike = _Streams(seed=0)
        self._next = random.Random(stream_seed(0, "random")).getrandbits(64)

    def was_drawn_from(self) -> bool:
        """Whether anybody drew since they were installed."""
        numpy_alike = self._numpy.random_raw() == self._alike._numpy.random_raw()
        return not numpy_alike or random.getrandbits(64) != self._next


def with_streams(seed: int, function: Callable[[], Any]) -> Any:
    """What a function returns that finds both generators in a state that follows from a seed."""
    made = []
    GlobalStreams([seed], "").run(lambda _: made.append(function()), [0])
    return made[0]
