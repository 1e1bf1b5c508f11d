"""The mechanics of Sokoban: moves, deadlocks, levels drawn backwards, solutions by search.

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

# States that a search looks at before it gives up, after seconds on the largest levels.
MAX_EXPANDED = 5_000
MAX_DRAWS = 1_000


class State(NamedTuple):
    """What moves on a level: the cells of the boxes and that of the player."""

    boxes: frozenset[int]
    player: int


@dataclass(frozen=True)
class Level:
    """What stands still.

    Attributes:
        size: cells of a side.
        walls: cells, all those of the border among them.
        goals: cells, as many as boxes.
    """

    size: int
    walls: frozenset[int]
    goals: frozenset[int]

    @cached_property
    def steps(self) -> dict[str, int]:
        """What each move adds to a cell's number."""
        return {"U": -self.size, "D": self.size, "L": -1, "R": 1}

    @cached_property
    def pushes_to(self) -> dict[int, dict[int, int]]:
        """By goal: the pushes that bring a lone box to it, by the cells where that can be done."""
        return {goal: self._pushes_to(goal) for goal in sorted(self.goals)}

    def _pushes_to(self, goal: int) -> dict[int, int]:
        pushes = {goal: 0}
        queue = deque(pushes)
        while queue:
            cell = queue.popleft()
            for step in self.steps.values():
                pulled, puller = cell + step, cell + 2 * step
                # a wall ends the look before the number of the cell behind it can be off the grid
                if pulled in self.walls or puller in self.walls or pulled in pushes:
                    continue
                pushes[pulled] = pushes[cell] + 1
                queue.append(pulled)
        return pushes

    @cached_property
    def live(self) -> frozenset[int]:
        """The cells from which a lone box can be brought to some goal; the others are dead."""
        return frozenset().union(*self.pushes_to.values())

    def fewest_pushes(self, boxes: frozenset[int]) -> float:
        """Pushes that would do if no box were in another's way; infinite where none would."""
        return min(
            sum(pushes.get(box, math.inf) for pushes, box in zip(ordered, boxes, strict=True))
            for ordered in itertools.permutations(self.pushes_to.values())
        )

    def text(self, state: State) -> str:
        """Rows of `#` wall, `-` floor, `.` goal, `$` box, `*` box on a goal, `@` and `+` player."""
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
        """The state after one move; the same one where a wall or a box that cannot go stops it."""
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

    def carried_out(self, state: State, moves: str) -> State:
        """The state after moves, up to a solution, a deadlock or a move that is stopped.

        What follows a move that a wall stops was meant for another cell: were it done, long
        responses at random would solve what a planner has to find.
        """
        for move in moves:
            before, state = state, self.moved(state, move)
            pushed = state.boxes != before.boxes
            if state == before or (pushed and (self.is_solved(state) or self.is_deadlocked(state))):
                break
        return state

    def on_goals(self, state: State) -> int:
        """How many boxes are on goals."""
        return len(state.boxes & self.goals)

    def is_solved(self, state: State) -> bool:
        """Whether all boxes are on goals."""
        return state.boxes == self.goals

    def is_deadlocked(self, state: State) -> bool:
        """Whether boxes cannot all be brought to goals of their own, or one off goals is stuck.

        Such a level cannot be solved; not every level that cannot be solved is found by this.
        """
        return math.isinf(self.fewest_pushes(state.boxes)) or any(
            self._is_frozen(box, state.boxes, self.walls) for box in state.boxes - self.goals
        )

    def _is_frozen(self, box: int, boxes: frozenset[int], solid: frozenset[int]) -> bool:
        """Whether a box can move along neither axis without losing; `solid` cells never move."""
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
        """The cells that the player reaches without a push, each with the shortest moves to it."""
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
        """Moves that solve the level from a state, by weighted A* over what pushes lead to.

        With one box they are the fewest; with more they are found the faster for not being so.

        Returns:
            None where there is no solution, or none was found among `MAX_EXPANDED` states.
        """
        weight = len(self.goals)
        number = itertools.count()  # among equals, the first one found is looked at first
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
    """A level that can be solved, and is not: boxes are pulled away from their goals.

    Args:
        size: cells of a side.
        walls: share of the cells inside of the border that are walls.
        pulls: how often a box is pulled, at most.

    Raises:
        ValueError: there is hardly any such level.
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
        f"sokoban has no level of size {size} with {n_boxes} boxes and walls {walls} among "
        f"{MAX_DRAWS:,} draws: raise size, or lower boxes or walls"
    )


def _pulled(generator: random.Random, level: Level, state: State, pulls: int) -> State:
    """A state from which pushes lead back; boxes never stand twice as they stood before."""
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
