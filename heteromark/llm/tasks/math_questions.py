"""Questions of arithmetic: as expressions, in little stories, and from a file."""

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
# A story that multiplies by more than this reads oddly.
MAX_FACTOR = 9
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Juno", "Kai", "Lea")


@dataclass(frozen=True)
class Question:
    """A question, its answer, and how to get there.

    Attributes:
        text: the question.
        answer: the right number, dimensionless.
        expression: arithmetic with that value.
    """

    text: str
    answer: Fraction
    expression: str


@dataclass(frozen=True)
class Scene:
    """What a story is about: sentences with a number `n` and a name."""

    opening: str
    more: str
    fewer: str
    times: str
    question: str

    def event(self, operator: str) -> str:
        """The sentence that adds, subtracts or multiplies."""
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
    """An expression to be evaluated, with the usual precedence."""
    text = str(generator.randint(0, settings.max_operand))
    for _ in range(settings.num_operands - 1):
        operand = generator.randint(0, settings.max_operand)
        text += f"{generator.choice(settings.operators)}{operand}"
    return Question(text, _value(text), text)


def draw_story(settings: MathConfig, generator: random.Random) -> Question:
    """A story of one event after another; there are never fewer than none of anything."""
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
    """The questions of a file of JSON Lines, each an object with `question` and `answer`.

    Args:
        path: of the file. An answer is a number, or text that is one or ends in one after `####`
            (GSM8K). Blank lines are left out, and so are repeated questions.

    Raises:
        ValueError: there is no such file, it is empty, or a line is not like that; the message
            names file, line, and what is wrong.
    """
    if not path.is_file():
        raise ValueError(f"file: there is no file {path}; check the path")
    questions: dict[str, Question] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        question = _read_line(line, f"{path}, line {number}")
        known = questions.setdefault(question.text, question)
        if known.answer != question.answer:
            raise ValueError(
                f"{path}, line {number}: this question stands above with another answer, "
                f"{number_text(known.answer)} rather than {number_text(question.answer)}; "
                "keep one of them"
            )
    if not questions:
        raise ValueError(f"{path} has no questions; write one JSON object per line")
    return tuple(questions.values())


def _read_line(line: bytes, where: str) -> Question:
    try:
        data = json.loads(
            line.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_not_a_number
        )
    # UnicodeDecodeError, JSONDecodeError and integers of thousands of digits
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON in UTF-8: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object with question and answer, not {_told(data)}")
    text, answer = data.get("question"), data.get("answer")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: question must be text that is not empty, not {_told(text)}")
    number = None
    if isinstance(answer, str):
        number = parse_number(answer.rpartition(GSM8K_MARK)[2])
    elif isinstance(answer, int | Decimal) and not isinstance(answer, bool):
        number = parse_number(str(answer))
    if number is None:
        raise ValueError(
            f"{where}: answer must be a number such as 42 or -1.5, or text that ends in "
            f"'{GSM8K_MARK} 42', not {_told(answer)}"
        )
    return Question(text.strip(), number, number_text(number))


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _not_a_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _value(expression: str) -> Fraction:
    value = evaluate(expression)
    if value is None:
        raise ValueError(f"{expression} is too large; lower max_operand or num_operands")
    return value
