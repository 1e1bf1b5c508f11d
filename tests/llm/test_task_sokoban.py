"""Test Sokoban levels, deadlocks and rewards against an exhaustive search of all states."""

from __future__ import annotations

import random
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

from heteromark.config.models.tasks import SokobanConfig
from heteromark.llm.tasks.sokoban import SokobanProblem, SokobanTask
from heteromark.llm.tasks.sokoban_level import Level, State

MARKS = {"#": (1, 0, 0, 0), "-": (0, 0, 0, 0), ".": (0, 1, 0, 0), "$": (0, 0, 1, 0)}
MARKS |= {"*": (0, 1, 1, 0), "@": (0, 0, 0, 1), "+": (0, 1, 0, 1)}


def task(**settings):
    return SokobanTask(SokobanConfig(**settings))


def read(text):
    """Parse a level: walls, goals and boxes as sets of (row, column), and the player's cell."""
    cells = [set(), set(), set(), set()]
    for row, line in enumerate(text.split("\n")):
        for column, mark in enumerate(line):
            for kind, is_present in zip(cells, MARKS[mark], strict=True):
                if is_present:
                    kind.add((row, column))
    return (*cells[:3], *cells[3])


def level_of(text):
    walls, goals, boxes, player = read(text)
    size = text.index("\n")
    numbers = [frozenset(r * size + c for r, c in kind) for kind in (walls, goals, boxes)]
    return Level(size, *numbers[:2]), State(numbers[2], player[0] * size + player[1])


def problem_of(text):
    return SokobanProblem(*level_of(text))


def moved(walls, boxes, player, move):
    """Apply a move: an independent implementation of Sokoban's rules."""
    down, right = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}[move]
    to = (player[0] + down, player[1] + right)
    beyond = (to[0] + down, to[1] + right)
    if to in walls or (to in boxes and (beyond in walls or beyond in boxes)):
        return boxes, player
    if to in boxes:
        boxes = boxes - {to} | {beyond}
    return boxes, to


def solvable_states(text):
    """Return all states reachable from a level, each with whether it is solvable."""
    walls, goals, boxes, player = read(text)
    start = (frozenset(boxes), player)
    leads_to, waiting = {}, [start]
    while waiting:
        state = waiting.pop()
        if state in leads_to:
            continue
        leads_to[state] = {moved(walls, *state, move) for move in "UDLR"}
        waiting.extend(leads_to[state])
    solved = {state for state in leads_to if state[0] == goals}
    grown = True
    while grown:
        more = {
            state for state, after in leads_to.items() if state not in solved and after & solved
        }
        grown, solved = bool(more), solved | more
    return {state: state in solved for state in leads_to}


SETTINGS = [
    {},
    {"size": 5, "walls": 0, "pulls": 1},
    {"boxes": 2, "pulls": 10},
    {"size": 7, "boxes": 3, "walls": 0.15, "pulls": 12},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("roles", [("tool", "planner"), ("planner",)])
def test_demonstrations_solve_in_one_round(settings, roles):
    for seed in range(100):
        problem = task(**settings).problem(seed)
        assert not problem.is_done
        assert play(problem, roles, 1) == 1
        assert problem.is_solved


def test_the_largest_levels_are_solved_well_under_a_second():
    hardest = task(size=12, boxes=4, walls=0.2, pulls=60)
    for seed in range(8):
        problem = hardest.problem(seed)
        start = time.process_time()
        moves = problem.demonstration("planner")
        assert time.process_time() - start < 1
        problem.act("planner", moves)
        assert problem.is_solved


def test_demonstrations_continue_from_any_state():
    generator = random.Random(0)
    one_box = task(pulls=8)
    n_solved = n_hopeless = 0
    for seed in range(100):
        problem = one_box.problem(seed)
        problem.act("planner", "".join(generator.choices("UDLR", k=6)))
        if problem.is_done:
            continue
        _, _, boxes, player = read(problem.fields("planner")["grid"])
        if solvable_states(problem.fields("planner")["grid"])[frozenset(boxes), player]:
            assert play(problem, ("tool", "planner"), 1) == 1
            assert problem.is_solved
            n_solved += 1
        else:
            assert play(problem, ("tool", "planner"), 3) is None
            n_hopeless += 1
    assert n_solved > 20
    assert 0 < n_hopeless < n_solved


def test_a_demonstration_with_one_box_is_the_shortest():
    for seed in range(30):
        problem = task(size=9, walls=0.2, pulls=20).problem(seed)
        walls, goals, boxes, player = read(problem.key)
        layer, steps = {(frozenset(boxes), player)}, 0
        seen = set(layer)
        while not any(state[0] == goals for state in layer):
            layer = {moved(walls, *state, move) for state in layer for move in "UDLR"} - seen
            seen |= layer
            steps += 1
        assert len(problem.demonstration("planner")) == steps


@pytest.mark.parametrize("settings", SETTINGS[:3])
def test_recognised_deadlocks_are_unsolvable(settings):
    n_deadlocks = n_missed = 0
    for seed in range(8):
        text = task(**settings).problem(seed).key
        level, _ = level_of(text)
        for (boxes, player), can_be in solvable_states(text).items():
            state = State(
                frozenset(r * level.size + c for r, c in boxes), player[0] * level.size + player[1]
            )
            if level.is_deadlocked(state):
                n_deadlocks += 1
                assert not can_be
                assert not level.is_solved(state)
            elif not can_be:
                n_missed += 1
    assert n_deadlocks > n_missed


@pytest.mark.parametrize(
    ("text", "moves"),
    [
        # against a wall without a goal along it
        ("######\n#----#\n#-$--#\n#-@--#\n#---.#\n######", "U"),
        # into a corner, from beside a goal
        ("######\n#@$.-#\n#----#\n#-$--#\n#--.-#\n######", "RR"),
        # two adjacent boxes along a wall, where a single box could still reach its goal
        ("#######\n#.$--.#\n#-----#\n#--$--#\n#--@--#\n#-----#\n#######", "UU"),
        # two boxes in a column with only one goal
        ("#######\n#-----#\n#-$@--#\n#-----#\n#-$.--#\n#.----#\n#######", "LDRDL"),
    ],
)
def test_a_deadlock_ends_the_problem_unsolved(text, moves):
    problem = problem_of(text)
    for move in moves[:-1]:
        problem.act("planner", move)
        assert not problem.is_done, move
    assert problem.demonstration("planner")
    on_goals = problem.fields("tool")["boxes"]
    reward = problem.act("planner", moves[-1])
    assert problem.is_done
    assert not problem.is_solved
    assert reward.team == pytest.approx(-0.1 - (0.5 if on_goals == "1/2" else 0))


BESIDE_GOAL = "######\n#----#\n#@$.-#\n#----#\n#----#\n######"


def test_pushing_a_box_on_and_off_a_goal_earns_nothing():
    problem = problem_of("#######\n#-----#\n#@$.--#\n#-----#\n#-$-.-#\n#-----#\n#######")
    on = problem.act("planner", "R")
    off = problem.act("planner", "R")
    assert (on.team, off.team) == (0.5, -0.5)
    assert not problem.is_done
    again = problem.act("planner", "URRDLL")
    assert again.team == pytest.approx(0)


@given(st.lists(st.one_of(st.text("UDLR", min_size=1, max_size=12), ANY_TEXT), max_size=8))
def test_nothing_earns_more_than_a_solution(responses):
    start = task(boxes=2, pulls=4).problem(3)
    at_once = start.clone().act("planner", start.demonstration("planner")).team
    assert at_once > 1
    total = 0.0
    for response in responses:
        if start.is_done:
            break
        total += sum(start.act("planner", response))
    assert total <= at_once + 1e-9
    assert start.is_solved or total < at_once - 0.9


def test_moves_after_the_solution_do_not_count():
    problem = problem_of(BESIDE_GOAL)
    assert problem.act("planner", "RR").team == 2
    assert problem.is_solved


@pytest.mark.parametrize("moves", ["L", "DR"], ids=["by a wall", "by a box behind the box"])
def test_a_blocked_move_ends_the_walk(moves):
    text = "######\n#----#\n#@$-.#\n#-$$.#\n#---.#\n######"
    alone, followed = problem_of(text), problem_of(text)
    assert followed.act("planner", moves + "UR") == alone.act("planner", moves)
    assert followed.fields("tool") == alone.fields("tool")


@pytest.mark.parametrize("length", [4, 8, 16, 36])
def test_random_moves_rarely_solve(length):
    """Check that random moves rarely solve a level, regardless of their number."""
    levels, generator = task(), random.Random(2)
    solved = 0
    for seed in range(400):
        problem = levels.problem(seed)
        for _ in range(2):
            if not problem.is_done:
                moves = "".join(generator.choice("UDLR") for _ in range(length))
                problem.act("planner", moves)
        solved += problem.is_solved
    assert solved / 400 < 0.08


def test_the_tool_earns_its_proposals_reward_without_moving():
    n_values = set()
    for seed in range(20):
        problem = task(boxes=2, pulls=3).problem(seed)
        grid = problem.fields("planner")["grid"]
        for moves in ("U", "LURD", problem.demonstration("tool"), "R" * 20):
            proposed = problem.clone().act("tool", moves)
            executed = problem.clone().act("planner", moves)
            assert proposed == executed
            n_values.add(proposed.team)
            problem.act("tool", moves)
            assert problem.fields("planner")["grid"] == grid
            assert not problem.is_done
    assert len(n_values) > 3


def test_both_roles_see_the_outcome_of_a_proposal():
    problem = problem_of(BESIDE_GOAL)
    assert problem.fields("planner")["proposal"] == problem.fields("tool")["last"] == "none"
    problem.act("tool", "think\n r")
    shown = problem.fields("planner")
    assert (shown["proposal"], shown["outcome"]) == ("R", "solved")
    assert "#-@*-#" not in shown["grid"]
    assert "#-@*-#" in shown["foreseen"]
    problem.act("planner", "U")
    # the proposal was made for the previous state
    assert problem.fields("planner")["proposal"] == "none"
    assert problem.fields("tool")["last"] == "R -> solved"


@pytest.mark.parametrize(
    "response",
    ["", "   \n", "R.", "go R", "R\nI am done", "\uff32", "<R>", "R" * 37, "RRX", "1", "ᴿ"],
)
@pytest.mark.parametrize("role", ["tool", "planner"])
def test_malformed_moves_move_nothing(response, role):
    problem = problem_of(BESIDE_GOAL)
    before = problem.fields("planner")
    assert problem.act(role, response) == (0, -0.1)
    assert problem.fields("planner") == before


def test_solved_matches_an_independent_simulation():
    generator = random.Random(1)
    n_solved = 0
    for seed in range(600):
        problem = task(size=5, walls=0, pulls=2).problem(seed)
        walls, goals, boxes, player = read(problem.key)
        moves = "".join(generator.choices("UDLR", k=6))
        problem.act("planner", moves)
        boxes = frozenset(boxes)
        for move in moves:
            before = boxes, player
            boxes, player = moved(walls, boxes, player, move)
            if boxes == goals or (boxes, player) == before:
                break
        assert problem.is_solved == (boxes == goals)
        n_solved += problem.is_solved
    assert n_solved > 10


@given(ANY_TEXT, st.sampled_from(["tool", "planner"]))
def test_any_text_is_a_response(text, role):
    check_any_text(task().problem(0), role, text)


@pytest.mark.parametrize("text", HUGE_TEXTS)
def test_huge_text_is_read_quickly(text):
    start = time.process_time()
    check_any_text(task().problem(0), "planner", text)
    assert time.process_time() - start < 0.5


def test_clones_are_independent():
    check_clones(problem_of(BESIDE_GOAL), [("tool", "R"), ("planner", "U"), ("tool", "D")])


def test_refusals():
    done = problem_of(BESIDE_GOAL)
    done.act("planner", "R")
    check_refusals(problem_of(BESIDE_GOAL), done)


@pytest.mark.parametrize("settings", SETTINGS)
def test_drawing(settings):
    # the smallest levels are few
    check_drawing(task(**settings), different=0.1 if settings.get("size") == 5 else 0.9)


@pytest.mark.parametrize("settings", SETTINGS)
def test_prompts(settings):
    problem = task(**settings).problem(0)
    check_prompts(problem, SokobanTask.roles, longest=350)
    problem.act("tool", "UDLR" * 5)
    check_prompts(problem, SokobanTask.roles, longest=400)


@pytest.mark.parametrize(
    "settings", [{"walls": 1}, {"size": 5, "walls": 0.5, "boxes": 4}, {"size": 5, "walls": 0.9}]
)
def test_levels_without_room_are_rejected(settings):
    with pytest.raises(ValueError, match="raise size, or lower boxes or walls"):
        task(**settings).problem(0)


@pytest.mark.parametrize(
    "settings",
    [{"size": 5, "boxes": 4, "walls": 0, "pulls": 1}, {"size": 12, "pulls": 500}, {"pulls": 1}],
)
def test_extreme_settings(settings):
    for split in ("train", "validation"):
        problem = task(**settings).problem(0, split)
        assert not problem.is_done
        problem.act("planner", problem.demonstration("planner"))
        assert problem.is_solved
