"""Small Python functions: a tester writes tests, a coder the function.

The coder's function is judged by hidden tests, in the sandbox; the tester's tests by how many wrong
implementations they catch, none of which the coder sees. Nothing that the tester writes is run.
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
_LONGEST_RESPONSE = 20_000  # characters; longer ones are not looked at
_LONGEST_TEST = 200
_NONE = "none"


class Call(NamedTuple):
    """Arguments, and what the function returns for them, or is said to."""

    arguments: list[Any]
    value: Any

    def __str__(self) -> str:
        return f"{NAME}({', '.join(map(ascii, self.arguments))}) == {self.value!a}"


@TASKS.register("code")
class CodeTask(Task):
    """Functions of `FAMILIES`, one at a time."""

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
        function: which one.
        config: how it is judged.
        generator: draws the example and the hidden tests.

    Raises:
        ValueError: the function has too few different inputs for so many hidden tests.
    """

    roles = CodeTask.roles

    def __init__(self, function: Function, config: CodeConfig, generator: random.Random) -> None:
        inputs = function.inputs(generator, config.hidden_tests)
        calls = [Call(arguments, function.value(arguments)) for arguments in inputs]
        self.telling = _telling(function, calls)
        # an example that shows something, if there is one, and that the hidden tests can spare
        spare = [call for call in calls if call not in self.telling]
        self.example = next((call for call in spare if call.value), spare[0])
        calls.remove(self.example)
        if len(calls) < config.hidden_tests:
            raise ValueError(
                f"hidden_tests: {config.hidden_tests} is more than the {len(calls)} inputs found "
                f"for {function.head}, {function.says}: lower it"
            )
        self.function = function
        self.config = config
        self.hidden = _spread(self.telling, calls, config.hidden_tests)
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
            return "\n".join(map(str, self.telling))
        return self.function.source

    def _test(self, response: str) -> float:
        """Take tests; the share of wrong implementations they catch, 0 if one is itself wrong."""
        self.tests = tuple(
            test for test in read_tests(response, self.function) if test != self.example
        )[:MAX_TESTS]
        caught: set[int] = set()
        for test in self.tests:
            if not same(test.value, self.function.value(test.arguments)):
                return 0.0
            caught |= self.function.catches(test.arguments)
        every = set().union(*(self.function.catches(test.arguments) for test in self.telling))
        return len(caught & every) / len(every)

    def _code(self, response: str) -> float:
        """Judge a program: the share of hidden tests that it passes, above a constant's share.

        A function that returns the same whatever it is given passes some tests by chance; as many
        earn nothing, so that the reward starts where a program looks at its arguments.
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
        every = len(self.hidden)
        self._solved = passed == every
        self.last = f"{passed} of {every} right"
        by_chance = max(Counter(repr(call.value) for call in self.hidden).values())
        return max(0.0, (passed - by_chance) / (every - by_chance))


def read_program(response: str) -> str:
    """The program in a response: its last fenced block with the function, else all of it.

    Empty where nothing defines the function.
    """
    if len(response) > _LONGEST_RESPONSE:
        return ""
    wanted = f"def {NAME}("
    # what is between fences, without the language named behind the first
    blocks = [block.partition("\n")[2] for block in response.split("```")[1::2]]
    found = [block for block in [response, *blocks] if wanted in block]
    return found[-1] if found else ""


def read_tests(response: str, function: Function) -> list[Call]:
    """The lines of a response that are tests, `f(1, 'a') == 2`, of possible arguments.

    Literals only; nothing is run. An `assert` before a test is read over.
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
    # what neither parses nor is a literal
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass
    return None


def _telling(function: Function, calls: Sequence[Call]) -> list[Call]:
    """Few calls that catch every wrong implementation that any of the calls catches."""
    catches = [function.catches(call.arguments) for call in calls]
    left = set().union(*catches)
    chosen = []
    while left:
        best = max(range(len(calls)), key=lambda index: len(catches[index] & left))
        chosen.append(calls[best])
        left -= catches[best]
    return chosen


def _spread(telling: Sequence[Call], calls: Sequence[Call], count: int) -> list[Call]:
    """So many calls: the telling ones, and of the others those whose values are rarest so far."""
    chosen = list(telling)
    seen = Counter(repr(call.value) for call in chosen)
    others = [call for call in calls if call not in telling]
    while len(chosen) < count:
        rarest = min(others, key=lambda call: seen[repr(call.value)])
        others.remove(rarest)
        chosen.append(rarest)
        seen[repr(rarest.value)] += 1
    return chosen
