"""What tasks have in common in taking a response: whose turn it is, and where the answer stands."""

from __future__ import annotations

from collections.abc import Iterable

from heteromark.llm.tasks.base import Problem, Reward

MALFORMED = Reward(team=0.0, local=-0.1)


def check_role(role: str, roles: Iterable[str]) -> None:
    """Make sure that a task has a role.

    Raises:
        ValueError: it has none of that name.
    """
    if role not in roles:
        raise ValueError(f"no role {role!r} in this task; its roles are {', '.join(roles)}")


def check_turn(problem: Problem, role: str, roles: Iterable[str]) -> None:
    """Make sure that a role can act on a problem now.

    Raises:
        ValueError: there is no such role, or the problem is done.
    """
    check_role(role, roles)
    if problem.is_done:
        raise ValueError(f"the problem is done, so {role} cannot act on it: draw another one")


def last_line(response: str) -> str:
    """The last line that is not blank, without blanks around it; empty where there is none."""
    return response.rstrip().rpartition("\n")[2].strip()
