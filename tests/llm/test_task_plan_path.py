"""Test the plan_path task: effects of moves, and rewards for progress only."""

from __future__ import annotations

import random
import re
import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromark.config.models.tasks import PlanPathConfig
from heteromark.llm.tasks.base import Reward, check_template
from heteromark.llm.tasks.grid import Grid, random_grid
from heteromark.llm.tasks.plan_path import PlanPathProblem, PlanPathTask

DIFFICULTIES = [
    {},
    {"size": 3, "min_distance": 1},
    {"size": 5, "walls": 0.0, "min_distance": 8},
    {"size": 6, "walls": 0.5, "min_distance": 6},
    {"size": 10, "min_distance": 12},
]
STEPS = {"U": -1j, "D": 1j, "L": -1, "R": 1}


def made(**chosen) -> PlanPathTask:
    return PlanPathTask(PlanPathConfig(**chosen))


def problem_of(*rows: str, **chosen) -> PlanPathProblem:
    """Create a problem from a picture of its grid."""
    cells = {mark: (i, j) for i, row in enumerate(rows) for j, mark in enumerate(row)}
    grid = Grid(tuple(re.sub("[AG]", ".", row) for row in rows))
    return PlanPathProblem(grid, cells["A"], cells["G"], PlanPathConfig(**chosen))


def free_cells(picture: str) -> dict[complex, str]:
    """Return the marks of all cells but walls, by column + row * 1j, from a prompt's picture."""
    rows = picture.split("\n")
    return {
        complex(j, i): mark
        for i, row in enumerate(rows)
        for j, mark in enumerate(row)
        if mark != "#"
    }


def arrives(picture: str, moves: str) -> bool:
    """Return whether moves reach the goal before a wall, from the picture alone."""
    cells = free_cells(picture)
    at = next(cell for cell, mark in cells.items() if mark == "A")
    for move in moves:
        at += STEPS[move]
        if cells.get(at, "#") == "#":
            return False
        if cells[at] == "G":
            return True
    return False


def shortest_in(picture: str) -> int:
    """Return the number of steps from A to G, by growing the set of reachable cells."""
    cells = free_cells(picture)
    reached = {cell for cell, mark in cells.items() if mark == "A"}
    steps = 0
    while not any(cells[cell] == "G" for cell in reached):
        grown = reached | {c + s for c in reached for s in STEPS.values() if c + s in cells}
        assert grown != reached, "G cannot be reached"
        reached, steps = grown, steps + 1
    return steps


@pytest.mark.parametrize("chosen", DIFFICULTIES)
def test_the_demonstrations_solve_every_problem(chosen):
    task = made(**chosen)
    for seed in range(150):
        problem = task.problem(seed)
        alone, picture = problem.clone(), problem.key
        shortest = shortest_in(picture)
        assert shortest >= task.settings.min_distance
        way = problem.demonstration("tool")
        assert len(way) == shortest
        assert arrives(picture, way)
        full = 1 + 1.0 + 0.5 - 0.01 * shortest
        assert problem.act("tool", way) == pytest.approx((full, 0))
        assert not problem.is_done
        assert problem.act("planner", problem.demonstration("planner")) == pytest.approx((full, 0))
        assert problem.is_solved
        assert alone.act("planner", f"I go.\n {way} \n\n") == pytest.approx((full, 0))
        assert alone.is_solved


@pytest.mark.parametrize("chosen", DIFFICULTIES)
def test_grids_have_the_configured_size_and_walls(chosen):
    task = made(**chosen)
    size = task.settings.size
    walls = set()
    for seed in range(50):
        rows = task.problem(seed).key.split("\n")
        assert [len(row) for row in rows] == [size] * size
        text = "".join(rows)
        assert text.count("#") == round(task.settings.walls * size**2)
        assert (text.count("A"), text.count("G")) == (1, 1)
        walls.add(re.sub("[AG]", ".", text))
    assert len(walls) > 20 or not task.settings.walls


@pytest.mark.parametrize("chosen", DIFFICULTIES)
def test_moves_match_an_independent_simulation(chosen):
    task, generator = made(**chosen), random.Random(1)
    solved = 0
    for seed in range(200):
        problem = task.problem(seed)
        moves = "".join(generator.choice("UDLR") for _ in range(generator.randrange(1, 30)))
        moves = moves[: 2 * task.settings.size**2]
        expected = arrives(problem.key, moves)
        problem.act("planner", moves)
        assert problem.is_solved == problem.is_done == expected
        solved += expected
    assert 0 < solved < 200 or task.settings.min_distance > 5


def test_a_seed_has_the_same_problem_everywhere():
    assert made().problem(0).key == "###A\n..G.\n....\n..#."


@pytest.mark.parametrize("chosen", DIFFICULTIES)
def test_splits_share_nothing_and_seeds_differ(chosen):
    task = made(**chosen)
    train = [task.problem(seed).key for seed in range(150)]
    validation = {task.problem(seed, "validation").key for seed in range(20)}
    assert not validation & set(train)
    assert train == [made(**chosen).problem(seed).key for seed in range(150)]
    # there are only four paths between opposite corners
    assert len(set(train)) > (2 if chosen.get("walls") == 0 else 100)


def test_walls_and_borders_end_the_walk_and_are_penalised():
    problem = problem_of("A#", ".G")
    border, wall = problem.clone(), problem.clone()
    assert border.act("planner", "UDR") == wall.act("planner", "RDR") == Reward(-0.13, 0.0)
    assert border.fields("planner")["grid"] == wall.fields("planner")["grid"] == "A#\n.G"
    # the step down remains, although the next move hits the border
    assert problem.act("planner", "DLR") == pytest.approx((0.5 - 0.1 - 0.03, 0.0))
    assert problem.fields("planner")["grid"] == ".#\nAG"
    assert problem.act("planner", "R") == pytest.approx((0.5 + 1.0 - 0.01, 0.0))
    assert problem.is_solved
    assert problem.steps == 3


@pytest.mark.parametrize("length", [4, 8, 16])
def test_random_moves_rarely_arrive(length):
    """Check that random moves rarely solve a problem, regardless of their number."""
    task, generator = made(), random.Random(2)
    solved = 0
    for seed in range(400):
        problem = task.problem(seed)
        problem.act("planner", "".join(generator.choice("UDLR") for _ in range(length)))
        solved += problem.is_solved
    assert solved / 400 < 0.1


def test_moves_after_the_goal_are_ignored():
    beyond, exact = problem_of("A.G.", "....", "....", "...."), problem_of("A.G.", *["...."] * 3)
    best = exact.act("planner", "RR")
    assert beyond.act("planner", "RRRUUUU") == pytest.approx((best.team - 0.05, 0.0))
    assert beyond.position == exact.position
    assert beyond.steps == 2


def test_a_shortest_path_in_two_parts_earns_the_bonus():
    problem = problem_of("A..", "##.", "G..")
    first = problem.act("planner", "RRD")
    assert first == pytest.approx((3 / 6 - 0.03, 0.0))
    assert problem.demonstration("planner") == problem.demonstration("tool") == "DLL"
    assert problem.act("planner", "DLL") == pytest.approx((3 / 6 + 1.5 - 0.03, 0.0))


def test_a_detour_is_not_the_shortest():
    problem = problem_of("A..", "##.", "G..")
    assert problem.act("planner", "RLRRDDLL") == pytest.approx((1 + 1 - 0.08, 0.0))


def test_a_proposal_is_scored_and_shown_without_moving():
    problem = problem_of("A.#", "...", "#.G")
    before = problem.fields("tool")["grid"]
    assert problem.fields("planner") == {"grid": before, "proposal": "none", "outcome": "none"}
    seen = []
    for proposal in ("RDDR", "RD", "DDD", "U"):
        proposed, executed = problem.clone(), problem.clone()
        assert proposed.act("tool", proposal) == executed.act("planner", proposal)
        assert proposed.fields("planner")["grid"] == before
        assert proposed.fields("planner")["proposal"] == proposal
        seen.append(proposed.fields("planner")["outcome"])
    assert seen == [
        "at G",
        "at row 2, column 2",
        "at row 2, column 1, blocked",
        "at row 1, column 1, blocked",
    ]
    problem.act("tool", "RD")
    problem.act("planner", "D")
    assert problem.fields("planner")["proposal"] == "none"


@pytest.mark.parametrize(
    "response",
    [
        *("", " ", "\n\n", "udlr", "U D", "R,D", "RRX", "RDDR.", "RDDR\nis the way", "R\u200bD"),
        *("\uff32", "(RDDR)", "<answer>RDDR</answer>", "RDDR 0", "R" * 100_000 + "x"),
    ],
)
def test_anything_but_moves_is_malformed(response):
    for role in PlanPathTask.roles:
        problem = problem_of("A.#", "...", "#.G")
        assert problem.act(role, response) == Reward(0.0, -0.1)
        assert problem.key == problem.fields("planner")["grid"]
        assert problem.fields("planner")["proposal"] == "none"


def test_a_malformed_proposal_replaces_the_previous_one():
    problem = problem_of("A.#", "...", "#.G")
    problem.act("tool", "RD")
    problem.act("tool", "hm")
    assert problem.fields("planner")["proposal"] == "none"


def test_no_sequence_of_responses_earns_more_than_a_shortest_path():
    """Try all sequences of four responses of up to two moves, in grids where these suffice."""
    responses = ["", *map("".join, (*product("UDLR", repeat=1), *product("UDLR", repeat=2)))]
    for rows in (("A.G", ".#.", "..."), ("A#G", "..."), ("AG.", "#.."), ("A..", "##.", "G..")):
        rows = (*rows, *["#" * 3] * (3 - len(rows)))
        start = problem_of(*rows)
        shortest = shortest_in(start.key)
        best = 2.5 - 0.01 * shortest
        totals: list[tuple[float, int]] = []

        def play(problem: PlanPathProblem, total: float, depth: int, totals=totals) -> None:
            if problem.is_done or depth == 0:
                totals.append((total, problem.steps if problem.is_done else -1))
                return
            for response in responses:
                clone = problem.clone()
                play(clone, total + sum(clone.act("planner", response)), depth - 1)

        play(start, 0.0, 4 if shortest > 4 else 3)
        assert max(totals)[0] == pytest.approx(best)
        assert all(steps == shortest for total, steps in totals if total > best - 1e-9)
        # arriving always earns more than not arriving
        assert max(t for t, steps in totals if steps < 0) < 1


@settings(max_examples=300, derandomize=True)
@given(
    st.integers(0, 99),
    st.lists(
        st.text(alphabet="UDLR", max_size=8) | st.sampled_from(["UD" * 30, "LR" * 3]), max_size=12
    ),
)
def test_no_walk_earns_more_than_a_shortest_path(seed, responses):
    problem = made().problem(seed)
    best = sum(problem.clone().act("planner", problem.demonstration("planner")))
    total = 0.0
    for response in responses:
        if not problem.is_done:
            total += sum(problem.act("planner", response))
    assert total <= best + 1e-9
    assert problem.is_done or total < 1


@pytest.mark.parametrize("moves", ["UD" * 16, "U" * 32, "RL" * 16, "LLLL", "RLUD"])
def test_staying_in_place_earns_less_than_no_response(moves):
    problem = problem_of("A...", "#...", "....", "...G")
    assert sum(problem.act("planner", moves)) < 0
    assert problem.position == (0, 0)
    assert sum(problem.act("tool", moves)) < 0


def test_the_number_of_moves_is_limited():
    problem = problem_of("A.", ".G")
    assert problem.act("tool", "DU" * 500) == problem.act("tool", "DU" * 4)
    assert problem.fields("planner")["proposal"] == "DU" * 4
    assert problem.act("planner", "DU" * 500_000 + "DR").team == pytest.approx(-8 * 0.01)
    assert not problem.is_done


def test_prompts_are_short_ascii_with_all_fields():
    for chosen in DIFFICULTIES:
        problem = made(**chosen).problem(1)
        for name, role in PlanPathTask.roles.items():
            assert len(role.templates) >= 3
            assert len(problem.prompt(name, role.templates[0])) < len(problem.key) + 70
            for template in role.templates:
                check_template(template, problem.fields(name))
                prompt = problem.prompt(name, template)
                assert re.fullmatch(r"[ -~\n]{4,500}", prompt)
                assert problem.key in prompt
                assert name == "tool" or "none" in prompt


def test_clones_are_independent():
    problem = problem_of("A..", "##.", "G..")
    problem.act("tool", "RR")
    clone = problem.clone()
    clone.act("planner", "RRDDLL")
    assert clone.is_solved
    assert problem.fields("planner")["proposal"] == "RR"
    assert problem.position == (0, 0)
    problem.act("planner", "R")
    assert (problem.steps, clone.steps) == (1, 6)
    assert clone.key == problem.key == "A..\n##.\nG.."


@settings(max_examples=300, derandomize=True)
@given(st.integers(0, 50), st.lists(st.text() | st.text(alphabet="UDLR\n "), max_size=8))
def test_any_text_is_accepted(seed, responses):
    problem = made(size=3, min_distance=1).problem(seed)
    for number, response in enumerate(responses):
        role = ("tool", "planner")[number % 2]
        if problem.is_done:
            with pytest.raises(ValueError, match="done"):
                problem.act(role, response)
            return
        team, local = problem.act(role, response)
        # at most eight steps away or closer, when the shortest path has one step
        assert -2 * 9 * 0.11 - 8 <= team <= 8 + 1.5
        assert local in (0.0, -0.1)


def test_long_responses_are_read_in_linear_time():
    problem = made(size=20, min_distance=20).problem(0)
    for piece in ("U", "UD", " ", "\n", "U\n", "x"):
        for role in PlanPathTask.roles:
            before = time.perf_counter()
            problem.clone().act(role, piece * (2_000_000 // len(piece)))
            assert time.perf_counter() - before < 2


def test_other_roles_are_rejected():
    problem = made().problem(0)
    for call in (problem.fields, problem.demonstration, lambda role: problem.act(role, "U")):
        with pytest.raises(
            ValueError, match="no role 'coder' in this task; its roles are tool, planner"
        ):
            call("coder")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"walls": 1.0}, "size 4 and walls 1.0, a grid has only 0 free cells"),
        ({"walls": 0.95}, "only 1 free cells"),
        ({"size": 2, "walls": 0.0, "min_distance": 4}, "only 4 free cells"),
        ({"size": 2, "walls": 0.0, "min_distance": 3}, "none of 1,000 random grids"),
        ({"size": 4, "walls": 0.0, "min_distance": 7}, "none of 1,000 random grids"),
    ],
)
def test_impossible_settings_are_reported_with_a_remedy(chosen, message):
    with pytest.raises(
        ValueError, match=rf"min_distance \(.*{message}.*\. Lower min_distance or walls, or raise"
    ):
        made(**chosen).problem(0)


def test_settings_at_their_extremes():
    for chosen in ({"size": 20, "walls": 0.6}, {"size": 20, "walls": 0.0, "min_distance": 38}):
        problem = made(**chosen).problem(0)
        problem.act("planner", problem.demonstration("planner"))
        assert problem.is_solved
    # only four pairs of opposite corners: too few for both splits
    few = made(size=2, walls=0.0)
    assert few.problem(0, "train")
    with pytest.raises(ValueError, match=r"plan_path drew 10,000 .* none belongs to the valid"):
        few.problem(0, "validation")
    free = made(goal_reward=0.0, optimal_reward=0.0, invalid_penalty=0.0, step_penalty=0.0)
    problem = free.problem(0)
    assert problem.act("planner", problem.demonstration("planner")) == pytest.approx((1, 0))


def test_the_share_of_walls_is_rounded():
    for walls, count in ((0.0, 0), (0.22, 4), (0.5, 8), (1.0, 16)):
        grid = random_grid(4, walls, random.Random(0))
        assert "".join(grid.rows).count("#") == count
