"""Test the base classes of tasks with a number-guessing task."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import pytest

from heteromark.llm.tasks.base import (
    VALIDATION_SHARE,
    Problem,
    Reward,
    Role,
    Task,
    check_template,
    split_of,
)


class GuessProblem(Problem):
    def __init__(self, number: int) -> None:
        self.number = number
        self.guesses: list[str] = []

    @property
    def key(self) -> str:
        return str(self.number)

    @property
    def is_done(self) -> bool:
        return self.is_solved or len(self.guesses) == 3

    @property
    def is_solved(self) -> bool:
        return self.key in self.guesses

    def fields(self, role: str) -> dict[str, str]:
        return {"guesses": " ".join(self.guesses), "odd": "{odd}" if self.number % 2 else "even"}

    def act(self, role: str, response: str) -> Reward:
        self.guesses.append(response)
        return Reward(float(self.is_solved), 0.0)

    def demonstration(self, role: str) -> str:
        return self.key


class GuessTask(Task):
    name = "guess"
    roles = {"guesser": Role(("{odd}: {guesses}?", "Not {{{guesses}}}!", "{odd}"))}  # noqa: RUF012

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers

    def draw(self, generator: random.Random) -> GuessProblem:
        return GuessProblem(generator.choice(self.numbers))


def test_equal_seeds_give_equal_problems_and_seeds_differ():
    task = GuessTask(range(10**9))
    keys = [task.problem(seed).key for seed in range(200)]
    assert keys == [GuessTask(range(10**9)).problem(seed).key for seed in range(200)]
    assert len(set(keys)) == 200


def test_problems_do_not_depend_on_the_global_generator():
    task = GuessTask(range(10**9))
    random.seed(1)
    first = task.problem(5).key
    random.seed(2)
    assert task.problem(5).key == first
    assert random.random() == random.Random(2).random()


def test_the_two_splits_share_no_problem():
    task = GuessTask(range(500))
    train = {task.problem(seed, "train").key for seed in range(2_000)}
    validation = {task.problem(seed, "validation").key for seed in range(2_000)}
    assert not train & validation
    assert train | validation <= {str(number) for number in range(500)}
    # each split covers most of its problems, not just a few
    assert len(train) > 400
    assert len(validation) > 25


def test_a_tenth_of_the_problems_is_for_validation():
    counts = Counter(split_of(GuessProblem(number)) for number in range(20_000))
    assert counts["validation"] == pytest.approx(20_000 / VALIDATION_SHARE, rel=0.05)


def test_the_split_depends_only_on_the_problem():
    problem = GuessProblem(7)
    before = split_of(problem)
    problem.act("guesser", "3")
    assert split_of(problem) == before
    # as computed elsewhere: the first eight bytes of SHA-256 of "7", modulo ten
    assert before == ("validation" if 0x7902699BE42C8A8E % 10 == 0 else "train")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_too_few_problems_are_reported(split):
    other = "validation" if split == "train" else "train"
    numbers = [n for n in range(50) if split_of(GuessProblem(n)) == other]
    with pytest.raises(
        ValueError, match=f"guess drew 10,000 problems, but none belongs to the {split}"
    ):
        GuessTask(numbers).problem(0, split)
    assert GuessTask(numbers).problem(0, other).number in numbers


def test_field_values_are_not_formatted_again():
    problem = GuessProblem(7)
    problem.act("guesser", "{odd}")
    templates = GuessTask.roles["guesser"].templates
    prompts = [problem.prompt("guesser", template) for template in templates]
    assert prompts == ["{odd}: {odd}?", "Not {{odd}}!", "{odd}"]


def test_a_clone_is_independent():
    problem = GuessProblem(7)
    problem.act("guesser", "3")
    clone = problem.clone()
    assert clone.act("guesser", "7") == Reward(1.0, 0.0)
    assert clone.is_solved
    assert not problem.is_done
    problem.act("guesser", "4")
    assert (problem.guesses, clone.guesses) == (["3", "4"], ["3", "7"])


@pytest.mark.parametrize("template", ["", "plain", "{odd}", "{guesses}{odd} {{braces}}"])
def test_templates_of_fields_are_accepted(template):
    check_template(template, GuessProblem(7).fields("guesser"))


@pytest.mark.parametrize(
    ("template", "quoted"),
    [
        ("{number}", "{number}"),
        ("{}", "{}"),
        ("{0}", "{0}"),
        ("{odd!r}", "{odd!r}"),
        ("{odd:>9}", "{odd:>9}"),
        ("{odd:{guesses}}", "{odd:{guesses}}"),
        ("{odd.__class__}", "{odd.__class__}"),
        ("{odd[0]}", "{odd[0]}"),
        ("{guesses} {ODD}", "{ODD}"),
    ],
)
def test_templates_with_unknown_fields_are_rejected(template, quoted):
    expected = f"only use the fields guesses, odd, not {quoted}; write {{{{ and }}}} for literal"
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_template(template, GuessProblem(7).fields("guesser"))


@pytest.mark.parametrize("template", ["{", "}", "{odd", "odd}", "{odd}}"])
def test_unmatched_braces_are_rejected(template):
    with pytest.raises(ValueError, match=r"'[{}]'"):
        check_template(template, GuessProblem(7).fields("guesser"))
