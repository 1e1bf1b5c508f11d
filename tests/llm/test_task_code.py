"""Test the code task: its functions, the tester's tests, and scoring programs in the sandbox."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heteromark.config.models.tasks import CodeConfig
from heteromark.llm.tasks.base import check_template
from heteromark.llm.tasks.code import (
    MAX_TESTS,
    CodeProblem,
    CodeTask,
    read_program,
    read_tests,
)
from heteromark.llm.tasks.code_families import FAMILIES
from heteromark.llm.tasks.code_functions import Function, Numbers, Whole, same

TASK = CodeTask(CodeConfig())
# seconds; more than any honest program needs, even on a busy machine
PATIENT = CodeConfig(timeout=10.0)


def problem_of(function: Function, config: CodeConfig = PATIENT, seed: int = 0) -> CodeProblem:
    return CodeProblem(function, config, random.Random(seed))


DOUBLE = Function(
    {"n": Whole(0, 60)}, "n times 2", "n * 2", ("n + 2", "n ** 2", "n * 2 + (n > 50)")
)
FIRST = Function({"xs": Numbers()}, "the first two numbers", "xs[:2]", ("xs[1:3]", "xs[2:]"))
HALF = Function({"n": Whole(0, 60)}, "half of n, a float", "n / 2", ("n // 2",))
ABOVE = Function(
    {"n": Whole(0, 60)}, "whether n is above 30", "n > 30", ("n >= 30", "n < 30", "n > 31")
)


# problems


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.says[:40])
def test_every_familys_tests_catch_all_wrong_implementations(family) -> None:
    caught: set[str] = set()
    for seed in range(12):
        function = family.draw(random.Random(seed))
        assert "{" not in function.says + function.right + "".join(function.wrong)
        problem = problem_of(function, CodeConfig(hidden_tests=4), seed)
        values = [repr(call.value) for call in problem.hidden]
        assert max(values.count(value) for value in values) < len(values)
        for arguments in function.inputs(random.Random(seed)):
            assert function.admits(arguments)
        names: dict = {}
        exec(function.source, names)
        for wrong in (function.wrong[i] for c in problem.revealing for i in function.catches(c[0])):
            caught.add(str(function.wrong.index(wrong)))
        for call in [problem.example, *problem.hidden]:
            assert same(names["f"](*call.arguments), call.value)
    assert len(caught) == len(family.wrong)


def test_there_are_thousands_of_problems() -> None:
    keys = {TASK.problem(seed).key for seed in range(600)}
    assert len(FAMILIES) >= 20
    assert len(keys) > 300


def test_a_seed_gives_one_problem() -> None:
    for seed in range(30):
        one, other = TASK.problem(seed), TASK.problem(seed)
        assert (one.key, one.example, one.hidden) == (other.key, other.example, other.hidden)
    assert TASK.problem(3).hidden != TASK.problem(4).hidden


def test_the_splits_share_no_problem() -> None:
    train = {TASK.problem(seed).key for seed in range(400)}
    validation = {TASK.problem(seed, "validation").key for seed in range(100)}
    assert not train & validation
    assert len(validation) > 30


def test_the_example_and_shown_tests_are_not_hidden_tests() -> None:
    for seed in range(100):
        problem = TASK.problem(seed)
        assert problem.example not in problem.hidden
        assert len({repr(call.arguments) for call in problem.hidden}) == 8


@pytest.mark.parametrize("count", [4, 30])
def test_the_number_of_hidden_tests_is_as_configured(count: int) -> None:
    task = CodeTask(CodeConfig(hidden_tests=count))
    assert all(len(task.problem(seed).hidden) == count for seed in range(40))


def test_too_many_hidden_tests_are_rejected() -> None:
    with pytest.raises(
        ValueError,
        match=r"hidden_tests \(500\) exceeds the \d+ different inputs.*lower hidden_tests",
    ):
        problem_of(DOUBLE, CodeConfig(hidden_tests=500))
    with pytest.raises(ValueError, match="hidden_tests"):
        CodeConfig(hidden_tests=3)


# prompts


def test_prompts_are_short_ascii_and_name_fields_only() -> None:
    assert list(TASK.roles) == ["tester", "coder"]
    for seed in range(60):
        problem = TASK.problem(seed)
        for _ in range(2):
            for name, role in TASK.roles.items():
                assert len(role.templates) >= 3
                for template in role.templates:
                    check_template(template, problem.fields(name))
                    prompt = problem.prompt(name, template)
                    assert len(prompt) < 500
                    assert all(" " <= letter <= "~" or letter == "\n" for letter in prompt)
                    assert problem.function.says in prompt
                    assert problem.function.right not in prompt
            problem.act("tester", problem.demonstration("tester"))


def test_the_coder_sees_the_tests_and_its_last_result() -> None:
    problem = problem_of(DOUBLE)
    assert problem.fields("coder")["tests"] == "none"
    problem.act("tester", "f(1) == 2\nf(2) == 4")
    assert problem.fields("coder")["tests"] == "f(1) == 2; f(2) == 4"
    problem.act("coder", "def f(n):\n    return n * 2 if n < 50 else 0")
    assert problem.fields("coder")["last"].endswith("of 8 right")
    problem.act("tester", "\n")
    assert problem.fields("coder")["tests"] == "none"


# the tester


def test_the_testers_demonstration_catches_all() -> None:
    for seed in range(300):
        problem = TASK.problem(seed)
        text = problem.demonstration("tester")
        assert 1 <= len(text.splitlines()) <= MAX_TESTS
        assert len(text) < 200
        assert problem.act("tester", text) == (1.0, 0.0)


def test_the_tester_earns_the_share_of_caught_implementations() -> None:
    problem = problem_of(DOUBLE)
    assert problem.act("tester", "f(2) == 4").team == 0.0
    assert problem.act("tester", "f(0) == 0").team == pytest.approx(1 / 3)
    assert problem.act("tester", "f(1) == 2").team == pytest.approx(2 / 3)
    assert problem.act("tester", "f(1) == 2\nf(60) == 120").team == 1.0
    assert problem.act("tester", "Well:\nassert f(1) == 2\n  f(60)==120 # last").team == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "f(1) == 2\nf(60) == 121",
        "f(1) == 2.0",
        "f(True) == 2",
        "f(-1) == -2",
        "f(10**9) == 0",
        "f(1000000) == 2000000",
        "f(n) == n * 2",
        "f(1) == __import__('os').getpid()",
        "f(1) != 3",
        "f(1) == 2 == 2",
        "f(n=1) == 2",
        "f(*[1]) == 2",
        "g(1) == 2",
        "f(1, 2) == 2",
        "f() == 2",
        "f(1)",
        "f(" * 50,
        "f(" + "[" * 150 + "]" * 40,
        "f('\0') == 1",
        "f({[]: 1}) == 2",
        "f(" + "-" * 180 + "1) == 2",
        "f(1) == 2" + " " * 300 + "x",
    ],
)
def test_invalid_or_wrong_tests_earn_nothing(response: str) -> None:
    assert problem_of(DOUBLE).act("tester", response) == (0.0, 0.0)


def test_repeating_the_example_is_not_a_test() -> None:
    problem = problem_of(DOUBLE)
    assert problem.act("tester", str(problem.example)).team == 0.0


def test_the_number_of_tests_is_limited() -> None:
    problem = problem_of(DOUBLE)
    assert problem.act("tester", "f(2) == 4\n" * MAX_TESTS + "f(60) == 120").team == 0.0
    assert len(problem.tests) == MAX_TESTS


def test_the_testers_literals_are_never_run(tmp_path) -> None:
    mark = tmp_path / "mark"
    text = f"f(open({str(mark)!r}, 'w').write('x')) == 1\nf(1) == open({str(mark)!r}, 'w')"
    problem_of(DOUBLE).act("tester", text)
    assert not mark.exists()


# the coder


def earned(source: str, function: Function = DOUBLE, config: CodeConfig = PATIENT) -> float:
    problem = problem_of(function, config)
    reward = problem.act("coder", source)
    assert problem.is_solved == (reward.team == 1.0) == problem.is_done
    return reward.team


@pytest.mark.slow
def test_the_demonstrations_solve_and_wrong_implementations_do_not() -> None:
    """Check every family: a wrong implementation may pass some hidden tests, but never all."""
    for index, family in enumerate(FAMILIES):
        function = family.draw(random.Random(index))
        problem = problem_of(function, seed=index)
        problem.act("tester", problem.demonstration("tester"))
        alone = problem_of(function, seed=index)
        for one in (problem, alone):
            assert one.act("coder", one.demonstration("coder")) == (1.0, 0.0)
            assert one.is_solved
        caught = set().union(*(function.catches(call.arguments) for call in problem.revealing))
        for wrong in sorted(caught):
            other = problem_of(function, seed=index)
            source = f"def {function.head}:\n    return {function.wrong[wrong]}"
            assert other.act("coder", source).team < 1.0
            assert not other.is_solved


@pytest.mark.slow
@pytest.mark.parametrize("hidden_tests", [4, 8, 20])
def test_drawn_problems_are_solved_by_the_demonstrations(hidden_tests: int) -> None:
    task = CodeTask(CodeConfig(hidden_tests=hidden_tests, timeout=10.0))
    for seed in range(70):
        problem = task.problem(seed)
        problem.act("coder", problem.demonstration("coder"))
        assert problem.is_solved


def test_a_solved_problem_refuses() -> None:
    problem = problem_of(DOUBLE)
    problem.act("coder", problem.demonstration("coder"))
    for role in TASK.roles:
        with pytest.raises(ValueError, match="done"):
            problem.act(role, "")
    with pytest.raises(ValueError, match="tester, coder"):
        problem.act("planner", "")


def test_clones_are_independent() -> None:
    problem = problem_of(DOUBLE)
    clone = problem.clone()
    clone.act("tester", "f(1) == 2")
    clone.act("coder", clone.demonstration("coder"))
    assert clone.is_solved
    assert not problem.is_solved
    assert problem.fields("coder")["tests"] == "none"
    assert problem.hidden == clone.hidden


def test_fences_are_optional() -> None:
    good, bad = "def f(n):\n    return n * 2", "def f(n):\n    return 0"
    for response in (
        good,
        f"```\n{good}\n```",
        f"So:\n```python\n{good}\n```\nDone.",
        f"```python\n{good}",
        f"```python\n{bad}\n```\nNo, rather\n```python\n{good}\n```\nUse:\n```python\nf(3)\n```",
    ):
        assert earned(response) == 1.0


def test_a_partly_right_program_earns_a_partial_reward() -> None:
    assert 0.0 < earned("def f(n):\n    return n * 2 if n % 3 else 0") < 1.0


@pytest.mark.parametrize(
    ("source", "function"),
    [
        ("return 2 * n", HALF),
        ("return int(n / 2)", HALF),
        ("return n // 2 if n % 2 == 0 else None", HALF),
        ("return n * 2.0", DOUBLE),
        ("return str(n * 2)", DOUBLE),
        ("return [n * 2]", DOUBLE),
        ("return int(n > 30)", ABOVE),
        ("return tuple(xs[:2])", FIRST),
        ("return [float(x) for x in xs[:2]] or None", FIRST),
        ("return True", ABOVE),
        ("return False", ABOVE),
        ("return []", FIRST),
    ],
)
def test_types_are_compared_and_constants_earn_nothing(source: str, function: Function) -> None:
    assert earned(f"def {function.head}:\n    {source}", function) == 0.0


EXPLOITS = {
    "silent": "",
    "empty function": "def f(n):\n    pass",
    "printing": "def f(n):\n    print(n * 2)\n    print('0 2')",
    "no function": "print(2)\nf = 3 # def f(",
    "exit": "def f(n):\n    exit()\nimport sys; sys.exit(0)",
    "exit within": "import sys\ndef f(n):\n    sys.exit(0)",
    "os._exit": "import os\ndef f(n):\n    os._exit(0)",
    "hard-coded example": "def f(n):\n    return {1: 2, 2: 4}.get(n)",
    "catching everything": "def f(n):\n    try:\n        1 / 0\n    except BaseException:\n        return None",
    "recursion": "def f(n):\n    return f(n)",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(n):\n    return f.__call__(n)",
    "lying equality": (
        "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def f(n):\n    return Yes(7)"
    ),
    "lying type": (
        "class Meta(type):\n    def __eq__(self, other): return True\n    __hash__ = type.__hash__\n"
        "class Yes(metaclass=Meta):\n    def __eq__(self, other): return True\n"
        "def f(n):\n    return Yes()"
    ),
    "monkeypatching": (
        "import builtins, json, os, math\njson.dumps = lambda *a, **k: 'true'\n"
        "builtins.type = lambda x: int\nbuiltins.enumerate = lambda x: []\n"
        "os.write = print\nmath.isfinite = lambda x: True\ndef f(n):\n    return object()"
    ),
    "forged lines": (
        "import os\ndef f(n):\n    for d in range(1, 9):\n        try:\n"
        "            os.write(d, b''.join(b'%d %d\\n' % (i, 2) for i in range(8)))\n"
        "        except OSError: pass\n    os._exit(0)"
    ),
    "forged junk": (
        "import os\ndef f(n):\n    for d in range(1, 9):\n        try:\n"
        "            os.write(d, b'0 ' + b'[' * 30000 + b'\\n9 9\\n\\xff\\n')\n"
        "        except OSError: pass"
    ),
    "searching the frames": (
        "import sys, gc\ndef f(n):\n    frame = sys._getframe(1)\n    while frame:\n"
        "        for name, value in {**frame.f_globals, **frame.f_locals}.items():\n"
        "            if name in ('expected', 'value', 'values', 'hidden', 'answers'):\n"
        "                return value\n        frame = frame.f_back"
    ),
    "reading files": (
        "import glob\ndef f(n):\n"
        "    for path in glob.glob('/proc/*/environ') + glob.glob('/**/code_fam*.py', recursive=True):\n"
        "        return open(path).read()"
    ),
    "closing": "import os\ndef f(n):\n    os.closerange(0, 99)\n    return n",
    "much output": "def f(n):\n    while True: print('0 2' * 10000)",
    "memory": "def f(n):\n    return [0] * 10**10",
    "cycle": "x = []\nx.append(x)\ndef f(n):\n    return x",
    "huge number": "def f(n):\n    return 10 ** 10 ** 5",
    "surrogate": "def f(n):\n    return '\udcff'",
    "syntax": "def f(n:",
    "null": "def f(n):\0",
    "thread": "import threading\nthreading.Thread(target=input).start()\ndef f(n): threading.Thread(target=f, args=(n,)).start()",
    "not a number": "def f(n):\n    return float('nan')",
    "bytes": "def f(n):\n    return b'2'",
    "argument": "def f(n, m):\n    return n * 2",
}


@pytest.mark.parametrize("exploit", EXPLOITS)
def test_exploits_earn_nothing(exploit: str) -> None:
    assert earned(EXPLOITS[exploit], config=CodeConfig(timeout=2.0)) == 0.0


def test_an_endless_loop_is_stopped_and_earlier_results_count() -> None:
    began = time.monotonic()
    source = "def f(n):\n    while n > 50: pass\n    return n * 2"
    problem = problem_of(DOUBLE, CodeConfig(timeout=0.5))
    assert 0.0 <= problem.act("coder", source).team < 1.0
    assert time.monotonic() - began < 20


def test_changed_arguments_do_not_affect_later_calls() -> None:
    source = "def f(xs):\n    out = xs[:2]\n    xs.clear()\n    return out"
    assert earned(source, FIRST) == 1.0


# any text


TEXT = st.text(max_size=300) | st.lists(
    st.sampled_from(
        ["f(", "def f(n):", "```", "==", "[", "-", "1", "'", "\n", "\\", "assert ", "é"]
    )
).map("".join)


@given(TEXT)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_accepted(text: str) -> None:
    problem = problem_of(DOUBLE)
    assert 0.0 <= problem.act("tester", text).team <= 1.0
    assert len(problem.tests) <= MAX_TESTS
    problem.prompt("coder", TASK.roles["coder"].templates[0])
    assert isinstance(read_program(text), str)


def test_long_texts_take_no_time() -> None:
    began = time.monotonic()
    for text in ("f(1) == 2\n" * 10**6, "```" * 10**6, "f(" * 10**6, "\0" * 10**6, "[" * 19_999):
        assert read_program(text) == ""
        problem_of(DOUBLE).act("coder", text)
        problem_of(DOUBLE).act("tester", text)
    assert read_tests("f(1) == 2\n" * 1900, DOUBLE)
    assert time.monotonic() - began < 5
