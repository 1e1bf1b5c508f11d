"""Small Python functions: a tester writes tests, a coder writes the function.

Hidden tests score the coder's function in the sandbox. The tester is scored by how many wrong
implementations its tests catch; the coder does not see these implementations. The tester's text is
never executed.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from heteromark.config.models.tasks import CodeConfig
from heteromark.llm.tasks.base import Reward, Role, Task, TurnProblem
from heteromark.llm.tasks.code_families import FAMILIES
from heteromark.llm.tasks.code_functions import NAME, Function, same
from heteromark.llm.tasks.code_judge import call_in_sandbox
from heteromark.llm.tasks.registry import TASKS

MAX_TESTS = 4
_LONGEST_RESPONSE = 20_000  # characters; longer responses are not parsed
_LONGEST_TEST = 200  # characters; longer tests are skipped
_NONE = "none"


class Call(NamedTuple):
    """Arguments of a function, and its actual or claimed return value."""

    arguments: list[Any]
    value: Any

    def __str__(self) -> str:
        return f"{NAME}({', '.join(map(ascii, self.arguments))}) == {self.value!a}"


@TASKS.register("code")
class CodeTask(Task):
    """Draws functions of `FAMILIES`."""

    name = "code"
    roles = {  # noqa: RUF012
        "tester": Role(
            (
                "{head} returns {says}.\nExample: {example}\n"
                "Up to {most} more tests, one a line:\n",
                "Write tests for a Python function, at most {most}, a line each, like {example}\n"
                "{head} must return {says}.\n",
                "{head}: {says}\n{example}\nTests that find mistakes (up to {most} lines):\n",
            )
        ),
        "coder": Role(
            (
                "Write {head} in Python. It returns {says}.\n"
                "Example: {example}\nTests: {tests}\nLast try: {last}\n",
                "{head} returns {says}. For example {example}\n"
                "A colleague expects: {tests}\nYour last program: {last}\nPython code:\n",
                "# {says}\n# {example}\n# tests: {tests}\n# last try: {last}\n"
                "# the function {head}:\n",
            )
        ),
    }

    def __init__(self, config: CodeConfig) -> None:
        self.config = config

    def draw(self, generator: random.Random) -> CodeProblem:
        function = generator.choice(FAMILIES).draw(generator)
        return CodeProblem(function, self.config, generator)


class CodeProblem(TurnProblem):
    """A function to be written.

    Args:
        function: the function.
        config: the hidden tests and limits.
        generator: draws the example and the hidden tests.

    Raises:
        ValueError: The function has fewer different inputs than hidden tests.
    """

    roles = CodeTask.roles

    def __init__(self, function: Function, config: CodeConfig, generator: random.Random) -> None:
        inputs = function.inputs(generator, config.hidden_tests)
        calls = [Call(arguments, function.value(arguments)) for arguments in inputs]
        self.revealing = _revealing(function, calls)
        # choose an example that the hidden tests do not need, with a non-empty value if possible
        spare = [call for call in calls if call not in self.revealing]
        self.example = next((call for call in spare if call.value), spare[0])
        calls.remove(self.example)
        if len(calls) < config.hidden_tests:
            raise ValueError(
                f"hidden_tests ({config.hidden_tests}) exceeds the {len(calls)} different inputs "
                f"found for {function.head}, {function.says}: lower hidden_tests"
            )
        self.function = function
        self.config = config
        self.hidden = _hidden_tests(self.revealing, calls, config.hidden_tests)
        self.tests: tuple[Call, ...] = ()
        self.last = _NONE
        self._solved = False

    @property
    def key(self) -> str:
        return f"{self.function.head} returns {self.function.says}"

    @property
    def is_solved(self) -> bool:
        return self._solved

    def fields(self, role: str) -> dict[str, str]:
        self.check_role(role)
        common = {
            "head": self.function.head,
            "says": self.function.says,
            "example": str(self.example),
        }
        if role == "tester":
            return {**common, "most": str(MAX_TESTS)}
        return {**common, "tests": "; ".join(map(str, self.tests)) or _NONE, "last": self.last}

    def act(self, role: str, response: str) -> Reward:
        self.check_turn(role)
        team = self._test(response) if role == "tester" else self._code(response)
        return Reward(team=team, local=0.0)

    def demonstration(self, role: str) -> str:
        self.check_role(role)
        if role == "tester":
            return "\n".join(map(str, self.revealing))
        return self.function.source

    def _test(self, response: str) -> float:
        """Read tests; return the share of wrong implementations caught, or 0 if a test is wrong."""
        self.tests = tuple(
            test for test in read_tests(response, self.function) if test != self.example
        )[:MAX_TESTS]
        caught: set[int] = set()
        for test in self.tests:
            if not same(test.value, self.function.value(test.arguments)):
                return 0.0
            caught |= self.function.catches(test.arguments)
        catchable = frozenset[int]().union(
            *(self.function.catches(test.arguments) for test in self.revealing)
        )
        return len(caught & catchable) / len(catchable)

    def _code(self, response: str) -> float:
        """Return the share of hidden tests that a program passes, relative to the best constant.

        A function that always returns the same value passes some tests by chance. That many passed
        tests earn nothing, so only programs that use their arguments are rewarded.
        """
        program = read_program(response)
        if not program:
            self.last = "no function"
            return 0.0
        returned = call_in_sandbox(
            program,
            NAME,
            [call.arguments for call in self.hidden],
            timeout=self.config.timeout,
            memory_mib=self.config.memory_mib,
        )
        passed = sum(
            number in returned and same(returned[number], call.value)
            for number, call in enumerate(self.hidden)
        )
        total = len(self.hidden)
        self._solved = passed == total
        self.last = f"{passed} of {total} right"
        by_chance = max(Counter(repr(call.value) for call in self.hidden).values())
        return max(0.0, (passed - by_chance) / (total - by_chance))


def read_program(response: str) -> str:
    """Return the program in a response: the last fenced block with the function, or all of it.

    Empty if nothing defines the function.
    """
    if len(response) > _LONGEST_RESPONSE:
        return ""
    definition = f"def {NAME}("
    # the content of fenced blocks, without the language name after the opening fence
    blocks = [block.partition("\n")[2] for block in response.split("```")[1::2]]
    programs = [block for block in [response, *blocks] if definition in block]
    return programs[-1] if programs else ""


def read_tests(response: str, function: Function) -> list[Call]:
    """Return the tests in a response: lines such as `f(1, 'a') == 2` with valid arguments.

    Only literals are accepted; nothing is executed. A leading `assert` is ignored.
    """
    if len(response) > _LONGEST_RESPONSE:
        return []
    tests = []
    for line in response.splitlines():
        text = line.strip().removeprefix("assert ").strip()
        if text.startswith(f"{NAME}(") and len(text) <= _LONGEST_TEST:
            test = _read_test(text)
            if test and function.admits(test.arguments):
                tests.append(test)
    return tests


def _read_test(text: str) -> Call | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval")
        match tree.body:
            case ast.Compare(
                left=ast.Call(func=ast.Name(), args=arguments, keywords=[]),
                ops=[ast.Eq()],
                comparators=[value],
            ):
                return Call([ast.literal_eval(one) for one in arguments], ast.literal_eval(value))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass  # not valid syntax, or not literals
    return None


def _revealing(function: Function, calls: Sequence[Call]) -> list[Call]:
    """Greedily select few calls that catch all wrong implementations that `calls` can catch."""
    catches = [function.catches(call.arguments) for call in calls]
    left = frozenset[int]().union(*catches)
    chosen = []
    while left:
        best = max(range(len(calls)), key=lambda index: len(catches[index] & left))
        chosen.append(calls[best])
        left -= catches[best]
    return chosen


def _hidden_tests(revealing: Sequence[Call], calls: Sequence[Call], count: int) -> list[Call]:
    """Select `count` calls: the revealing ones, then those whose values are rarest so far."""
    chosen = list(revealing)
    seen = Counter(repr(call.value) for call in chosen)
    others = [call for call in calls if call not in revealing]
    while len(chosen) < count:
        rarest = min(others, key=lambda call: seen[repr(call.value)])
        others.remove(rarest)
        chosen.append(rarest)
        seen[repr(rarest.value)] += 1
    return chosen
