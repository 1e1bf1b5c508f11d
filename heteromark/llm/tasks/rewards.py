"""Rewards for answers between tags, and the accuracies that evaluation reports.

The format of a response is `<reasoning>…</reasoning><answer>…</answer>`. The rewards are those
commonly used for GSM8K (Cobbe et al., arXiv 2110.14168) with small models, as in agent-tunix. Two
rules are stricter than there: a repeated answer tag or an answer inside the reasoning counts as no
answer, and the number is rewarded only if it is the only number in the answer.
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
# (relative error, reward), closest first
BANDS = ((Fraction(1, 10), 0.5), (Fraction(1, 5), 0.25))
WRONG_NUMBER = -1.0
NO_NUMBER = -0.5
RIGHT_NUMBER = 1.5

# \d matches digits of any script, so a number that contains foreign digits is never read as its
# ASCII part
_NUMBERS = re.compile(r"[+-]?\d[\d.,]*")


def tagged_answer(response: str) -> str | None:
    """Return the text between the answer tags.

    Returns:
        None unless there is exactly one pair of answer tags, outside the reasoning.
    """
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
    """Return the answer in a response: the text between its tags, or its last line."""
    return tagged_answer(response) if tags else last_line(response)


def has_format(response: str) -> bool:
    """Return whether a response consists of non-empty reasoning and answer, each between its tags.

    Text between the two is allowed; text before or after them is not.
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
    """Return whether a response's answer equals the right number, in any notation (46.0 for 46)."""
    return is_within(response, answer, 0, tags)


def is_within(response: str, answer: str, tolerance: float = 0.1, tags: bool = True) -> bool:
    """Return whether a response's answer is within a relative tolerance of the right number.

    Args:
        response: the whole response.
        answer: the right number.
        tolerance: maximum relative error; 0.1 is 10 %.
        tags: whether the answer is between tags; otherwise it is the last line.

    Raises:
        ValueError: The right answer is not a number.
    """
    text = answer_text(response, tags)
    guess = None if text is None else parse_number(text)
    return guess is not None and _is_near(guess, _number(answer), Fraction(str(tolerance)))


def format_reward(response: str) -> float:
    """Return 3 if the response has the required format, otherwise 0."""
    return EXACT_FORMAT if has_format(response) else 0.0


def tag_reward(response: str) -> float:
    """Return 0.5 for each of the four tags that occurs exactly once, -0.5 for each other tag."""
    return sum(PER_TAG if response.count(tag) == 1 else -PER_TAG for tag in TAGS)


def answer_reward(response: str, answer: str) -> float:
    """Return a reward for the closeness of the answer.

    Returns:
        3 for exactly the right text; 1.5 for the same value in another notation, for example with
        surrounding spaces; 0.5 within 10 %; 0.25 within 20 %; -1 for any other number; -0.5 if the
        answer is not a single number; 0 without an answer.

    Raises:
        ValueError: The right answer is not a number.
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
    """Return 1.5 if the right number is the only number between the answer tags, otherwise 0.

    Words around the number are allowed.

    Raises:
        ValueError: The right answer is not a number.
    """
    right = _number(answer)
    numbers = _NUMBERS.findall(tagged_answer(response) or "")
    if len(numbers) != 1:
        return 0.0
    return RIGHT_NUMBER if parse_number(numbers[0].rstrip(".,")) == right else 0.0


def tagged_reward(response: str, answer: str) -> float:
    """Return the sum of the four rewards: from -2 to 9.5."""
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
