"""Test the rewards for answers between tags against values computed by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromark.llm.tasks.rewards import (
    TAGS,
    answer_reward,
    format_reward,
    has_format,
    is_exact,
    is_within,
    number_reward,
    tag_reward,
    tagged_answer,
    tagged_reward,
)

GOOD = "<reasoning>40+6</reasoning><answer>46</answer>"


def answered(text: str) -> str:
    return f"<reasoning>40+6</reasoning><answer>{text}</answer>"


@pytest.mark.parametrize(
    ("response", "form", "tags", "answer", "number"),
    [
        (GOOD, 3, 2, 3, 1.5),
        (f"  {GOOD}\n", 3, 2, 3, 1.5),
        ("<reasoning>a\nb</reasoning>\nso\n<answer>46</answer>", 3, 2, 3, 1.5),
        (answered(" 46 "), 3, 2, 1.5, 1.5),
        (answered("46.0"), 3, 2, 1.5, 1.5),
        (answered("+46"), 3, 2, 1.5, 1.5),
        (answered("42"), 3, 2, 0.5, 0),  # 8.7 % less
        (answered("50.6"), 3, 2, 0.5, 0),  # 10 % more
        (answered("50.7"), 3, 2, 0.25, 0),
        (answered("36.8"), 3, 2, 0.25, 0),  # 20 % less
        (answered("36.7"), 3, 2, -1, 0),
        (answered("-46"), 3, 2, -1, 0),
        (answered("46 apples"), 3, 2, -0.5, 1.5),
        (answered("It is 46."), 3, 2, -0.5, 1.5),
        (answered("forty-six"), 3, 2, -0.5, 0),
        (answered("4 6"), 3, 2, -0.5, 0),
        (answered("45 46"), 3, 2, -0.5, 0),
        (answered("46 46"), 3, 2, -0.5, 0),
        (answered(" ".join(map(str, range(100)))), 3, 2, -0.5, 0),
        (answered("46\u0660"), 3, 2, -0.5, 0),
        (answered("\u0664\u0666"), 3, 2, -0.5, 0),
        (answered("4\u200b6"), 3, 2, -0.5, 0),
        (answered("9" * 10_000), 3, 2, -0.5, 0),
        (answered(""), 0, 2, -0.5, 0),
        (f"So: {GOOD}", 0, 2, 3, 1.5),
        (f"{GOOD} 47", 0, 2, 3, 1.5),
        ("<answer>46</answer>", 0, 0, 3, 1.5),
        ("<answer>46</answer><reasoning>40+6</reasoning>", 0, 2, 0, 0),
        ("<reasoning></reasoning><answer>46</answer>", 0, 2, 3, 1.5),
        ("<reasoning>40+6<answer>46</answer></reasoning>", 0, 2, 0, 0),
        ("<reasoning><answer>46</answer></reasoning><answer>45</answer>", 0, 0, 0, 0),
        ("<reasoning>x</reasoning><reasoning>y<answer>46</answer>", 0, 1, 0, 0),
        (GOOD + GOOD, 0, -2, 0, 0),
        (GOOD + "<answer>45</answer>", 0, 0, 0, 0),
        ("<answer>45<answer>46</answer>", 0, -1, 0, 0),
        ("</answer>46<answer>", 0, 0, 0, 0),
        ("<ANSWER>46</ANSWER>", 0, -2, 0, 0),
        ("46", 0, -2, 0, 0),
        ("", 0, -2, 0, 0),
    ],
)
def test_rewards(response, form, tags, answer, number):
    assert format_reward(response) == form
    assert tag_reward(response) == tags
    assert answer_reward(response, "46") == answer
    assert number_reward(response, "46") == number
    assert tagged_reward(response, "46") == form + tags + answer + number


def test_bands_around_other_answers():
    assert answer_reward(answered("-90"), "-100") == 0.5
    assert answer_reward(answered("-80"), "-100") == 0.25
    assert answer_reward(answered("0.0"), "0") == 1.5
    assert answer_reward(answered("0.001"), "0") == -1
    assert answer_reward(answered("1046"), "1,046") == 1.5
    assert number_reward(answered("1,046 km"), "1046") == 1.5


@pytest.mark.parametrize(
    ("response", "exact", "near"),
    [
        (GOOD, True, True),
        (answered("46.00"), True, True),
        (answered("42"), False, True),
        (answered("41.4"), False, True),  # 10 % less
        (answered("41.3"), False, False),
        (answered("46 apples"), False, False),
        ("46", False, False),
    ],
)
def test_accuracies(response, exact, near):
    assert is_exact(response, "46") == exact
    assert is_within(response, "46", 0.1) == near
    assert has_format(response) == (response != "46")


def test_accuracies_without_tags():
    assert is_exact("So\n46.0\n", "46", tags=False)
    assert is_within("42", "46", 0.1, tags=False)
    assert not is_within("41", "46", 0.1, tags=False)
    assert is_within("41", "46", 0.2, tags=False)
    assert not is_exact("45\n46 or 47", "46", tags=False)
    assert not is_exact("", "46", tags=False)


@pytest.mark.parametrize("reward", [answer_reward, number_reward, is_exact, is_within])
def test_a_right_answer_must_be_a_number(reward):
    with pytest.raises(ValueError, match=r"must be a number such as 46 or -2\.5, not 'many'"):
        reward(GOOD, "many")


@settings(max_examples=300, derandomize=True)
@given(st.lists(st.sampled_from([*TAGS, "46", "45", " ", "x", "\n"]), max_size=14).map("".join))
def test_full_reward_only_for_the_format_with_the_answer(response):
    total = tagged_reward(response, "46")
    assert -3 <= total <= 9.5
    assert (total == 9.5) == (has_format(response) and tagged_answer(response) == "46")
    if is_exact(response, "46"):
        # there is exactly one answer
        assert response.split("<answer>")[1].split("</answer>")[0].strip() == "46"
        assert response.count("<answer>") == 1


def test_long_responses_are_read_in_linear_time():
    for piece in (*TAGS, "<", "46 ", "<reasoning><answer>", "4,", "\n", "46</answer>"):
        before = time.perf_counter()
        tagged_reward(piece * (2_000_000 // len(piece)), "46")
        assert time.perf_counter() - before < 2
