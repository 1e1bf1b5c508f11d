"""A task whose roles are named after agents, so that several agents may play one role of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar

from heteromark.llm.tasks.base import Problem, Reward, Split, Task, check_role


class CastProblem(Problem):
    """A problem of the task that is played.

    Args:
        problem: that problem.
        roles: its role, by name of agent.
    """

    def __init__(self, problem: Problem, roles: Mapping[str, str]) -> None:
        self.problem = problem
        self._roles = roles

    @property
    def key(self) -> str:
        return self.problem.key

    @property
    def is_done(self) -> bool:
        return self.problem.is_done

    @property
    def is_solved(self) -> bool:
        return self.problem.is_solved

    def fields(self, role: str) -> dict[str, str]:
        return self.problem.fields(self._played(role))

    def act(self, role: str, response: str) -> Reward:
        return self.problem.act(self._played(role), response)

    def demonstration(self, role: str) -> str:
        return self.problem.demonstration(self._played(role))

    def clone(self) -> CastProblem:
        return CastProblem(self.problem.clone(), self._roles)

    def judgement(self) -> Mapping[str, float]:
        return self.problem.judgement()

    def _played(self, agent: str) -> str:
        check_role(agent, self._roles)
        return self._roles[agent]


class CastTask(Task):
    """A task, with agents in its roles; its problems are the same ones.

    Args:
        task: what is played.
        roles: its role, by name of agent, in the order in which they act unless told otherwise.

    Raises:
        ValueError: the task has no such role.
    """

    name: ClassVar[str] = "cast"

    def __init__(self, task: Task, roles: Mapping[str, str]) -> None:
        for role in roles.values():
            check_role(role, task.roles)
        self.task = task
        self._played = dict(roles)
        self.roles = {agent: task.roles[role] for agent, role in roles.items()}

    def problem(self, seed: int, split: Split = "train") -> CastProblem:
        return CastProblem(self.task.problem(seed, split), self._played)

    def draw(self, generator: random.Random) -> CastProblem:
        return CastProblem(self.task.draw(generator), self._played)
