"""Rewards for answers between tags, and the accuracies that evaluation reports.

A response in format is `<reasoning>…</reasoning><answer>…</answer>`. The amounts are those usual
for GSM8K (Cobbe et al., arXiv 2110.14168) with small models, as in agent-tunix. Unlike there, a
tag that stands twice, or an answer within the reasoning, is no answer at all, and the number
counts only where it is the only one.
"""

from __future__ import annotations

import re
from fractions import Fraction

from heteromark.llm.tasks.base import last_line
from heteromark.llm.tasks.exact_numbers import parse_number

REASONING_START, REASONING_END = "<reasoning>", "</reasoning>"
ANSWER_START, ANSWER_END = "<answer>", "</answer>"
TAGS = (REASONING_START, REASONING_END, ANSWER_START, ANSWER_END)

EXACT_FORMAT = 3.0
PER_TAG = 0.5
EXACT_ANSWER = 3.0
SAME_VALUE = 1.5
# (relative distance to the right answer, reward), the closest first
BANDS = ((Fraction(1, 10), 0.5), (Fraction(1, 5), 0.25))
WRONG_NUMBER = -1.0
NO_NUMBER = -0.5
RIGHT_NUMBER = 1.5

# \d is any script's digit here: a number that hides one must not pass for what is left of it
_NUMBERS = re.compile(r"[+-]?\d[\d.,]*")


def tagged_answer(response: str) -> str | None:
    """What stands between the answer tags: None without one such pair, or within the reasoning."""
    if response.count(ANSWER_START) != 1 or response.count(ANSWER_END) != 1:
        return None
    before, _, rest = response.partition(ANSWER_START)
    answer, closed, after = rest.partition(ANSWER_END)
    if not closed or REASONING_START in answer + after or REASONING_END in answer + after:
        return None
    if REASONING_START in before and before.rfind(REASONING_END) < before.rfind(REASONING_START):
        return None
    return answer


def answer_text(response: str, tags: bool) -> str | None:
    """The answer in a response: between its tags, or its last line."""
    return tagged_answer(response) if tags else last_line(response)


def has_format(response: str) -> bool:
    """Whether a response is reasoning and answer, each between its tags, and neither is empty.

    There may be text between the two, but none before or after.
    """
    text = response.strip()
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    if not (text.startswith(REASONING_START) and text.endswith(ANSWER_END)):
        return False
    reasoning, _, rest = text.removeprefix(REASONING_START).partition(REASONING_END)
    _, opened, answer = rest.partition(ANSWER_START)
    return bool(opened and reasoning.strip() and answer.removesuffix(ANSWER_END).strip())


def is_exact(response: str, answer: str, tags: bool = True) -> bool:
    """Whether a response's answer is the right number, however written (46.0 for 46)."""
    return is_within(response, answer, 0, tags)


def is_within(response: str, answer: str, tolerance: float = 0.1, tags: bool = True) -> bool:
    """Whether a response's answer is a number at most this far off, relative to the right one.

    Args:
        response: the whole response.
        answer: the right number.
        tolerance: 0.1 for ten per cent.
        tags: whether the answer stands between tags, or on the last line.

    Raises:
        ValueError: the right answer is no number.
    """
    text = answer_text(response, tags)
    guess = None if text is None else parse_number(text)
    return guess is not None and _is_near(guess, _number(answer), Fraction(str(tolerance)))


def format_reward(response: str) -> float:
    """3 for a response in format, else 0."""
    return EXACT_FORMAT if has_format(response) else 0.0


def tag_reward(response: str) -> float:
    """0.5 for each of the four tags that stands exactly once, and -0.5 for each that does not."""
    return sum(PER_TAG if response.count(tag) == 1 else -PER_TAG for tag in TAGS)


def answer_reward(response: str, answer: str) -> float:
    """How near the answer is.

    Returns:
        3 for the right answer as written; 1.5 for the same value written otherwise, such as with
        spaces around it; 0.5 within 10 % and 0.25 within 20 %; -1 for any other number; -0.5 for
        something else than one number; 0 for no answer.

    Raises:
        ValueError: the right answer is no number.
    """
    text, right = tagged_answer(response), _number(answer)
    if text is None:
        return 0.0
    if text == answer:
        return EXACT_ANSWER
    guess = parse_number(text)
    if guess is None:
        return NO_NUMBER
    if guess == right:
        return SAME_VALUE
    bands = (reward for tolerance, reward in BANDS if _is_near(guess, right, tolerance))
    return next(bands, WRONG_NUMBER)


def number_reward(response: str, answer: str) -> float:
    """1.5 where the only number between the answer tags is the right one, words or not; else 0.

    Raises:
        ValueError: the right answer is no number.
    """
    right = _number(answer)
    numbers = _NUMBERS.findall(tagged_answer(response) or "")
    if len(numbers) != 1:
        return 0.0
    return RIGHT_NUMBER if parse_number(numbers[0].rstrip(".,")) == right else 0.0


def tagged_reward(response: str, answer: str) -> float:
    """The sum of the four rewards: from -2 to 9.5."""
    return (
        format_reward(response)
        + tag_reward(response)
        + answer_reward(response, answer)
        + number_reward(response, answer)
    )


def _is_near(guess: Fraction, right: Fraction, tolerance: Fraction) -> bool:
    return abs(guess - right) <= tolerance * abs(right)


def _number(answer: str) -> Fraction:
    number = parse_number(answer)
    if number is None:
        raise ValueError(f"the right answer must be a number such as 46 or -2.5, not {answer!r}")
    return number
