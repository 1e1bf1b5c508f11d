"""Parse, evaluate and format exact numbers.

Numbers consist of printable ASCII only; digits of other scripts and invisible characters are
rejected. All sizes are bounded, so no text takes long to process.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from decimal import Context, Decimal, Inexact
from fractions import Fraction

# Limit of numerators and denominators, for parsed numbers and intermediate results.
MAX_NUMBER = 10**30
MAX_NUMBER_LENGTH = 64
MAX_EXPRESSION_LENGTH = 256

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")
_EXPRESSION = re.compile(r"[0-9+\-*/(). ]+")

_BINARY: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
}
_UNARY: dict[type, Callable[[Fraction], Fraction]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def parse_number(text: str) -> Fraction | None:
    """Parse a text as a number; None if it is anything else.

    `46`, `-46.0` and `1,046` are numbers; `4 6`, `4e1`, `46 apples` and `46.` are not.
    """
    text = text.strip(" \t\r\n")
    if len(text) > MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(text):
        return None
    return _bounded(Fraction(text.replace(",", "")))


def evaluate(expression: str) -> Fraction | None:
    """Return the exact value of an arithmetic expression; None if it is not valid.

    Args:
        expression: numbers, `+ - * / //` and parentheses; at most `MAX_EXPRESSION_LENGTH`
            characters. No number or intermediate result may exceed `MAX_NUMBER`.
    """
    text = expression.strip(" \t\r\n")
    if len(text) > MAX_EXPRESSION_LENGTH or not _EXPRESSION.fullmatch(text):
        return None
    try:
        return _value(ast.parse(text, mode="eval").body, text)
    # some Python versions raise MemoryError if the nesting is too deep
    except (SyntaxError, ZeroDivisionError, MemoryError, RecursionError):
        return None


def number_text(value: Fraction) -> str:
    """Format a number as a decimal if that is exact, otherwise as a fraction."""
    exact = Context(prec=4 * len(str(MAX_NUMBER)), traps=[Inexact])
    try:
        return format(exact.divide(Decimal(value.numerator), Decimal(value.denominator)), "f")
    except Inexact:
        return str(value)


def _value(node: ast.expr, text: str) -> Fraction | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        # parse the source text: the float 0.1 is not exactly one tenth
        return _bounded(Fraction(text[node.col_offset : node.end_col_offset]))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        operand = _value(node.operand, text)
        return None if operand is None else _UNARY[type(node.op)](operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left, text), _value(node.right, text)
        if left is None or right is None:
            return None
        return _bounded(_BINARY[type(node.op)](left, right))
    return None


def _bounded(value: Fraction) -> Fraction | None:
    fits = abs(value.numerator) <= MAX_NUMBER and value.denominator <= MAX_NUMBER
    return value if fits else None
