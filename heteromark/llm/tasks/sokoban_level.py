"""The mechanics of Sokoban: moves, deadlocks, level generation by pulling, and a solver.

Cells are numbered row by row. Source of the terms (dead cells, freeze deadlocks): Junghanns and
Schaeffer, "Sokoban: Enhancing general single-agent search methods using domain knowledge" (2001).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

# Maximum number of states that the solver expands; takes seconds on the largest levels.
MAX_EXPANDED = 5_000
MAX_DRAWS = 1_000


class State(NamedTuple):
    """The moving parts of a level: the cells of the boxes and of the player."""

    boxes: frozenset[int]
    player: int


@dataclass(frozen=True)
class Level:
    """The fixed parts of a level.

    Attributes:
        size: number of cells per side.
        walls: cells with walls, including the whole border.
        goals: goal cells, as many as boxes.
    """

    size: int
    walls: frozenset[int]
    goals: frozenset[int]

    @cached_property
    def steps(self) -> dict[str, int]:
        """The change of the cell's number by each move."""
        return {"U": -self.size, "D": self.size, "L": -1, "R": 1}

    @cached_property
    def pushes_to(self) -> dict[int, dict[int, int]]:
        """For each goal, the number of pushes that bring a single box from each cell to it.

        Cells from which the goal cannot be reached are missing.
        """
        return {goal: self._pushes_to(goal) for goal in sorted(self.goals)}

    def _pushes_to(self, goal: int) -> dict[int, int]:
        pushes = {goal: 0}
        queue = deque(pushes)
        while queue:
            cell = queue.popleft()
            for step in self.steps.values():
                pulled, puller = cell + step, cell + 2 * step
                # the border is wall, so `puller` is never outside the grid if `pulled` is no wall
                if pulled in self.walls or puller in self.walls or pulled in pushes:
                    continue
                pushes[pulled] = pushes[cell] + 1
                queue.append(pulled)
        return pushes

    @cached_property
    def live(self) -> frozenset[int]:
        """The cells from which a single box can be pushed to some goal; all others are dead."""
        return frozenset[int]().union(*self.pushes_to.values())

    def fewest_pushes(self, boxes: frozenset[int]) -> float:
        """Return a lower bound on the pushes to a solution; infinite if there is none.

        The bound ignores that boxes block each other.
        """
        return min(
            sum(pushes.get(box, math.inf) for pushes, box in zip(ordered, boxes, strict=True))
            for ordered in itertools.permutations(self.pushes_to.values())
        )

    def text(self, state: State) -> str:
        """Return the level as rows of text.

        `#` is a wall, `-` floor, `.` a goal, `$` a box, `*` a box on a goal, `@` the player and `+`
        the player on a goal.
        """
        marks = []
        for cell in range(self.size**2):
            on_goal = cell in self.goals
            if cell in self.walls:
                marks.append("#")
            elif cell in state.boxes:
                marks.append("*" if on_goal else "$")
            elif cell == state.player:
                marks.append("+" if on_goal else "@")
            else:
                marks.append("." if on_goal else "-")
        rows = range(0, self.size**2, self.size)
        return "\n".join("".join(marks[row : row + self.size]) for row in rows)

    def moved(self, state: State, move: str) -> State:
        """Return the state after one move; unchanged if a wall or a stuck box blocks it."""
        step = self.steps[move]
        to = state.player + step
        if to in self.walls:
            return state
        if to not in state.boxes:
            return State(state.boxes, to)
        beyond = to + step
        if beyond in self.walls or beyond in state.boxes:
            return state
        return State(state.boxes - {to} | {beyond}, to)

    def apply_moves(self, state: State, moves: str) -> State:
        """Return the state after moves, up to a solution, a deadlock or a blocked move.

        Moves after a blocked one were planned for another cell. Ignoring them prevents long random
        responses from solving levels.
        """
        for move in moves:
            before, state = state, self.moved(state, move)
            pushed = state.boxes != before.boxes
            if state == before or (pushed and (self.is_solved(state) or self.is_deadlocked(state))):
                break
        return state

    def on_goals(self, state: State) -> int:
        """Return the number of boxes on goals."""
        return len(state.boxes & self.goals)

    def is_solved(self, state: State) -> bool:
        """Return whether all boxes are on goals."""
        return state.boxes == self.goals

    def is_deadlocked(self, state: State) -> bool:
        """Return whether the state is recognised as unsolvable.

        That is the case if the boxes cannot all reach different goals, or a box outside the goals
        is stuck. Not every unsolvable state is recognised.
        """
        return math.isinf(self.fewest_pushes(state.boxes)) or any(
            self._is_frozen(box, state.boxes, self.walls) for box in state.boxes - self.goals
        )

    def _is_frozen(self, box: int, boxes: frozenset[int], solid: frozenset[int]) -> bool:
        """Return whether a box cannot usefully move along any axis; `solid` cells never move."""
        solid = solid | {box}
        for step in (1, self.size):
            sides = (box - step, box + step)
            if not (
                any(side in solid for side in sides)
                or all(side not in self.live for side in sides)
                or any(side in boxes and self._is_frozen(side, boxes, solid) for side in sides)
            ):
                return False
        return True

    def walks(self, state: State) -> dict[int, str]:
        """Return the cells that the player can reach without a push, with the shortest moves."""
        moves = {state.player: ""}
        queue = deque(moves)
        while queue:
            cell = queue.popleft()
            for move, step in self.steps.items():
                to = cell + step
                if to not in moves and to not in self.walls and to not in state.boxes:
                    moves[to] = moves[cell] + move
                    queue.append(to)
        return moves

    def solution(self, state: State) -> str | None:
        """Find moves that solve the level, by weighted A* over pushes.

        The solution is shortest with one box. With more boxes, the heuristic is weighted: the
        search is faster, but the solution may be longer.

        Returns:
            The moves; None if there is no solution, or none was found within `MAX_EXPANDED` states.
        """
        weight = len(self.goals)
        number = itertools.count()  # breaks ties: first in, first out
        queue = [(0.0, next(number), "", state)]
        expanded: set[State] = set()
        while queue and len(expanded) < MAX_EXPANDED:
            _, _, moves, state = heapq.heappop(queue)
            if self.is_solved(state):
                return moves
            if state in expanded:
                continue
            expanded.add(state)
            walks = self.walks(state)
            for box in sorted(state.boxes):
                for move, step in self.steps.items():
                    if box - step not in walks:
                        continue
                    after = self.moved(State(state.boxes, box - step), move)
                    if after.boxes == state.boxes or after in expanded or self.is_deadlocked(after):
                        continue
                    so_far = moves + walks[box - step] + move
                    estimate = len(so_far) + weight * self.fewest_pushes(after.boxes)
                    heapq.heappush(queue, (estimate, next(number), so_far, after))
        return None


def draw_level(
    generator: random.Random, size: int, n_boxes: int, walls: float, pulls: int
) -> tuple[Level, State]:
    """Draw a solvable, unsolved level by pulling boxes away from their goals.

    Args:
        generator: source of randomness.
        size: number of cells per side.
        n_boxes: number of boxes.
        walls: share of walls among the cells inside the border.
        pulls: maximum number of pulls.

    Raises:
        ValueError: No such level was found in `MAX_DRAWS` draws.
    """
    inner = [row * size + column for row in range(1, size - 1) for column in range(1, size - 1)]
    border = frozenset(range(size**2)) - frozenset(inner)
    n_walls = round(walls * len(inner))
    for _ in range(MAX_DRAWS if n_walls + n_boxes < len(inner) else 0):
        cells = generator.sample(inner, n_walls + n_boxes + 1)
        level = Level(
            size, border | frozenset(cells[:n_walls]), frozenset(cells[n_walls : n_walls + n_boxes])
        )
        state = _pulled(generator, level, State(level.goals, cells[-1]), pulls)
        if not level.is_solved(state):
            return level, State(state.boxes, generator.choice(sorted(level.walks(state))))
    raise ValueError(
        f"sokoban found no level of size {size} with {n_boxes} boxes and walls {walls} in "
        f"{MAX_DRAWS:,} draws: raise size, or lower boxes or walls"
    )


def _pulled(generator: random.Random, level: Level, state: State, pulls: int) -> State:
    """Pull random boxes. Pushes lead back to the start; no box configuration occurs twice."""
    seen = {state.boxes}
    for _ in range(pulls):
        walks = level.walks(state)
        options = []
        for box in sorted(state.boxes):
            for step in level.steps.values():
                at, behind = box + step, box + 2 * step
                if at not in walks or behind in level.walls or behind in state.boxes:
                    continue
                after = State(state.boxes - {box} | {at}, behind)
                if after.boxes not in seen:
                    options.append(after)
        if not options:
            break
        state = generator.choice(options)
        seen.add(state.boxes)
    return state
