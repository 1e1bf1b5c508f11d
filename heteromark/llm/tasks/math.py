"""Arithmetic: a tool writes an expression for a calculator, a reasoner gives the answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from heteromark.config.models.tasks import MathConfig
from heteromark.llm.tasks.base import MALFORMED, Reward, Role, Task, TurnProblem, last_line
from heteromark.llm.tasks.exact_numbers import MAX_NUMBER, evaluate, number_text, parse_number
from heteromark.llm.tasks.math_questions import (
    Question,
    draw_arithmetic,
    draw_story,
    read_questions,
)
from heteromark.llm.tasks.registry import TASKS
from heteromark.llm.tasks.rewards import (
    TAGS,
    answer_text,
    has_format,
    is_exact,
    is_within,
    tagged_reward,
)

NONE = "none"
PLAIN_FORMAT = "the number alone on the last line"
TAGGED_FORMAT = "{}how{}{}number{}".format(*TAGS)

ROLES = {
    "tool": Role(
        (
            "{question} {answer}\n",
            "Question: {question}\nThe team's answer so far: {answer}\nWrite one arithmetic "
            "expression (numbers, + - * / // and parentheses) with the answer as its value on the "
            "last line; a calculator evaluates it.\n",
            "You feed a calculator. Turn this into a single expression, on the last line, without "
            "words or =.\n{question}\n(Previous answer: {answer})\n",
        )
    ),
    "reasoner": Role(
        (
            "{question} {value}\n",
            "Question: {question}\nA helper had a calculator compute {expression}, and it gave "
            "{value}. This may be wrong. Answer with {format}.\n",
            "Work this out and check the helper's figure.\n{question}\nHelper: {expression} gives "
            "{value}\nReply with {format}.\n",
        )
    ),
}


class MathProblem(TurnProblem):
    """A question, the value of the tool's expression, and the reasoner's answer.

    Args:
        question: the question.
        tags: whether the reasoner must write its answer between tags.
    """

    roles = ROLES

    def __init__(self, question: Question, tags: bool) -> None:
        self.question, self.tags = question, tags
        self.expression = NONE
        self.value: Fraction | None = None
        self.answer: Fraction | None = None
        self._has_tool = False
        self._last_answer = ""

    @property
    def key(self) -> str:
        return self.question.text

    @property
    def is_done(self) -> bool:
        """Whether tool and reasoner agree; without a tool, whether the reasoner has answered."""
        return self.answer is not None and (not self._has_tool or self.answer == self.value)

    @property
    def is_solved(self) -> bool:
        return self.is_done and self.answer == self.question.answer

    def fields(self, role: str) -> dict[str, str]:
        self.check_role(role)
        if role == "tool":
            return {"question": self.question.text, "answer": _text(self.answer)}
        return {
            "question": self.question.text,
            "expression": self.expression,
            "value": _text(self.value),
            "format": TAGGED_FORMAT if self.tags else PLAIN_FORMAT,
        }

    def act(self, role: str, response: str) -> Reward:
        """Apply a role's response, which replaces the role's previous response."""
        self.check_turn(role)
        return self._compute(response) if role == "tool" else self._answer(response)

    def demonstration(self, role: str) -> str:
        self.check_role(role)
        if role == "tool":
            return self.question.expression
        number = number_text(self.question.answer)
        if not self.tags:
            return number
        reasoning, reasoned, answer, answered = TAGS
        return f"{reasoning}{self.question.expression}{reasoned}{answer}{number}{answered}"

    def judgement(self) -> Mapping[str, float]:
        """Score the reasoner's last response.

        Returns:
            exact: the number is right, whether or not the tool agrees; within_10_percent: it is
            within 10 % of the right number; format: with tags, `has_format`; otherwise, the last
            line is a number.
        """
        response, right = self._last_answer, number_text(self.question.answer)
        well_formed = has_format(response) if self.tags else self.answer is not None
        return {
            "exact": float(is_exact(response, right, self.tags)),
            "within_10_percent": float(is_within(response, right, 0.1, self.tags)),
            "format": float(well_formed),
        }

    def _compute(self, response: str) -> Reward:
        self._has_tool = True
        line = last_line(response)
        self.value = evaluate(line)
        self.expression = NONE if self.value is None else line
        return Reward(self._team(self.value), MALFORMED.local if self.value is None else 0.0)

    def _answer(self, response: str) -> Reward:
        self._last_answer = response
        text = answer_text(response, self.tags)
        self.answer = None if text is None else parse_number(text)
        if self.tags:
            local = tagged_reward(response, number_text(self.question.answer))
        else:
            local = MALFORMED.local if self.answer is None else 0.0
        return Reward(self._team(self.answer), local)

    def _team(self, number: Fraction | None) -> float:
        return float(number == self.question.answer)


@TASKS.register("math")
class MathTask(Task):
    """Arithmetic expressions, word problems, or questions from a file.

    The tool writes an expression. The reasoner sees its exact value and answers. A problem is done
    when both numbers agree, right or wrong; the team is rewarded for the right number.

    Args:
        settings: the kind of questions and the format of the answer.

    Raises:
        ValueError: The numbers could become too large, or the file is not a valid question file.
    """

    name = "math"
    roles = ROLES

    def __init__(self, settings: MathConfig) -> None:
        self.settings = settings
        self.questions: tuple[Question, ...] = ()
        if settings.file is not None:
            self.questions = read_questions(Path(settings.file))
        elif _largest(settings) > MAX_NUMBER:
            raise ValueError(
                f"max_operand ({settings.max_operand}) is too large: {settings.num_operands} "
                f"operands with {' '.join(settings.operators)} could exceed "
                f"10**{len(str(MAX_NUMBER)) - 1}. Lower max_operand or num_operands"
            )

    def draw(self, generator: random.Random) -> MathProblem:
        if self.settings.source == "file":
            question = generator.choice(self.questions)
        elif self.settings.source == "word":
            question = draw_story(self.settings, generator)
        else:
            question = draw_arithmetic(self.settings, generator)
        return MathProblem(question, self.settings.tags)


def _largest(settings: MathConfig) -> int:
    """Return an upper bound on the numbers in questions with these settings."""
    if "*" in settings.operators:
        return settings.max_operand**settings.num_operands
    return settings.max_operand * settings.num_operands


def _text(value: Fraction | None) -> str:
    return NONE if value is None else number_text(value)
