"""The function families of the code task."""

from __future__ import annotations

from heteromark.llm.tasks.code_functions import Family, Numbers, Text, Whole

_N = {"n": Whole(0, 60)}
_ANY_N = {"n": Whole(-30, 60)}
_S = {"s": Text("abcde")}
_XS = {"xs": Numbers()}
_SMALL = range(2, 10)
_BIG = range(2, 40)

FAMILIES: tuple[Family, ...] = (
    # numbers
    Family(
        _N,
        "the sum of the multiples of {k} from 1 to n",
        "sum(range({k}, n + 1, {k}))",
        ("sum(range({k}, n, {k}))", "n // {k}", "sum(range(n + 1))"),
        {"k": _SMALL},
    ),
    Family(
        _N,
        "how many numbers from 1 to n are multiples of {a} or {b}",
        "sum(i % {a} == 0 or i % {b} == 0 for i in range(1, n + 1))",
        (
            "sum(i % {a} == 0 and i % {b} == 0 for i in range(1, n + 1))",
            "n // {a} + n // {b}",
            "sum(i % {a} == 0 or i % {b} == 0 for i in range(n + 1))",
        ),
        {"a": (2, 3, 5), "b": (4, 6, 7, 8, 9)},
    ),
    Family(
        {"n": Whole(0, 9999)},
        "the sum of the digits of n, times {k}",
        "sum(map(int, str(n))) * {k}",
        ("len(str(n)) * {k}", "n % 10 * {k}", "sum(map(int, str(n)))"),
        {"k": _SMALL},
    ),
    Family(
        {"n": Whole(0, 9999)},
        "how often the digit {d} is in n",
        "str(n).count('{d}')",
        ("int('{d}' in str(n))", "str(n).find('{d}')", "len(str(n)) - str(n).count('{d}')"),
        {"d": range(10)},
    ),
    Family(
        _ANY_N,
        "n times {a}, plus {b}",
        "n * {a} + {b}",
        ("n * {b} + {a}", "(n + {b}) * {a}", "n * {a} - {b}"),
        {"a": _BIG, "b": range(1, 30)},
    ),
    Family(
        _N,
        "the remainder of n to the power {p} when divided by {m}",
        "n ** {p} % {m}",
        ("n * {p} % {m}", "n ** {p} // {m}", "n % {m}"),
        {"p": (2, 3, 4), "m": range(5, 30)},
    ),
    Family(
        _ANY_N,
        "n, but at least {a} and at most {b}",
        "max({a}, min(n, {b}))",
        ("min({a}, max(n, {b}))", "min(n, {b})", "max({a}, n)"),
        {"a": range(-9, 10), "b": range(11, 30)},
    ),
    Family(
        _ANY_N,
        "whether n is above {a} and a multiple of {k}",
        "n > {a} and n % {k} == 0",
        ("n > {a} or n % {k} == 0", "n < {a} and n % {k} == 0", "n > {a}"),
        {"a": range(-5, 20), "k": (2, 3)},
    ),
    Family(
        _N,
        "the sum of i to the power {p} for i from {a} to n",
        "sum(i ** {p} for i in range({a}, n + 1))",
        (
            "sum(i ** {p} for i in range({a}, n))",
            "sum(i * {p} for i in range({a}, n + 1))",
            "n ** {p}",
        ),
        {"a": range(1, 9), "p": (2, 3, 4)},
    ),
    Family(
        _ANY_N,
        "how far n is from the nearest multiple of {k}",
        "min(n % {k}, -n % {k})",
        ("n % {k}", "-n % {k}", "abs(n - {k})"),
        {"k": range(3, 25)},
    ),
    Family(
        {"n": Whole(0, 30)},
        "the numbers from n down to {k}, a list",
        "list(range(n, {k} - 1, -1))",
        ("list(range(n, {k}, -1))", "list(range({k}, n + 1))", "list(range(n, -1, -1))"),
        {"k": range(1, 20)},
    ),
    Family(
        {"a": Whole(-20, 20), "b": Whole(-20, 20)},
        "the larger of a and b, plus {k}",
        "max(a, b) + {k}",
        ("max(a, b + {k})", "min(a, b) + {k}", "a + b + {k}"),
        {"k": _BIG},
    ),
    Family(
        {"a": Whole(0, 20), "b": Whole(0, 20)},
        "the distance between a and b, times {k}",
        "abs(a - b) * {k}",
        ("(a - b) * {k}", "abs(a - b) + {k}", "(b - a) * {k}"),
        {"k": _BIG},
    ),
    # strings
    Family(
        _S,
        "how often the letter {c} is in s, plus {k}",
        "s.count('{c}') + {k}",
        ("int('{c}' in s) + {k}", "s.find('{c}') + {k}", "s.count('{c}') * {k}"),
        {"c": "abcde", "k": range(1, 10)},
    ),
    Family(
        _S,
        "s without the letters {c} and {d}",
        "s.replace('{c}', '').replace('{d}', '')",
        (
            "s.replace('{c}', '', 1).replace('{d}', '', 1)",
            "s.strip('{c}{d}')",
            "s.replace('{c}{d}', '')",
        ),
        {"c": "abc", "d": "de"},
    ),
    Family(
        _S,
        "s with every {c} replaced by {d}",
        "s.replace('{c}', '{d}')",
        ("s.replace('{c}', '{d}', 1)", "s.replace('{d}', '{c}')", "s.replace('{c}', '')"),
        {"c": "abcde", "d": "uvwxyz"},
    ),
    Family(
        _S,
        "every {k}th letter of s, the first one included, then '{c}'",
        "s[::{k}] + '{c}'",
        ("s[{k}::{k}] + '{c}'", "s[{k} - 1::{k}] + '{c}'", "s[:{k}] + '{c}'"),
        {"k": (4, 5, 6), "c": "uvwxyz"},
    ),
    Family(
        _S,
        "s with its first {k} letters moved to the end, {t} times in a row",
        "(s[{k}:] + s[:{k}]) * {t}",
        ("(s[-{k}:] + s[:-{k}]) * {t}", "s[{k}:] * {t}", "(s[{k}:] + s[:{k}])"),
        {"k": range(1, 6), "t": (2, 3)},
    ),
    Family(
        _S,
        "s backwards, then {c}, then s",
        "s[::-1] + '{c}' + s",
        ("s + '{c}' + s[::-1]", "s[::-1] + '{c}'", "s + '{c}' + s"),
        {"c": "abcdefghijklmnopqrstuvwxyz"},
    ),
    Family(
        _S,
        "s with '{c}' put before it until it has {k} letters",
        "s.rjust({k}, '{c}')",
        ("s.ljust({k}, '{c}')", "'{c}' * {k} + s", "s.rjust({k})"),
        {"c": "uvwxyz", "k": range(4, 12)},
    ),
    Family(
        {"s": Text("ab", 6)},
        "whether the first {k} letters of s read the same backwards",
        "s[:{k}] == s[:{k}][::-1]",
        ("s == s[::-1]", "s[:{k}] != s[:{k}][::-1]", "s[:1] == s[-1:]"),
        {"k": (2, 3, 4, 5)},
    ),
    Family(
        _S,
        "how many letters of s are {c} or {d}, times {k}",
        "sum(x in '{c}{d}' for x in s) * {k}",
        (
            "len(set(s) & set('{c}{d}')) * {k}",
            "s.count('{c}{d}') * {k}",
            "sum(x not in '{c}{d}' for x in s) * {k}",
        ),
        {"c": "abc", "d": "de", "k": _SMALL},
    ),
    Family(
        _S,
        "s with capitals from its place {k} on, places counted from 0",
        "s[:{k}] + s[{k}:].upper()",
        ("s.upper()", "s[:{k}].upper() + s[{k}:]", "s[:{k}] + s[{k}:{k} + 1].upper()"),
        {"k": range(1, 6)},
    ),
    Family(
        {"s": Text("ab  ", 12)},
        "how many words of s have more than {k} letters",
        "sum(len(w) > {k} for w in s.split())",
        ("sum(len(w) >= {k} for w in s.split())", "len(s.split())", "len(s) - {k}"),
        {"k": (1, 2)},
    ),
    # lists
    Family(
        _XS,
        "the sum of the numbers in xs above {k}",
        "sum(x for x in xs if x > {k})",
        ("sum(x for x in xs if x < {k})", "sum(x > {k} for x in xs)", "sum(xs)"),
        {"k": range(-5, 15)},
    ),
    Family(
        _XS,
        "how many numbers in xs leave {r} when divided by {m}",
        "sum(x % {m} == {r} for x in xs)",
        (
            "sum(x // {m} == {r} for x in xs)",
            "sum(x for x in xs if x % {m} == {r})",
            "sum(x % {m} != {r} for x in xs)",
        ),
        {"r": (0, 1), "m": (2, 3, 4)},
    ),
    Family(
        _XS,
        "xs with every number times {a}, minus {b}",
        "[x * {a} - {b} for x in xs]",
        ("xs * {a}", "[(x - {b}) * {a} for x in xs]", "[x * {a} + {b} for x in xs]"),
        {"a": _SMALL, "b": range(1, 10)},
    ),
    Family(
        _XS,
        "xs with {k} times its place, counted from 0, added to each number",
        "[x + {k} * i for i, x in enumerate(xs)]",
        (
            "[x + {k} * i for i, x in enumerate(xs, 1)]",
            "[x + {k} for x in xs]",
            "[x * {k} + i for i, x in enumerate(xs)]",
        ),
        {"k": _BIG},
    ),
    Family(
        _XS,
        "the multiples of {k} in xs, in order",
        "[x for x in xs if x % {k} == 0]",
        (
            "[x for x in xs if x % {k} != 0]",
            "sorted(x for x in xs if x % {k} == 0)",
            "[x * {k} for x in xs]",
        ),
        {"k": (2, 3, 4)},
    ),
    Family(
        _XS,
        "the {k} largest numbers of xs, largest first",
        "sorted(xs, reverse=True)[:{k}]",
        ("sorted(xs)[:{k}]", "sorted(xs)[-{k}:]", "xs[:{k}]"),
        {"k": (2, 3, 4)},
    ),
    Family(
        {"xs": Numbers(0, 6)},
        "the {k} smallest different numbers of xs, smallest first",
        "sorted(set(xs))[:{k}]",
        ("sorted(xs)[:{k}]", "sorted(set(xs))[-{k}:]", "sorted(set(xs))"),
        {"k": (2, 3, 4)},
    ),
    Family(
        _XS,
        "the sums of xs taken {k} numbers at a time, the last of what is left",
        "[sum(xs[i:i + {k}]) for i in range(0, len(xs), {k})]",
        (
            "[sum(xs[i:i + {k}]) for i in range(0, len(xs) - {k} + 1, {k})]",
            "[sum(xs[i:i + {k}]) for i in range(len(xs))]",
            "[sum(xs[:{k}])]",
        ),
        {"k": (2, 3, 4)},
    ),
    Family(
        _XS,
        "each number of xs minus the one {k} places before it",
        "[b - a for a, b in zip(xs, xs[{k}:])]",
        ("[a - b for a, b in zip(xs, xs[{k}:])]", "[x - {k} for x in xs]", "xs[{k}:]"),
        {"k": (1, 2, 3)},
    ),
    Family(
        {"xs": Numbers(longest=3)},
        "the largest number in xs, or {d} when it is empty",
        "max(xs, default={d})",
        ("max(xs)", "min(xs, default={d})", "max([*xs, {d}])"),
        {"d": range(1, 30)},
    ),
    Family(
        _XS,
        "the sum of xs plus {a}, divided by {k}, as a float",
        "(sum(xs) + {a}) / {k}",
        ("(sum(xs) + {a}) // {k}", "sum(xs) / {k} + {a}", "(sum(xs) - {a}) / {k}"),
        # division by powers of two is exact, whatever the order of operations
        {"a": range(1, 20), "k": (2, 4, 8)},
    ),
)
