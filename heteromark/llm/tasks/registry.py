"""The tasks of language-model agents, by name."""

from __future__ import annotations

from collections.abc import Callable

from heteromark.config.models.components import EnvironmentConfig
from heteromark.config.models.llm import TextConfig
from heteromark.config.models.tasks import TASK_CONFIGS
from heteromark.import_paths import Registry
from heteromark.llm.tasks.base import Task, check_template
from heteromark.llm.tasks.cast import CastTask

TASKS: Registry[Callable[..., Task]] = Registry(
    "environment.text.task", {name: f"llm.tasks.{name}" for name in TASK_CONFIGS}
)


def make_task(environment: EnvironmentConfig) -> Task:
    """The task of an environment.

    Built-in tasks get their section of `environment.text`; one's own gets `environment.kwargs`.
    With `environment.text.cast`, its roles are named after the agents that play them.

    Raises:
        ValueError, ModuleNotFoundError: there is none of that name, or its settings do not fit.
        TypeError: what was named makes no task.
    """
    text = environment.text
    make = TASKS[text.task]
    task = make(**environment.kwargs) if text.task_is_custom else make(getattr(text, text.task))
    if not isinstance(task, Task):
        raise TypeError(
            f"environment.text.task {text.task} made a {type(task).__name__}, not a "
            f"{Task.__module__}.{Task.__qualname__}"
        )
    return CastTask(task, text.cast) if text.cast else task


def turn_order_of(task: Task, text: TextConfig, alone: bool) -> tuple[str, ...]:
    """The roles of a round, in order.

    Args:
        alone: whether the task's last role works alone, unless the config says otherwise.

    Raises:
        ValueError: the task has no such role.
    """
    order = tuple(text.turn_order or (list(task.roles)[-1:] if alone else task.roles))
    for role in (*order, *text.templates):
        if role not in task.roles:
            raise ValueError(
                f"environment.text: task {text.task} has no role {role}; its roles are "
                f"{', '.join(task.roles)}"
            )
    return order


def templates_of(task: Task, text: TextConfig, wording: int = 0) -> dict[str, str]:
    """Each role's prompt template: the config's own, or one of the task's.

    Args:
        wording: which of the task's, from 0.

    Raises:
        ValueError: a template names what the role is not told, or there are not so many.
    """
    problem = task.problem(0)
    templates = {}
    for role, wordings in task.roles.items():
        known = wordings.templates
        if role not in text.templates and wording >= len(known):
            raise ValueError(
                f"model.wording is {wording}, but role {role} of task {text.task} has "
                f"{len(known)} wordings, from 0"
            )
        templates[role] = text.templates.get(role) or known[wording]
        try:
            check_template(templates[role], problem.fields(role))
        except ValueError as error:
            raise ValueError(f"environment.text.templates.{role}: {error}") from error
    return templates
