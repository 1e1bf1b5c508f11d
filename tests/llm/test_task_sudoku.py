"""Test Sudoku puzzles, answers and proposals against an independent check of the rules."""

from __future__ import annotations

import itertools
import random
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from problem_properties import (
    ANY_TEXT,
    HUGE_TEXTS,
    check_any_text,
    check_clones,
    check_drawing,
    check_prompts,
    check_refusals,
    play,
)

from heteromark.config.models.tasks import SudokuConfig
from heteromark.llm.tasks.sudoku import SudokuProblem, SudokuTask

PUZZLE = (1, 2, 3, 4, 3, 4, 1, 2, 2, 0, 4, 0, 4, 0, 0, 1)
SOLUTION = (1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1)


def task(**settings):
    return SudokuTask(SudokuConfig(**settings))


def made():
    return SudokuProblem(4, PUZZLE, SOLUTION)


def text_of(cells):
    size = int(len(cells) ** 0.5)
    return "\n".join(
        "".join(str(digit) for digit in cells[row * size : (row + 1) * size]) for row in range(size)
    )


def follows_the_rules(puzzle, answer):
    """Return whether an answer keeps the given digits and every unit has each digit once."""
    size, box = len(puzzle), {4: 2, 9: 3}[len(puzzle)]
    units = [*answer, *map("".join, zip(*answer, strict=True))]
    for top, left in itertools.product(range(0, size, box), repeat=2):
        units.append("".join(row[left : left + box] for row in answer[top : top + box]))
    kept = all(
        given in (".", digit)
        for row, answered in zip(puzzle, answer, strict=True)
        for given, digit in zip(row, answered, strict=True)
    )
    return kept and all(sorted(unit) == list("123456789"[:size]) for unit in units)


SETTINGS = [{}, {"holes": 1}, {"holes": 16}, {"size": 9, "holes": 20}, {"size": 9, "holes": 50}]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("roles", [("tool", "reasoner"), ("reasoner",)])
def test_demonstrations_solve_in_one_round(settings, roles):
    for seed in range(100 if settings.get("holes") != 50 else 20):
        problem = task(**settings).problem(seed)
        assert not problem.is_done
        assert play(problem, roles, 1) == 1
        assert problem.is_solved


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_solution_follows_the_rules_and_is_worth_one(settings):
    for seed in range(20):
        problem = task(**settings).problem(seed)
        answer = problem.demonstration("reasoner")
        assert follows_the_rules(problem.key.split("\n"), answer.split("\n"))
        assert problem.clone().act("reasoner", answer) == (1, 0)
        assert problem.act("tool", problem.demonstration("tool")) == (1, 0)
        assert problem.fields("reasoner")["filled"] == answer


def test_small_puzzles_have_one_solution():
    """Try all ways to fill the holes."""
    for seed in range(10):
        puzzle = task(holes=7).problem(seed).key
        assert puzzle.count(".") == 7
        parts = puzzle.split(".")
        n_solutions = 0
        for digits in itertools.product("1234", repeat=7):
            filled = "".join(a + b for a, b in zip(parts, [*digits, ""], strict=True))
            n_solutions += follows_the_rules(puzzle.split("\n"), filled.split("\n"))
        assert n_solutions == 1


def ways(puzzle, limit=2):
    """Count the ways to fill the holes, up to a limit, by plain backtracking."""
    hole = puzzle.find(".")
    if hole < 0:
        return 1
    row, column = divmod(hole, 9)
    n_ways = 0
    for digit in "123456789":
        same_box = [
            puzzle[r * 9 + c]
            for r in range(row // 3 * 3, row // 3 * 3 + 3)
            for c in range(column // 3 * 3, column // 3 * 3 + 3)
        ]
        if digit not in [*puzzle[row * 9 : row * 9 + 9], *puzzle[column::9], *same_box]:
            n_ways += ways(puzzle[:hole] + digit + puzzle[hole + 1 :], limit - n_ways)
            if n_ways >= limit:
                break
    return n_ways


def test_large_puzzles_have_one_solution():
    for seed in range(5):
        puzzle = task(size=9, holes=45).problem(seed).key
        assert puzzle.count(".") == 45
        assert ways(puzzle.replace("\n", "")) == 1


def test_holes_are_fewer_where_more_would_be_ambiguous():
    for seed in range(20):
        # a unique solution of a 4x4 grid needs at least four given digits
        assert 4 <= 16 - task(holes=16).problem(seed).key.count(".") <= 6


def test_only_the_solution_counts_as_solved():
    """Try all 4**4 ways to fill four holes, and all single changes of given digits."""
    rows = made().key.split("\n")
    n_solved = 0
    for digits in itertools.product("1234", repeat=4):
        problem, waiting = made(), iter(digits)
        answer = "".join(next(waiting) if mark == "." else mark for mark in made().key)
        reward = problem.act("reasoner", answer)
        assert problem.is_solved == problem.is_done == follows_the_rules(rows, answer.split("\n"))
        right = sum(a == b for a, b in zip(digits, "1332", strict=True))
        assert reward == (max(0, right / 4 - (4 - right) / 8), 0)
        n_solved += problem.is_solved
    assert n_solved == 1
    for cell, digit in itertools.product(range(16), range(1, 5)):
        if SOLUTION[cell] != digit:
            problem = made()
            answer = text_of((*SOLUTION[:cell], digit, *SOLUTION[cell + 1 :]))
            reward = problem.act("reasoner", answer)
            assert not problem.is_solved
            assert reward == ((0, 0) if PUZZLE[cell] else (0.625, 0))


OTHER_GRID = "2143\n4321\n1234\n3412"
RIGHT = text_of(SOLUTION)


@pytest.mark.parametrize(
    "response",
    [
        "",
        made().key,  # the puzzle as it is
        made().key.replace(".", "0"),
        "\n".join(["1111"] * 4),
        OTHER_GRID,
        f"{RIGHT}\n{OTHER_GRID}",  # of several grids the last one is the answer
        f"{RIGHT}\nthat is all",
        RIGHT.replace("\n", " "),
        RIGHT.replace("\n", "\n\n"),
        RIGHT.replace("1", "\uff11"),
        RIGHT.replace("2", "²"),
        RIGHT.translate({ord("1") + i: 0x661 + i for i in range(4)}),
        RIGHT[:-1],
        RIGHT + "1",
        RIGHT.replace("4", "5"),
        "1" + RIGHT,
    ],
)
def test_exploits_earn_no_more_than_silence(response):
    problem = made()
    assert problem.act("reasoner", response).team == 0
    assert not problem.is_done


def test_other_latin_squares_earn_nothing():
    n_wrong = 0
    for seed in range(100):
        first, second = task().problem(seed), task().problem(seed + 1)
        answer = second.demonstration("reasoner")
        if not follows_the_rules(first.key.split("\n"), answer.split("\n")):
            assert first.act("reasoner", answer) == (0, 0)
            n_wrong += 1
    assert n_wrong > 90


def test_filling_holes_at_random_earns_little():
    generator, earned = random.Random(0), []
    for seed in range(400):
        problem = task().problem(seed)
        answer = "".join(generator.choice("1234") if x == "." else x for x in problem.key)
        earned.append(problem.act("reasoner", answer).team)
    assert statistics.mean(earned) < 0.1


def test_the_answer_may_follow_thoughts_and_have_blanks():
    problem = made()
    assert problem.act("reasoner", f"{OTHER_GRID}\nNo:\n" + " ".join(RIGHT) + " \n\n").team == 1
    assert problem.is_solved


def test_rounds_continue_until_the_puzzle_is_solved():
    problem = made()
    wrong = RIGHT.replace("2143", "2341")
    for _ in range(3):
        problem.act("tool", "r3c2=1")
        assert problem.act("reasoner", wrong).team == pytest.approx(0.25)
        assert problem.fields("tool")["answer"] == wrong
    problem.act("reasoner", "I give up")
    assert problem.fields("tool")["answer"] == wrong
    assert problem.act("reasoner", RIGHT).team == 1
    assert problem.is_done


@pytest.mark.parametrize(
    ("response", "team", "proposal"),
    [
        ("r3c2=1 r3c4=3 r4c2=3 r4c3=2", 1, "r3c2=1 r3c4=3 r4c2=3 r4c3=2"),
        ("I know:\nr3c2=1\nr3c4=3", 0.5, "r3c2=1 r3c4=3"),
        ("r3c2=1,r3c4=4", 0, "r3c2=1 r3c4=4"),
        ("r3c2=1 r3c2=1 r3c2=1", 0.25, "r3c2=1"),
        ("r3c2=1 r3c2=2 r3c2=3 r3c2=4", -0.5, "r3c2=4"),
        ("r1c1=1", 0, "nothing"),  # a given one
        ("r1c1=2 r3c2=1", 0, "r3c2=1"),
        (" ".join(f"r{r}c{c}=2" for r in range(1, 5) for c in range(1, 5)), -1, None),
    ],
)
def test_proposals_earn_the_share_of_right_minus_wrong_cells(response, team, proposal):
    problem = made()
    assert problem.act("tool", response) == (team, 0)
    assert proposal in (None, problem.fields("reasoner")["proposal"])
    assert not problem.is_done


@pytest.mark.parametrize(
    "response",
    ["", "r3c2=1.", "r3c2=1 ok", "r0c1=1", "r5c1=1", "r3c2=5", "r٣c2=1", RIGHT, "R3C2=1"],
)
def test_malformed_proposals(response):
    problem = made()
    assert problem.act("tool", response) == (0, -0.1)
    assert problem.fields("reasoner")["proposal"] == "nothing"
    assert problem.fields("reasoner")["filled"] == problem.key


def test_a_proposal_lasts_one_round():
    problem = made()
    problem.act("tool", "r3c2=4")
    assert problem.fields("reasoner")["filled"] == made().key.replace("2.4.", "244.")
    problem.act("reasoner", "?")
    assert problem.fields("reasoner")["proposal"] == "nothing"


@given(ANY_TEXT, st.sampled_from(["tool", "reasoner"]))
def test_any_text_is_a_response(text, role):
    check_any_text(made(), role, text)


@pytest.mark.parametrize("text", HUGE_TEXTS)
@pytest.mark.parametrize("role", ["tool", "reasoner"])
def test_huge_text_is_read_quickly(text, role):
    start = time.process_time()
    check_any_text(made(), role, text)
    assert time.process_time() - start < 0.5


def test_clones_are_independent():
    wrong = RIGHT.replace("2143", "2341")
    check_clones(made(), [("tool", "r3c2=1"), ("reasoner", wrong), ("tool", "r3c4=3")])


def test_refusals():
    done = made()
    done.act("reasoner", RIGHT)
    check_refusals(made(), done)


@pytest.mark.parametrize("settings", SETTINGS[:4])
def test_drawing(settings):
    check_drawing(task(**settings), n_seeds=30 if settings.get("size") else 100)


def test_the_hardest_are_drawn_in_time():
    start = time.process_time()
    task(size=9, holes=50).problem(0, "validation")
    assert time.process_time() - start < 3


@pytest.mark.parametrize("settings", SETTINGS)
def test_prompts(settings):
    problem = task(**settings).problem(0)
    longest = 350 if problem.fields("tool")["size"] == "4" else 1000
    check_prompts(problem, SudokuTask.roles, longest)
    problem.act("tool", problem.demonstration("tool"))
    check_prompts(problem, SudokuTask.roles, longest)
