"""What a task for language-model agents is.

A `Task` makes problems, each from a seed; a `Problem` is one of them with all that was done about
it so far. Several roles work on a problem in rounds; in a round each role acts once, in order, and
sees what those before it did. A problem can be copied, so that every one of several candidate
responses is scored on a copy of its own.

Source of the terms: AT-GRPO ("Stronger-MAS", arXiv 2510.11062). The reward of a response is
`alpha * team + local`.
"""

from __future__ import annotations

import copy
import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar, Literal, NamedTuple, Self

Split = Literal["train", "validation"]
# One problem in so many is kept for validation.
VALIDATION_SHARE = 10
MAX_ATTEMPTS = 10_000


class Reward(NamedTuple):
    """What a response earned, dimensionless.

    Attributes:
        team: how well the whole team stands after it, by an exact check.
        local: what concerns this response alone, such as its format.
    """

    team: float
    local: float


MALFORMED = Reward(team=0.0, local=-0.1)  # of what cannot be read


@dataclass(frozen=True)
class Role:
    """A part that an agent can play in a task.

    Attributes:
        templates: wordings of its prompt, with the names of `Problem.fields` in braces. The first
            is short, for tiny models, which learn what is meant; the others say it in words.
            Prompt optimisation chooses among all.
    """

    templates: tuple[str, ...]


class Problem(ABC):
    """One problem, and what was done about it."""

    @property
    @abstractmethod
    def key(self) -> str:
        """The problem as text, without what was done about it: equal for equal problems."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do; where a problem cannot fail, whether it is solved."""
        return self.is_solved

    @property
    @abstractmethod
    def is_solved(self) -> bool:
        """Whether it is solved, by an exact check."""

    @abstractmethod
    def fields(self, role: str) -> dict[str, str]:
        """What a prompt can tell this role now, by name: always the same names for a role."""

    @abstractmethod
    def act(self, role: str, response: str) -> Reward:
        """Take a role's response, any text at all, into account.

        Raises:
            ValueError: the task has no such role, or the problem is done.
        """

    @abstractmethod
    def demonstration(self, role: str) -> str:
        """What a perfect agent would respond now in this role."""

    def judgement(self) -> Mapping[str, float]:
        """What more than solved or not can be said of how it stands: shares from 0 to 1, by name.

        Always the same names for a task; evaluation reports their means.
        """
        return {}

    def clone(self) -> Self:
        """A copy that is independent of this one from now on."""
        return copy.deepcopy(self)

    def prompt(self, role: str, template: str) -> str:
        """The prompt of a role now."""
        return template.format_map(self.fields(role))


class TurnProblem(Problem):
    """A problem of the built-in tasks, which makes sure whose turn it is.

    Nothing that it holds is ever changed in place, so that a copy can share it.

    Attributes:
        roles: those of its task.
    """

    roles: ClassVar[Mapping[str, Role]]

    def clone(self) -> Self:
        return copy.copy(self)

    def check_role(self, role: str) -> None:
        """Make sure that the task has a role; see `check_role`."""
        check_role(role, self.roles)

    def check_turn(self, role: str) -> None:
        """Make sure that a role can act on the problem now.

        Raises:
            ValueError: there is no such role, or the problem is done.
        """
        self.check_role(role)
        if self.is_done:
            raise ValueError(f"the problem is done, so {role} cannot act on it: draw another one")


class Task(ABC):
    """A family of problems of one difficulty.

    Attributes:
        name: what configs call it.
        roles: by name, in the order in which they act unless told otherwise; the last one alone
            can solve the problem, which is how a single agent works on it.
    """

    name: ClassVar[str]
    roles: ClassVar[Mapping[str, Role]]

    def problem(self, seed: int, split: Split = "train") -> Problem:
        """The problem of a seed: the same one on every machine.

        No problem of one split is in the other: which split it belongs to follows from the problem.

        Raises:
            ValueError: there are too few different problems for both splits.
        """
        for attempt in range(MAX_ATTEMPTS):
            drawn = self.draw(random.Random(f"{self.name}/{seed}/{split}/{attempt}"))
            if split_of(drawn) == split:
                return drawn
        raise ValueError(
            f"{self.name} has no problem for {split} among {MAX_ATTEMPTS:,}: make it less small"
        )

    @abstractmethod
    def draw(self, generator: random.Random) -> Problem:
        """A random problem; all randomness comes from the generator."""


def split_of(problem: Problem) -> Split:
    """Which split a problem belongs to."""
    number = int.from_bytes(hashlib.sha256(problem.key.encode()).digest()[:8])
    return "validation" if number % VALIDATION_SHARE == 0 else "train"


def check_role(role: str, roles: Iterable[str]) -> None:
    """Make sure that a task has a role.

    Raises:
        ValueError: it has none of that name.
    """
    if role not in roles:
        raise ValueError(f"no role {role!r} in this task; its roles are {', '.join(roles)}")


def last_line(response: str) -> str:
    """The last line that is not blank, without blanks around it; empty where there is none."""
    return response.rstrip().rpartition("\n")[2].strip()


def check_template(template: str, fields: Mapping[str, Any]) -> None:
    """Make sure that a prompt template names nothing but fields.

    Raises:
        ValueError: it names something else, or its braces do not match.
    """
    for _, name, specification, conversion in Formatter().parse(template):
        if name is None:
            continue
        if name not in fields or specification or conversion:
            told = (
                name
                + (f"!{conversion}" if conversion else "")
                + (specification and ":" + specification)
            )
            raise ValueError(
                f"a prompt template may only name {', '.join(sorted(fields))}, not {{{told}}}; "
                "write {{ and }} for braces"
            )
