"""What a function is that the code task asks for, and a family of them.

Every implementation is one expression, of this repository and therefore trusted; they are run in
this process. The families are in `code_families`.
"""

from __future__ import annotations

import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAME = "f"  # what every function is called
_POOL = 60  # inputs among which those that tell functions apart are found


class Argument(ABC):
    """What values an argument may have."""

    @abstractmethod
    def draw(self, generator: random.Random) -> Any:
        """One of them."""

    @abstractmethod
    def admits(self, value: object) -> bool:
        """Whether a value, of any type, is one of them: no other reaches an implementation."""


@dataclass(frozen=True)
class Whole(Argument):
    """A whole number."""

    low: int
    high: int

    def draw(self, generator: random.Random) -> int:
        return generator.randint(self.low, self.high)

    def admits(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high


@dataclass(frozen=True)
class Text(Argument):
    """A string of few different letters, so that they meet."""

    letters: str
    longest: int = 8

    def draw(self, generator: random.Random) -> str:
        return "".join(generator.choices(self.letters, k=generator.randint(0, self.longest)))

    def admits(self, value: object) -> bool:
        return type(value) is str and len(value) <= self.longest and set(value) <= set(self.letters)


@dataclass(frozen=True)
class Numbers(Argument):
    """A list of whole numbers."""

    low: int = -9
    high: int = 20
    longest: int = 6

    def draw(self, generator: random.Random) -> list[int]:
        count = generator.randint(0, self.longest)
        return [generator.randint(self.low, self.high) for _ in range(count)]

    def admits(self, value: object) -> bool:
        return (
            type(value) is list
            and len(value) <= self.longest
            and all(type(x) is int and self.low <= x <= self.high for x in value)
        )


@dataclass(frozen=True)
class Function:
    """A function to be written.

    Attributes:
        arguments: by name.
        says: what the function returns, after "returns".
        right: an expression of the arguments.
        wrong: expressions that one could take for it.
    """

    arguments: Mapping[str, Argument]
    says: str
    right: str
    wrong: tuple[str, ...]

    @property
    def head(self) -> str:
        """Its name and arguments."""
        return f"{NAME}({', '.join(self.arguments)})"

    @property
    def source(self) -> str:
        """The right implementation as a program."""
        return f"def {self.head}:\n    return {self.right}"

    def admits(self, call: Sequence[object]) -> bool:
        """Whether these are possible arguments."""
        kinds = self.arguments.values()
        return len(call) == len(kinds) and all(
            kind.admits(value) for kind, value in zip(kinds, call, strict=True)
        )

    def value(self, call: Sequence[Any]) -> Any:
        """What the right implementation returns."""
        return self._call(self.right, call)

    def catches(self, call: Sequence[Any]) -> frozenset[int]:
        """Which of the wrong implementations return something else, or fail."""
        right = self.value(call)
        caught = set()
        for index, wrong in enumerate(self.wrong):
            try:
                differs = not same(self._call(wrong, call), right)
            except (ValueError, IndexError, ZeroDivisionError):
                differs = True
            if differs:
                caught.add(index)
        return frozenset(caught)

    def inputs(self, generator: random.Random, most: int = 0) -> list[list[Any]]:
        """Different possible arguments of calls, a few dozen or `most` where there are so many."""
        found: dict[str, list[Any]] = {}
        for _ in range(_POOL + 8 * most):
            call = [kind.draw(generator) for kind in self.arguments.values()]
            found.setdefault(repr(call), call)
        return list(found.values())

    def _call(self, expression: str, call: Sequence[Any]) -> Any:
        return _compiled(f"lambda {', '.join(self.arguments)}: {expression}")(*call)


@dataclass(frozen=True)
class Family(Function):
    """Functions that differ in parameters, written {so} in the texts.

    Attributes:
        parameters: their possible values, by name.
    """

    parameters: Mapping[str, Sequence[Any]]

    def draw(self, generator: random.Random) -> Function:
        """One of the functions."""
        values = {name: generator.choice(values) for name, values in self.parameters.items()}

        def filled(text: str) -> str:
            for name, value in values.items():
                text = text.replace(f"{{{name}}}", str(value))
            return text

        return Function(
            self.arguments, filled(self.says), filled(self.right), tuple(map(filled, self.wrong))
        )


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> Callable[..., Any]:
    return eval(text)


def same(one: object, other: object) -> bool:
    """Whether two results are equal and of the same types throughout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
