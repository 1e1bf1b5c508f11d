"""A task whose roles are named after agents, so that several agents can share a role."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar

from heteromark.llm.tasks.base import Problem, Reward, Split, Task, check_role


class CastProblem(Problem):
    """A problem of the underlying task, with agents as its roles.

    Args:
        problem: the problem of the underlying task.
        roles: each agent's role in the underlying task.
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
        return self.problem.fields(self._role_of(role))

    def act(self, role: str, response: str) -> Reward:
        return self.problem.act(self._role_of(role), response)

    def demonstration(self, role: str) -> str:
        return self.problem.demonstration(self._role_of(role))

    def clone(self) -> CastProblem:
        return CastProblem(self.problem.clone(), self._roles)

    def judgement(self) -> Mapping[str, float]:
        return self.problem.judgement()

    def _role_of(self, agent: str) -> str:
        check_role(agent, self._roles)
        return self._roles[agent]


class CastTask(Task):
    """A task with agents in its roles; its problems are those of the underlying task.

    Args:
        task: the underlying task.
        roles: each agent's role in the underlying task, in the agents' default order.

    Raises:
        ValueError: The task has no such role.
    """

    name: ClassVar[str] = "cast"

    def __init__(self, task: Task, roles: Mapping[str, str]) -> None:
        for role in roles.values():
            check_role(role, task.roles)
        self.task = task
        self._role_of = dict(roles)
        self.roles = {agent: task.roles[role] for agent, role in roles.items()}

    def problem(self, seed: int, split: Split = "train") -> CastProblem:
        return CastProblem(self.task.problem(seed, split), self._role_of)

    def draw(self, generator: random.Random) -> CastProblem:
        return CastProblem(self.task.draw(generator), self._role_of)
