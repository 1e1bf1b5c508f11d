"""Test the math task: questions, accepted answers and rewards."""

from __future__ import annotations

import math as standard_math
import re
import subprocess
import sys
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromark.config.models.tasks import MathConfig
from heteromark.llm.tasks.base import Reward, check_template
from heteromark.llm.tasks.math import MathProblem, MathTask
from heteromark.llm.tasks.math_questions import NAMES, SCENES, Question, Scene
from heteromark.llm.tasks.rewards import TAGS

ALL = ("+", "-", "*")
DIFFICULTIES = [
    {},
    {"max_operand": 9},
    {"operators": ALL, "num_operands": 4},
    {"operators": ("*",), "num_operands": 6},
    {"operators": ("-",), "num_operands": 3, "tags": True},
    {"source": "word"},
    {"source": "word", "operators": ALL, "num_operands": 3},
    {"source": "word", "operators": ALL, "num_operands": 6, "tags": True},
    {"source": "word", "operators": ("*",), "num_operands": 2, "max_operand": 1000},
]


def made(**chosen) -> MathTask:
    return MathTask(MathConfig(**chosen))


def sum_problem(tags: bool = False) -> MathProblem:
    """Create the problem 40+6."""
    return MathProblem(Question("40+6", Fraction(46), "40+6"), tags)


def answer_of_story(text: str) -> int:
    """Compute a story's answer from its text alone, sentence by sentence."""
    found = [total for scene in SCENES for total in [total_in(scene, text)] if total is not None]
    assert len(found) == 1, text
    return found[0]


def total_in(scene: Scene, text: str) -> int | None:
    """Return the final amount of a story, or None if the story has another scene."""
    patterns = {
        kind: re.escape(sentence)
        .replace(r"\{name\}", "[A-Z][a-z]+")
        .replace(r"\{n\}", r"(?P<n>\d+)")
        for kind, sentence in vars(scene).items()
    }
    total, rest = 0, text
    while rest:
        found = [
            (k, match) for k, p in patterns.items() if (match := re.match(p + "(?: |$)", rest))
        ]
        if not found:
            return None
        kind, match = found[0]
        rest = rest[match.end() :]
        number = int(match.groupdict().get("n", 0))
        if kind == "times":
            total *= number
        else:
            total += {"opening": number, "more": number, "fewer": -number, "question": 0}[kind]
    return total


@pytest.mark.parametrize("chosen", DIFFICULTIES)
def test_the_demonstrations_solve_every_problem(chosen):
    task = made(**chosen)
    for seed in range(150):
        problem = task.problem(seed)
        alone = problem.clone()
        for role in task.roles:
            assert not problem.is_done
            team, local = problem.act(role, problem.demonstration(role))
            assert team == 1.0
            assert local == (9.5 if chosen.get("tags") and role == "reasoner" else 0.0)
        assert problem.is_solved
        alone.act("reasoner", alone.demonstration("reasoner"))
        assert alone.is_done
        assert alone.is_solved


@pytest.mark.parametrize("chosen", DIFFICULTIES)
def test_answers_match_an_independent_computation(chosen):
    task = made(**chosen)
    for seed in range(200):
        problem = task.problem(seed)
        text = problem.key
        story = chosen.get("source") == "word"
        right = answer_of_story(text) if story else eval(text)
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        assert len(numbers) == chosen.get("num_operands", 2)
        assert max(numbers) <= chosen.get("max_operand", 99)
        assert not story or right >= 0
        for guess in (right, right - 1, right + 1, -right or 1, right * 10 + 1):
            clone = problem.clone()
            clone.act("reasoner", answered(guess, clone.tags))
            assert clone.is_done
            assert clone.is_solved == (guess == right)


def answered(guess: int, tags: bool) -> str:
    return f"<reasoning>so</reasoning><answer>{guess}</answer>" if tags else f"So\n{guess}"


def test_stories_vary():
    task = made(source="word", operators=ALL)
    keys = [task.problem(seed).key for seed in range(400)]
    assert len(set(keys)) > 390
    names = "|".join(NAMES)
    openings = {re.sub(rf"\d+|\b({names})\b", "_", key.split(".")[0]) for key in keys}
    assert len(SCENES) >= 8
    assert len(openings) == len(SCENES)
    assert all(any(name in key for key in keys) for name in NAMES)
    operators = {
        re.sub(r"[\d()]", "", task.problem(seed).question.expression) for seed in range(99)
    }
    assert operators == set(ALL)


def test_precedence_is_the_usual_one():
    task = made(operators=("+", "*"), num_operands=3)
    mixed = [p for p in map(task.problem, range(100)) if re.fullmatch(r"\d+\+\d+\*\d+", p.key)]
    assert len(mixed) > 10
    for problem in mixed:
        a, b, c = map(int, re.findall(r"\d+", problem.key))
        assert problem.question.answer == a + b * c


def test_a_seed_has_the_same_problem_everywhere():
    assert [made().problem(seed).key for seed in range(3)] == ["17+74", "33+94", "40+86"]
    story = made(source="word", num_operands=3, operators=ALL).problem(3)
    assert (
        story.key
        == "Hana scores 67 points. A bonus adds 63. A foul costs 53. What is Hana's score?"
    )


@pytest.mark.parametrize("chosen", DIFFICULTIES)
def test_splits_share_nothing_and_seeds_differ(chosen):
    task = made(**chosen)
    train = [task.problem(seed).key for seed in range(200)]
    validation = {task.problem(seed, "validation").key for seed in range(60)}
    assert not validation & set(train)
    assert train == [made(**chosen).problem(seed).key for seed in range(200)]
    assert len(set(train)) > (50 if chosen == {"max_operand": 9} else 150)


@pytest.mark.parametrize("tags", [False, True])
def test_prompts_are_short_ascii_with_all_fields(tags):
    for chosen in DIFFICULTIES:
        task = made(**(chosen | {"tags": tags}))
        problem = task.problem(1)
        for name, role in task.roles.items():
            assert len(role.templates) >= 3
            shortest = problem.prompt(name, role.templates[0])
            assert len(shortest) < len(problem.key) + 120
            for template in role.templates:
                check_template(template, problem.fields(name))
                prompt = problem.prompt(name, template)
                assert re.fullmatch(r"[ -~\n]{4,700}", prompt)
                assert problem.key in prompt
                if name == "reasoner" and template != role.templates[0]:
                    assert tags == ("<answer>" in prompt)
            problem.act(name, problem.demonstration(name))


def test_each_role_sees_the_others_response():
    problem = sum_problem()
    assert problem.fields("tool") == {"question": "40+6", "answer": "none"}
    before = problem.fields("reasoner")
    assert (before["expression"], before["value"]) == ("none", "none")
    problem.act("tool", "Let me see:\n  40 + 6/4 \n\n")
    assert problem.fields("reasoner")["expression"] == "40 + 6/4"
    assert problem.fields("reasoner")["value"] == "41.5"
    problem.act("reasoner", "45")
    assert problem.fields("tool")["answer"] == "45"
    problem.act("tool", "forty plus six")
    assert problem.fields("reasoner") == before


def test_done_when_both_agree_right_or_wrong():
    problem = sum_problem()
    assert problem.act("tool", "40+5") == Reward(0.0, 0.0)
    assert not problem.is_done
    assert problem.act("reasoner", "46") == Reward(1.0, 0.0)
    assert not problem.is_done
    assert not problem.is_solved
    agreed, corrected = problem.clone(), problem.clone()
    assert agreed.act("reasoner", "45.0") == Reward(0.0, 0.0)
    assert agreed.is_done
    assert not agreed.is_solved
    assert corrected.act("tool", "40+6") == Reward(1.0, 0.0)
    assert corrected.is_done
    assert corrected.is_solved
    assert not problem.is_done


def test_a_useless_tool_response_keeps_the_problem_open():
    problem = sum_problem()
    assert problem.act("tool", "no idea") == Reward(0.0, -0.1)
    assert problem.act("reasoner", "46") == Reward(1.0, 0.0)
    assert not problem.is_done
    problem.act("tool", "23*2")
    assert problem.is_solved


def test_a_new_response_replaces_the_previous_one():
    problem = sum_problem()
    problem.act("tool", "45")
    problem.act("reasoner", "46")
    problem.act("reasoner", "er")
    problem.act("tool", "46")
    assert not problem.is_done


@pytest.mark.parametrize("tags", [False, True])
@pytest.mark.parametrize(
    "response",
    [
        *("", "4 6", "45 46", "46 45", "45, 46", "46 or 45", "46\n45 or so", "46."),
        *("\u0664\u0666", "4\u200b6", "\uff14\uff16", "4e1", "40+6", "40+6=46", "46" + "0" * 5000),
        "\n".join(map(str, range(46, 100))) + "\n-",
        " ".join(map(str, range(100))),
        "<answer>46",
        "<answer>46</answer><answer>46</answer>",
        "<answer>45</answer><answer>46</answer>",
        "<reasoning><answer>46</answer></reasoning>",
        "<reasoning>46 <answer>46</answer> is it</reasoning><answer>46</answer>",
        "<answer>45 46</answer>",
        "<answer>\u0664\u0666</answer>",
        "<answer>4 6</answer>",
    ],
)
def test_tricks_earn_the_team_nothing(tags, response):
    for tool in (None, "46", "45"):
        problem = sum_problem(tags)
        if tool is not None:
            problem.act("tool", tool)
        silent = problem.clone().act("reasoner", "")
        reward = problem.act("reasoner", response)
        assert reward.team == silent.team == 0.0
        assert tags or reward.local <= silent.local == -0.1
        assert not problem.is_done
        assert not problem.is_solved


def test_one_of_many_numbers_is_never_the_answer():
    """Check that, with tags, listing all numbers earns less than one wrong number nearby."""
    everything = answered("", True).replace("<answer>", "<answer>" + " ".join(map(str, range(100))))
    assert sum_problem(True).act("reasoner", everything) == Reward(0.0, 4.5)
    assert sum_problem(True).act("reasoner", answered(45, True)) == Reward(0.0, 5.5)


@pytest.mark.parametrize("response", ["46", "46.0", " 46 ", "+46", "046", "hm\n\n46\n \n"])
def test_the_right_number_is_accepted_in_any_notation(response):
    problem = sum_problem()
    assert problem.act("reasoner", response) == Reward(1.0, 0.0)
    assert problem.is_solved
    problem = sum_problem(tags=True)
    assert (
        problem.act("reasoner", f"<answer>{response[-6:]}</answer>").team == 1.0 or "h" in response
    )


@pytest.mark.parametrize(
    "response",
    [
        "",
        "9**9**9",
        "__import__('os').getpid()",
        "(" * 1_000_000,
        "46\n<answer>46</answer>",
        "<reasoning>40+6</reasoning><answer>46</answer>",
        "<answer>46</answer>",
        "46=46",
        "45\n46 #",
        "1/0",
        "\u0664\u0666",
        "9" * 100_000,
    ],
)
@pytest.mark.parametrize("tags", [False, True])
def test_the_tools_tricks_are_rejected_quickly(response, tags):
    problem = sum_problem(tags)
    before = time.perf_counter()
    assert problem.act("tool", response) == Reward(0.0, -0.1)
    assert time.perf_counter() - before < 0.5
    assert problem.fields("reasoner")["expression"] == "none"
    assert not problem.is_done


def test_clones_are_independent():
    problem = sum_problem()
    problem.act("tool", "45")
    clone = problem.clone()
    clone.act("tool", "46")
    clone.act("reasoner", "46")
    assert clone.is_solved
    assert problem.fields("reasoner")["value"] == "45"
    assert problem.fields("tool")["answer"] == "none"


PIECES = st.sampled_from(
    [*TAGS, "46", "45", "+", "(", "\n", " ", "{question}", "**", "\0", "\ud800"]
)


@settings(max_examples=300, derandomize=True)
@given(st.booleans(), st.lists(st.text() | st.lists(PIECES).map("".join), max_size=6))
def test_any_text_is_accepted(tags, responses):
    problem = sum_problem(tags)
    for number, response in enumerate(responses):
        role = ("tool", "reasoner")[number % 2]
        if problem.is_done:
            for done in ("tool", "reasoner"):
                with pytest.raises(ValueError, match="done"):
                    problem.act(done, response)
            return
        team, local = problem.act(role, response)
        assert team in (0.0, 1.0)
        assert -3 <= local <= 9.5
        problem.prompt(role, MathTask.roles[role].templates[0]).encode()


def test_long_responses_are_read_in_linear_time():
    for tags in (False, True):
        for piece in (*TAGS, "46\n", "4", " ", "\n", "(1+"):
            for role in MathTask.roles:
                before = time.perf_counter()
                sum_problem(tags).act(role, piece * (2_000_000 // len(piece)))
                assert time.perf_counter() - before < 2


def test_other_roles_are_rejected():
    for call in (
        sum_problem().fields,
        sum_problem().demonstration,
        lambda role: sum_problem().act(role, "46"),
    ):
        with pytest.raises(
            ValueError, match="no role 'planner' in this task; its roles are tool, reasoner"
        ):
            call("planner")


def test_settings_at_their_extremes():
    hardest = made(max_operand=10**5, num_operands=6, operators=ALL)
    problem = hardest.problem(0)
    problem.act("tool", problem.demonstration("tool"))
    problem.act("reasoner", problem.demonstration("reasoner"))
    assert problem.is_solved
    made(max_operand=10**29, num_operands=6)
    for refused in ({"max_operand": 10**6, "operators": ALL}, {"max_operand": 10**30}):
        with pytest.raises(
            ValueError, match=r"max_operand \(10+\) is .*\. Lower max_operand or num_"
        ):
            made(num_operands=6, **refused)
    # 0+0, 0+1, 1+0 and 1+1
    with pytest.raises(ValueError, match=r"math drew 10,000 .* none belongs to the validation"):
        made(max_operand=1).problem(0, "validation")
    assert made(max_operand=1, source="word", operators=ALL).problem(0).demonstration("reasoner")


def test_the_module_hides_nothing_and_needs_no_torch():
    assert standard_math.isqrt(9) == 3
    code = (
        "import sys, heteromark.llm.tasks.math, heteromark.llm.tasks.plan_path, math\n"
        "assert math.isqrt(9) == 3 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("response", "exact", "near", "form"),
    [
        ("46", 1, 1, 1),
        ("so\n46.0", 1, 1, 1),
        ("50.6", 0, 1, 1),  # 10 % more
        ("41.4", 0, 1, 1),  # 10 % less
        ("50.7", 0, 0, 1),
        ("41.3", 0, 0, 1),
        ("-46", 0, 0, 1),
        ("46 apples", 0, 0, 0),
        ("46\nthat is it", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_judgement_of_a_plain_answer(response, exact, near, form):
    problem = sum_problem()
    problem.act("reasoner", response)
    assert problem.judgement() == {"exact": exact, "within_10_percent": near, "format": form}


@pytest.mark.parametrize(
    ("response", "exact", "near", "form"),
    [
        ("<reasoning>40+6</reasoning><answer>46</answer>", 1, 1, 1),
        ("<reasoning>40+6</reasoning><answer>42</answer>", 0, 1, 1),
        ("<reasoning>40+6</reasoning><answer>many</answer>", 0, 0, 1),
        ("<answer>46</answer>", 1, 1, 0),
        ("46", 0, 0, 0),
    ],
)
def test_judgement_of_a_tagged_answer(response, exact, near, form):
    problem = sum_problem(tags=True)
    problem.act("reasoner", response)
    assert problem.judgement() == {"exact": exact, "within_10_percent": near, "format": form}


def test_judgement_scores_the_reasoners_last_response():
    problem = sum_problem()
    assert set(problem.judgement().values()) == {0.0}
    problem.act("tool", "46")
    assert set(problem.judgement().values()) == {0.0}
    for response, near in (("50", 1.0), ("90", 0.0)):
        problem.act("reasoner", response)
        assert problem.judgement()["within_10_percent"] == near
    before = problem.clone()
    problem.act("reasoner", "46")
    assert problem.judgement()["exact"] == 1.0
    assert before.judgement()["exact"] == 0.0


def test_a_right_answer_counts_as_exact_though_the_tool_disagrees():
    problem = sum_problem()
    problem.act("tool", "1+1")
    problem.act("reasoner", "46")
    assert not problem.is_solved
    assert problem.judgement()["exact"] == 1.0
