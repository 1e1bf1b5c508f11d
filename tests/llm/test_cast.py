"""Test `environment.text.cast`: named agents, several of them in one role of a task."""

import pytest

from heteromark.config.models.components import EnvironmentConfig
from heteromark.config.models.tasks import MathConfig
from heteromark.llm.tasks.math import MathTask
from heteromark.llm.tasks.registry import make_task

ROLES = {"helper": "tool", "solver": "reasoner", "judge": "reasoner"}


def cast(roles, **settings):
    """Create the math task with a cast, from a config."""
    text = {"task": "math", "cast": roles, "math": settings}
    return make_task(EnvironmentConfig.model_validate({"name": "math", "text": text}))


def test_agents_play_the_roles_of_the_task_on_the_same_problems():
    task, inner = cast(ROLES, max_operand=9), MathTask(MathConfig(max_operand=9))
    assert list(task.roles) == list(ROLES)
    assert task.roles["judge"] is inner.roles["reasoner"]
    for split in ("train", "validation"):
        assert task.problem(3, split).key == inner.problem(3, split).key


def test_an_agents_response_counts_for_its_role():
    problem, inner = cast(ROLES).problem(0), MathTask(MathConfig()).problem(0)
    assert problem.prompt("judge", "{question}") == inner.prompt("reasoner", "{question}")
    assert problem.act("helper", inner.demonstration("tool")) == inner.act(
        "tool", inner.demonstration("tool")
    )
    copied = problem.clone()
    copied.act("solver", "0")
    assert copied.fields("judge") == copied.fields("solver")
    answered = copied.clone()
    if not answered.is_done:
        answered.act("judge", answered.demonstration("judge"))
    assert answered.is_solved
    assert not problem.is_done
    assert set(problem.judgement()) == set(inner.judgement())


def test_agents_and_roles_must_be_known():
    with pytest.raises(ValueError, match="no role 'cook' in this task; its roles are tool"):
        cast({"a": "cook"})
    with pytest.raises(ValueError, match="no role 'tool' in this task; its roles are helper"):
        cast(ROLES).problem(0).act("tool", "1")
