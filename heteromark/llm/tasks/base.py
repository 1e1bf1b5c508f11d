"""The interface of tasks for language-model agents.

A `Task` draws problems from seeds. A `Problem` holds its own state, including the effects of past
responses. Several roles work on a problem in rounds: in each round every role acts once, in order,
and sees the effects of earlier actions. Problems can be copied, so each of several candidate
responses is scored on its own copy.

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
# One in this many problems belongs to the validation split.
VALIDATION_SHARE = 10
MAX_ATTEMPTS = 10_000


class Reward(NamedTuple):
    """The reward of a response, dimensionless.

    Attributes:
        team: quality of the team's result after the response, by an exact check.
        local: quality of this response alone, such as its format.
    """

    team: float
    local: float


MALFORMED = Reward(team=0.0, local=-0.1)  # for a response that cannot be parsed


@dataclass(frozen=True)
class Role:
    """A role of an agent in a task.

    Attributes:
        templates: alternative wordings of the role's prompt, with names of `Problem.fields` in
            braces. The first is short, for tiny models that learn its meaning in training; the
            others are full instructions. Prompt selection chooses among all of them.
    """

    templates: tuple[str, ...]


class Problem(ABC):
    """A problem and the state of the work on it."""

    @property
    @abstractmethod
    def key(self) -> str:
        """The problem as text, without the state of the work; equal problems have equal keys."""

    @property
    def is_done(self) -> bool:
        """Whether the work has ended. By default, whether the problem is solved."""
        return self.is_solved

    @property
    @abstractmethod
    def is_solved(self) -> bool:
        """Whether the problem is solved, by an exact check."""

    @abstractmethod
    def fields(self, role: str) -> dict[str, str]:
        """Return the current values of the role's prompt fields, by name.

        A role always has the same field names.
        """

    @abstractmethod
    def act(self, role: str, response: str) -> Reward:
        """Apply a role's response, which may be any text, and return its reward.

        Raises:
            ValueError: The task has no such role, or the problem is done.
        """

    @abstractmethod
    def demonstration(self, role: str) -> str:
        """Return a perfect agent's current response in this role."""

    def judgement(self) -> Mapping[str, float]:
        """Return additional scores of the current state, by name, each from 0 to 1.

        A task always has the same names. Evaluation reports the means.
        """
        return {}

    def clone(self) -> Self:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def prompt(self, role: str, template: str) -> str:
        """Return the current prompt of a role."""
        return template.format_map(self.fields(role))


class TurnProblem(Problem):
    """Base class of the built-in problems: checks roles and turns.

    Subclasses never modify their attributes' values in place, so shallow copies are independent.

    Attributes:
        roles: the roles of its task.
    """

    roles: ClassVar[Mapping[str, Role]]

    def clone(self) -> Self:
        return copy.copy(self)

    def check_role(self, role: str) -> None:
        """Check that the task has a role; see `check_role`."""
        check_role(role, self.roles)

    def check_turn(self, role: str) -> None:
        """Check that a role can act on the problem now.

        Raises:
            ValueError: There is no such role, or the problem is done.
        """
        self.check_role(role)
        if self.is_done:
            raise ValueError(f"{role} cannot act because the problem is done: draw a new problem")


class Task(ABC):
    """A family of problems of the same difficulty.

    Attributes:
        name: its name in configs.
        roles: by name, in their default order. The last role can solve the problem alone; a single
            agent acts in this role.
    """

    name: ClassVar[str]
    roles: Mapping[str, Role]

    def problem(self, seed: int, split: Split = "train") -> Problem:
        """Return the problem of a seed, the same one on every machine.

        The splits are disjoint: the split of a problem depends only on the problem itself.

        Raises:
            ValueError: There are too few different problems for both splits.
        """
        for attempt in range(MAX_ATTEMPTS):
            drawn = self.draw(random.Random(f"{self.name}/{seed}/{split}/{attempt}"))
            if split_of(drawn) == split:
                return drawn
        raise ValueError(
            f"{self.name} drew {MAX_ATTEMPTS:,} problems, but none belongs to the {split} split: "
            "change its settings or file to allow more different problems"
        )

    @abstractmethod
    def draw(self, generator: random.Random) -> Problem:
        """Draw a random problem, with all randomness from the generator."""


def split_of(problem: Problem) -> Split:
    """Return the split that a problem belongs to."""
    number = int.from_bytes(hashlib.sha256(problem.key.encode()).digest()[:8])
    return "validation" if number % VALIDATION_SHARE == 0 else "train"


def check_role(role: str, roles: Iterable[str]) -> None:
    """Check that a task has a role.

    Raises:
        ValueError: The task has no such role.
    """
    if role not in roles:
        raise ValueError(f"no role {role!r} in this task; its roles are {', '.join(roles)}")


def last_line(response: str) -> str:
    """Return the last non-blank line, stripped; empty if there is none."""
    return response.rstrip().rpartition("\n")[2].strip()


def check_template(template: str, fields: Mapping[str, Any]) -> None:
    """Check that a prompt template contains only known fields.

    Raises:
        ValueError: It contains something else in braces, or its braces do not match.
    """
    for _, name, specification, conversion in Formatter().parse(template):
        if name is None:
            continue
        if name not in fields or specification or conversion:
            suffix = (f"!{conversion}" if conversion else "") + (
                f":{specification}" if specification else ""
            )
            raise ValueError(
                f"a prompt template may only use the fields {', '.join(sorted(fields))}, not "
                f"{{{name}{suffix}}}; write {{{{ and }}}} for literal braces"
            )
