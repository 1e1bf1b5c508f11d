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
    """Create the task of an environment.

    Built-in tasks get their section of `environment.text`; custom tasks get `environment.kwargs`.
    With `environment.text.cast`, the roles are named after the agents that act in them.

    Raises:
        ValueError, ModuleNotFoundError: The task does not exist, or its settings are invalid.
        TypeError: The named object does not create a `Task`.
    """
    text = environment.text
    make = TASKS[text.task]
    task = make(**environment.kwargs) if text.task_is_custom else make(getattr(text, text.task))
    if not isinstance(task, Task):
        raise TypeError(
            f"environment.text.task: {text.task} must return a "
            f"{Task.__module__}.{Task.__qualname__}, not a {type(task).__name__}"
        )
    return CastTask(task, text.cast) if text.cast else task


def turn_order_of(task: Task, text: TextConfig, alone: bool) -> tuple[str, ...]:
    """Return the roles of a round, in order.

    Args:
        task: the task.
        text: its config; turn_order takes precedence over `alone`.
        alone: whether the task's last role works alone.

    Raises:
        ValueError: The config names a role that the task does not have.
    """
    order = tuple(text.turn_order or (list(task.roles)[-1:] if alone else task.roles))
    for role in (*order, *text.templates, *text.system_prompts):
        if role not in task.roles:
            raise ValueError(
                f"environment.text: task {text.task} has no role {role}; its roles are "
                f"{', '.join(task.roles)}"
            )
    return order


def templates_of(task: Task, text: TextConfig, wording: int = 0) -> dict[str, str]:
    """Return each role's prompt template: from the config, otherwise from the task.

    Args:
        task: the task.
        text: its config.
        wording: index of the task's wording, from 0.

    Raises:
        ValueError: A template uses an unknown field, or a role has no such wording.
    """
    problem = task.problem(0)
    templates = {}
    for role, wordings in task.roles.items():
        known = wordings.templates
        if role not in text.templates and wording >= len(known):
            raise ValueError(
                f"model.wording ({wording}) must be below {len(known)}, the number of wordings of "
                f"role {role} in task {text.task}"
            )
        templates[role] = text.templates.get(role) or known[wording]
        try:
            check_template(templates[role], problem.fields(role))
        except ValueError as error:
            raise ValueError(f"environment.text.templates.{role}: {error}") from error
    return templates
