"""Check properties that hold for the problems of every task."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from heteromark.llm.tasks.base import check_template

# arbitrary text, and arbitrary text over the characters of valid answers
ANY_TEXT = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="UDLRudlr \n\r\t", max_size=60),
    st.text(alphabet="123456789rc=. ,\n", max_size=120),
    st.text(alphabet="\uff11٢३²①Ⅳᵁ\u2028\x85\n", max_size=40),
)
HUGE_TEXTS = [
    "",
    "\n" * 200_000,
    "U" * 500_000,
    " 1" * 300_000,
    "r1c1=1 " * 80_000,
    "<a>" * 100_000,
]


def situation(problem) -> list:
    """Return the externally visible state of a problem."""
    roles = list(problem_roles(problem))
    visible = [problem.key, problem.is_done, problem.is_solved]
    return visible + [problem.fields(role) for role in roles]


def problem_roles(problem) -> tuple[str, ...]:
    """Return the roles of a problem, parsed from its error message."""
    with pytest.raises(ValueError, match="no role") as raised:
        problem.fields("nobody")
    return tuple(str(raised.value).partition("its roles are ")[2].split(", "))


def play(problem, roles, rounds) -> int | None:
    """Play demonstrations in turn until the problem is done.

    Returns:
        The number of rounds; None if the problem is not done after all of them.
    """
    for number in range(1, rounds + 1):
        for role in roles:
            problem.act(role, problem.demonstration(role))
            if problem.is_done:
                return number
    return None


def check_drawing(task, n_seeds=100, different=0.8) -> None:
    """Check that equal seeds draw equal problems, seeds differ, and the splits are disjoint."""
    keys = {
        split: [task.problem(seed, split).key for seed in range(n_seeds)]
        for split in ("train", "validation")
    }
    for split, drawn in keys.items():
        assert drawn[:10] == [task.problem(seed, split).key for seed in range(10)]
        assert len(set(drawn)) > different * n_seeds
    assert not set(keys["train"]) & set(keys["validation"])


def check_prompts(problem, roles, longest) -> None:
    """Check that every wording uses only known fields and gives short printable ASCII text."""
    for name, role in roles.items():
        fields = problem.fields(name)
        assert len(role.templates) >= 3
        for template in role.templates:
            check_template(template, fields)
            prompt = problem.prompt(name, template)
            assert prompt.replace("\n", "").isprintable()
            assert prompt.isascii()
            assert len(prompt) <= longest, prompt


def check_any_text(problem, role, text) -> None:
    """Check that any text is accepted as a response, with a bounded reward."""
    names = {name: problem.fields(name).keys() for name in problem_roles(problem)}
    reward = problem.act(role, text)
    assert -2 <= reward.team <= 2
    assert reward.local in (0, -0.1)
    assert {name: problem.fields(name).keys() for name in names} == names


def check_clones(problem, responses) -> None:
    """Check that a problem and its clone are independent.

    Args:
        responses: pairs of role and response that change the problem.
    """
    first = situation(problem)
    clone = problem.clone()
    assert situation(clone) == first
    for role, response in responses:
        clone.act(role, response)
    changed = situation(clone)
    assert changed != first
    assert situation(problem) == first
    other = clone.clone()
    if not clone.is_done:
        other.act(*responses[0])
    for role, response in responses:
        problem.act(role, response)
    assert situation(problem) == changed
    assert situation(clone) == changed


def check_refusals(problem, done) -> None:
    """Check that unknown roles are rejected, and all roles once the problem is done."""
    for call in (
        lambda: problem.act("nobody", "U"),
        lambda: problem.fields("nobody"),
        lambda: problem.demonstration("nobody"),
    ):
        with pytest.raises(ValueError, match="no role 'nobody'"):
            call()
    assert done.is_done
    for role in problem_roles(done):
        with pytest.raises(ValueError, match="is done"):
            done.act(role, "U")
