"""Arithmetic questions: expressions, short stories, and questions from a file."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from heteromark.config.models.tasks import MathConfig
from heteromark.llm.tasks.exact_numbers import evaluate, number_text, parse_number

GSM8K_MARK = "####"
# Stories with larger factors sound unnatural.
MAX_FACTOR = 9
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Juno", "Kai", "Lea")


@dataclass(frozen=True)
class Question:
    """A question, its answer, and an expression for the answer.

    Attributes:
        text: the question.
        answer: the right number, dimensionless.
        expression: an arithmetic expression with this value.
    """

    text: str
    answer: Fraction
    expression: str


@dataclass(frozen=True)
class Scene:
    """The sentences of a kind of story, with placeholders `n` (a number) and `name`."""

    opening: str
    more: str
    fewer: str
    times: str
    question: str

    def event(self, operator: str) -> str:
        """Return the sentence of an operator: `+`, `-` or `*`."""
        return {"+": self.more, "-": self.fewer, "*": self.times}[operator]


SCENES = (
    Scene(
        "{name} has {n} apples.",
        "{name} picks {n} more.",
        "{name} eats {n}.",
        "A trade turns each apple into {n}.",
        "How many apples does {name} have?",
    ),
    Scene(
        "{n} people are on {name}'s bus.",
        "{n} get on.",
        "{n} get off.",
        "At the fair the number grows {n} times.",
        "How many people are on the bus?",
    ),
    Scene(
        "{name} saved {n} coins.",
        "Grandma gives {n} coins.",
        "A toy costs {n} coins.",
        "A prize makes it {n} times as much.",
        "How many coins are left?",
    ),
    Scene(
        "{name}'s shelf holds {n} books.",
        "{name} buys {n} books.",
        "{name} lends out {n} books.",
        "The library has {n} times as many.",
        "How many books is that?",
    ),
    Scene(
        "A pond has {n} fish.",
        "{name} puts in {n} fish.",
        "{name} catches {n} fish.",
        "In spring there are {n} times as many.",
        "How many fish are in the pond?",
    ),
    Scene(
        "{name} bakes {n} rolls.",
        "Then {n} more come out of the oven.",
        "Guests take {n} rolls.",
        "For a feast {name} makes that {n} times.",
        "How many rolls are there?",
    ),
    Scene(
        "{name} walks {n} km on Monday.",
        "The next day it is {n} km more.",
        "The next day it is {n} km less.",
        "The next day it is {n} times as far.",
        "How many km is the last walk?",
    ),
    Scene(
        "{name} scores {n} points.",
        "A bonus adds {n}.",
        "A foul costs {n}.",
        "The joker multiplies the score by {n}.",
        "What is {name}'s score?",
    ),
    Scene(
        "{name}'s farm has {n} hens.",
        "{n} chicks hatch.",
        "A neighbour takes {n} birds.",
        "The new farm has {n} times as many.",
        "How many birds is that?",
    ),
    Scene(
        "A box holds {n} pens.",
        "{name} adds {n}.",
        "{name} takes out {n}.",
        "A shop has {n} such boxes.",
        "How many pens are there?",
    ),
)


def draw_arithmetic(settings: MathConfig, generator: random.Random) -> Question:
    """Draw an arithmetic expression, with the usual operator precedence."""
    text = str(generator.randint(0, settings.max_operand))
    for _ in range(settings.num_operands - 1):
        operand = generator.randint(0, settings.max_operand)
        text += f"{generator.choice(settings.operators)}{operand}"
    return Question(text, _value(text), text)


def draw_story(settings: MathConfig, generator: random.Random) -> Question:
    """Draw a story as a sequence of events; amounts never become negative."""
    scene, name = generator.choice(SCENES), generator.choice(NAMES)
    total = generator.randint(1, settings.max_operand)
    expression, is_sum = str(total), False
    sentences = [scene.opening.format(name=name, n=total)]
    for _ in range(settings.num_operands - 1):
        operator = generator.choice(settings.operators)
        if operator == "+":
            number = generator.randint(1, settings.max_operand)
        elif operator == "-":
            number = generator.randint(0, min(total, settings.max_operand))
        else:
            number = generator.randint(
                min(2, settings.max_operand), min(MAX_FACTOR, settings.max_operand)
            )
            expression = f"({expression})" if is_sum else expression
        is_sum = operator != "*"
        expression += f"{operator}{number}"
        total = int(_value(expression))
        sentences.append(scene.event(operator).format(name=name, n=number))
    sentences.append(scene.question.format(name=name))
    return Question(" ".join(sentences), Fraction(total), expression)


def read_questions(path: Path) -> tuple[Question, ...]:
    """Read questions from a JSON Lines file of objects with `question` and `answer`.

    An answer is a number, or a text that is a number or ends in one after `####` (as in GSM8K).
    Blank lines and repeated questions are skipped.

    Raises:
        ValueError: The file is missing, empty, or has an invalid line. The message names the file,
            the line and the problem.
    """
    if not path.is_file():
        raise ValueError(f"file: {path} does not exist; check the path")
    questions: dict[str, Question] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        question = _read_line(line, f"{path}, line {number}")
        known = questions.setdefault(question.text, question)
        if known.answer != question.answer:
            raise ValueError(
                f"{path}, line {number}: the question is already on an earlier line, with a "
                f"different answer: {number_text(known.answer)} there, "
                f"{number_text(question.answer)} here; keep one of them"
            )
    if not questions:
        raise ValueError(f"{path} contains no questions; write one JSON object per line")
    return tuple(questions.values())


def _read_line(line: bytes, where: str) -> Question:
    try:
        data = json.loads(
            line.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_not_a_number
        )
    # ValueError includes UnicodeDecodeError, JSONDecodeError and integers with too many digits
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON in UTF-8: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{where} must be a JSON object with question and answer, not {_shortened(data)}"
        )
    text, answer = data.get("question"), data.get("answer")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: question must be a non-empty text, not {_shortened(text)}")
    number = None
    if isinstance(answer, str):
        number = parse_number(answer.rpartition(GSM8K_MARK)[2])
    elif isinstance(answer, int | Decimal) and not isinstance(answer, bool):
        number = parse_number(str(answer))
    if number is None:
        raise ValueError(
            f"{where}: answer must be a number such as 42 or -1.5, or text that ends in "
            f"'{GSM8K_MARK} 42', not {_shortened(answer)}"
        )
    return Question(text.strip(), number, number_text(number))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _not_a_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _value(expression: str) -> Fraction:
    value = evaluate(expression)
    if value is None:
        raise ValueError(f"{expression} is too large; lower max_operand or num_operands")
    return value
