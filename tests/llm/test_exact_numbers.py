"""Test that numbers and expressions are parsed exactly, and that all other text is rejected."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromark.llm.tasks.exact_numbers import evaluate, number_text, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("46", 46),
        (" 46\n", 46),
        ("46.0", 46),
        ("046", 46),
        ("+46", 46),
        ("-46.50", Fraction(-93, 2)),
        ("1,046", 1046),
        ("1,234,567.25", Fraction(123456725, 100)),
        ("0.1", Fraction(1, 10)),
        ("-0", 0),
    ],
)
def test_numbers_are_read_exactly(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "4 6",
            "46 apples",
            "46.",
            ".5",
            "4e1",
            "0x2e",
            "1_000",
            "46,",
            "1,04",
            "1,0466",
        ),
        *("12,34", "--46", "- 46", "46-", "1/2", "nan", "inf", "4\n6", "$46", "46%", "(46)"),
        "\u0664\u0666",  # Arabic-Indic digits
        "4\u200b6",  # a zero-width space
        "\uff14\uff16",  # full-width digits
        "46\u00b2",  # a superscript
        "\u221246",  # U+2212, the mathematical minus sign
        "46\u0660",
        "\u00a046",
        "9" * 60,
        "9" * 1_000_000,
        "0." + "0" * 61 + "1",
    ],
)
def test_other_texts_are_not_numbers(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12+34", 46),
        (" 12 + 34 * 2 ", 80),
        ("(12+34)*2", 92),
        ("2-3-4", -5),
        ("-(2--3)", -5),
        ("0.1+0.2", Fraction(3, 10)),
        ("1/3*3", 1),
        ("7//2", 3),
        ("-7//2", -4),
        ("7/2//1", 3),
        ("1.", 1),
        ("+.5", Fraction(1, 2)),
    ],
)
def test_expressions_have_exact_values(text, value):
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "12+",
            "+",
            "()",
            "12 34",
            "1,2",
            "(1",
            "1)",
            "12=12",
            "1%2",
            "7@2",
            "1<2",
            "~1",
        ),
        *("9**9**9", "9**9", "2 ** 3", "1/0", "1//0", "1/(2-2)", "1//0.0", "007", "1_000", "0x2e"),
        *("1e9", "1j", "True", "x", "'1'", "[1]", "1 if 1 else 2", "1\n+2", "...", "(1)(2)", "*1"),
        "__import__('os').system('true')",
        "(1).__class__",
        "46<answer>46</answer>",
        "\u0661+\u0661",
        "1\u200b+1",
        "1\0",
        "9" * 31,
        "*".join(["9" * 20, "9" * 20]),
        "/".join(["1", *["9" * 20] * 2]),
        "1+" * 200 + "1",
        "(" * 5_000_000,
    ],
)
def test_invalid_expressions_are_rejected_quickly(text):
    before = time.perf_counter()
    assert evaluate(text) is None
    assert time.perf_counter() - before < 0.5


def test_deep_nesting_is_handled():
    assert evaluate("(" * 60 + "7" + ")" * 60) == 7
    assert evaluate("-" * 100 + "7") == 7
    for depth in range(120, 129):
        assert evaluate("(" * depth + "7" + ")" * (255 - depth)) is None


numerals = st.integers(0, 99).map(str)
expressions = st.recursive(
    numerals,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", " - "]), inner).map("".join)
        | inner.map("({})".format)
        | inner.map("-{}".format)
    ),
    max_leaves=8,
)


@settings(max_examples=300, derandomize=True)
@given(expressions)
def test_values_equal_pythons(text):
    try:
        expected = eval(text, {"__builtins__": {}})
    except ZeroDivisionError:
        expected = None
    assert evaluate(text) == expected


@settings(max_examples=300, derandomize=True)
@given(expressions)
def test_fractions_are_exact(text):
    """Compare a division with the division of `Fraction`."""
    whole = evaluate(text)
    expected = None if whole is None else whole / 7
    assert evaluate(f"({text})/7") == expected


@settings(max_examples=200, derandomize=True)
@given(st.text())
def test_any_text_is_accepted(text):
    for read in (parse_number, evaluate):
        value = read(text)
        assert value is None or isinstance(value, Fraction)


@settings(max_examples=200, derandomize=True)
@given(st.decimals(-(10**12), 10**12, places=6))
def test_formatted_numbers_can_be_parsed(number):
    assert parse_number(number_text(Fraction(number))) == Fraction(number)


def test_numbers_are_formatted_as_decimals_or_fractions():
    texts = {Fraction(46): "46", Fraction(-5, 2): "-2.5", Fraction(7, 3): "7/3", Fraction(0): "0"}
    assert {value: number_text(value) for value in texts} == texts
    assert number_text(Fraction(10**30)) == "1" + "0" * 30
    assert number_text(Fraction(1, 2**60)) == f"{1 / 2**60:.60f}"
