"""Path planning in a grid: a tool proposes moves, a planner makes them."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from heteromark.config.models.tasks import PlanPathConfig
from heteromark.llm.tasks.base import MALFORMED, Reward, Role, Task, TurnProblem, last_line
from heteromark.llm.tasks.grid import FREE, MOVES, Cell, Grid, random_grid
from heteromark.llm.tasks.registry import TASKS

AGENT, GOAL = "A", "G"
NONE = "none"
MAX_DRAWS = 1_000

_MOVES = re.compile(f"[{''.join(MOVES)}]+")

ROLES = {
    "tool": Role(
        (
            "{grid}\n",
            "You are at A in this grid; G is the goal and # is a wall.\n{grid}\nPropose a shortest "
            "way to G on the last line, as letters U D L R (up, down, left, right) without "
            "spaces.\n",
            "Plan a route from A to G around the walls (#).\n{grid}\nEnd with one line of moves "
            "only, such as UURD.\n",
        )
    ),
    "planner": Role(
        (
            "{grid}\n{proposal} {outcome}\n",
            "You are at A in this grid; G is the goal and # is a wall.\n{grid}\nA helper proposes "
            "{proposal}, which ends {outcome}.\nWrite the moves to make on the last line, as "
            "letters U D L R (up, down, left, right) without spaces. Moves cost, and a bump costs "
            "more and ends them.\n",
            "Go from A to G around the walls (#) in as few steps as you can.\n{grid}\nSuggested: "
            "{proposal} (ends {outcome}). Decide, and end with one line of moves only, such as "
            "UURD.\n",
        )
    ),
}


class Walk(NamedTuple):
    """The result of a sequence of moves.

    Attributes:
        end: the final cell.
        steps: number of moves made, including a blocked one.
        is_blocked: whether a wall or the border blocked the last move.
    """

    end: Cell
    steps: int
    is_blocked: bool


class PlanPathProblem(TurnProblem):
    """A grid, the agent's position, and the tool's current proposal.

    Args:
        grid: the walls.
        start: the agent's first cell.
        goal: another cell, reachable from the start.
        settings: rewards and penalties.
    """

    roles = ROLES

    def __init__(self, grid: Grid, start: Cell, goal: Cell, settings: PlanPathConfig) -> None:
        self.grid, self.goal, self.settings = grid, goal, settings
        self.distances = grid.distances(goal)
        self.shortest = self.distances[start]
        self.position = start
        self.steps = 0
        self.proposal = ""
        self._key = self._picture()

    @property
    def key(self) -> str:
        return self._key

    @property
    def is_solved(self) -> bool:
        return self.position == self.goal

    def fields(self, role: str) -> dict[str, str]:
        self.check_role(role)
        if role == "tool":
            return {"grid": self._picture()}
        outcome = self._outcome(self._walk(self.proposal)) if self.proposal else NONE
        return {"grid": self._picture(), "proposal": self.proposal or NONE, "outcome": outcome}

    def act(self, role: str, response: str) -> Reward:
        """Store a proposal (tool), or make the moves (planner).

        A wall or the border ends the walk, because the remaining moves were planned for another
        cell; continuing would reward random walks. Progress towards the goal adds up to 1, plus
        bonuses and minus penalties. Detours and stops therefore earn nothing. Moves left over at
        the end of the walk cost the same as steps.
        """
        self.check_turn(role)
        moves = self._read(response)
        self.proposal = moves if role == "tool" else ""
        if not moves:
            return MALFORMED
        walk = self._walk(moves)
        reward = Reward(self._earned(walk, len(moves)), 0.0)
        if role == "planner":
            self.position, self.steps = walk.end, self.steps + walk.steps
        return reward

    def demonstration(self, role: str) -> str:
        """Return a shortest path; of several, the first in the order of `MOVES`."""
        self.check_role(role)
        cell, moves = self.position, ""
        while cell != self.goal:
            nearer = self.distances[cell] - 1
            move = next(m for m in MOVES if self.distances[self.grid.step(cell, m)] == nearer)
            cell, moves = self.grid.step(cell, move), moves + move
        return moves

    def _read(self, response: str) -> str:
        """Return the moves on the last line, truncated to a generous limit; empty if malformed."""
        line = last_line(response)
        return line[: 2 * len(self.grid.rows) ** 2] if _MOVES.fullmatch(line) else ""

    def _walk(self, moves: str) -> Walk:
        cell, steps, is_blocked = self.position, 0, False
        for move in moves:
            if cell == self.goal or is_blocked:
                break
            following = self.grid.step(cell, move)
            cell, steps, is_blocked = following, steps + 1, following == cell
        return Walk(cell, steps, is_blocked)

    def _earned(self, walk: Walk, moves: int) -> float:
        """Return the team reward of a walk; `moves` also counts moves left over at its end."""
        settings = self.settings
        nearer = self.distances[self.position] - self.distances[walk.end]
        earned = nearer / self.shortest
        earned -= settings.invalid_penalty * walk.is_blocked + settings.step_penalty * moves
        if walk.end == self.goal:
            earned += settings.goal_reward
            if self.steps + walk.steps == self.shortest:
                earned += settings.optimal_reward
        return earned

    def _outcome(self, walk: Walk) -> str:
        row, column = walk.end
        at = "at G" if walk.end == self.goal else f"at row {row + 1}, column {column + 1}"
        return at + (", blocked" if walk.is_blocked else "")

    def _picture(self) -> str:
        return self.grid.picture({self.goal: GOAL, self.position: AGENT})


@TASKS.register("plan_path")
class PlanPathTask(Task):
    """Finding a path from A to G through a square grid with walls.

    The tool proposes moves. The planner sees where they would lead, then makes moves. The team is
    rewarded for progress towards the goal, as a share of the shortest path, and for arriving. The
    tool gets the reward that its proposal would have earned.

    Args:
        settings: the grid's size and walls, and the rewards.

    Raises:
        ValueError: The grid has too few free cells for a path of min_distance.
    """

    name = "plan_path"
    roles = ROLES

    def __init__(self, settings: PlanPathConfig) -> None:
        self.settings = settings
        free = settings.size**2 - round(settings.walls * settings.size**2)
        if settings.min_distance >= free:
            raise ValueError(self._too_far(f"a grid has only {free} free cells"))

    def draw(self, generator: random.Random) -> PlanPathProblem:
        """Draw a grid with a start and a goal at least min_distance apart.

        Raises:
            ValueError: No such grid was found in `MAX_DRAWS` draws.
        """
        for _ in range(MAX_DRAWS):
            grid = random_grid(self.settings.size, self.settings.walls, generator)
            goal = generator.choice(_free_cells(grid))
            far = [
                cell
                for cell, distance in grid.distances(goal).items()
                if distance >= self.settings.min_distance
            ]
            if far:
                return PlanPathProblem(grid, generator.choice(far), goal, self.settings)
        raise ValueError(
            self._too_far(f"none of {MAX_DRAWS:,} random grids has a path of this length")
        )

    def _too_far(self, reason: str) -> str:
        settings = self.settings
        return (
            f"min_distance ({settings.min_distance}) is too large: with size {settings.size} and "
            f"walls {settings.walls}, {reason}. Lower min_distance or walls, or raise size"
        )


def _free_cells(grid: Grid) -> list[Cell]:
    return [(i, j) for i, row in enumerate(grid.rows) for j, cell in enumerate(row) if cell == FREE]
