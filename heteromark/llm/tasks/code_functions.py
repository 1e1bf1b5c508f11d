"""Functions of the code task, and families of them.

Every implementation is one expression. The expressions come from `code_families`, so they are
trusted and evaluated in this process.
"""

from __future__ import annotations

import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAME = "f"  # the name of every function
_POOL = 60  # number of inputs to draw when looking for inputs that distinguish implementations


class Argument(ABC):
    """The valid values of an argument."""

    @abstractmethod
    def draw(self, generator: random.Random) -> Any:
        """Draw a valid value."""

    @abstractmethod
    def admits(self, value: object) -> bool:
        """Return whether a value of any type is valid; implementations get only valid values."""


@dataclass(frozen=True)
class Whole(Argument):
    """An integer."""

    low: int
    high: int

    def draw(self, generator: random.Random) -> int:
        return generator.randint(self.low, self.high)

    def admits(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high


@dataclass(frozen=True)
class Text(Argument):
    """A string over a small alphabet, so that letters repeat."""

    letters: str
    longest: int = 8

    def draw(self, generator: random.Random) -> str:
        return "".join(generator.choices(self.letters, k=generator.randint(0, self.longest)))

    def admits(self, value: object) -> bool:
        return type(value) is str and len(value) <= self.longest and set(value) <= set(self.letters)


@dataclass(frozen=True)
class Numbers(Argument):
    """A list of integers."""

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
        says: description of the return value, as it follows "returns".
        right: the correct expression.
        wrong: plausible but wrong expressions.
    """

    arguments: Mapping[str, Argument]
    says: str
    right: str
    wrong: tuple[str, ...]

    @property
    def head(self) -> str:
        """The function's name and arguments, such as `f(a, b)`."""
        return f"{NAME}({', '.join(self.arguments)})"

    @property
    def source(self) -> str:
        """The correct implementation as a program."""
        return f"def {self.head}:\n    return {self.right}"

    def admits(self, call: Sequence[object]) -> bool:
        """Return whether these arguments are valid."""
        kinds = self.arguments.values()
        return len(call) == len(kinds) and all(
            kind.admits(value) for kind, value in zip(kinds, call, strict=True)
        )

    def value(self, call: Sequence[Any]) -> Any:
        """Return the result of the correct implementation."""
        return self._call(self.right, call)

    def catches(self, call: Sequence[Any]) -> frozenset[int]:
        """Return the indices of the wrong implementations whose result differs or that fail."""
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
        """Draw distinct valid arguments of calls.

        Args:
            generator: source of randomness.
            most: number of inputs needed. The result has more if enough different inputs exist.
        """
        calls: dict[str, list[Any]] = {}
        for _ in range(_POOL + 8 * most):
            call = [kind.draw(generator) for kind in self.arguments.values()]
            calls.setdefault(repr(call), call)
        return list(calls.values())

    def _call(self, expression: str, call: Sequence[Any]) -> Any:
        return _compiled(f"lambda {', '.join(self.arguments)}: {expression}")(*call)


@dataclass(frozen=True)
class Family(Function):
    """A family of functions that differ in parameters, which the texts contain in braces.

    Attributes:
        parameters: possible values of each parameter, by name.
    """

    parameters: Mapping[str, Sequence[Any]]

    def draw(self, generator: random.Random) -> Function:
        """Draw a function of the family."""
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
    """Return whether two results are equal, with equal types at every depth."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
