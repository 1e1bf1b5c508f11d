"""Sudoku: a tool proposes digits for cells, a reasoner writes the whole grid."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping

from heteromark.config.models.tasks import SudokuConfig
from heteromark.llm.tasks.base import MALFORMED, Reward, Role, Task, TurnProblem
from heteromark.llm.tasks.registry import TASKS
from heteromark.llm.tasks.sudoku_grid import Grid, draw_grids

# Penalty for a wrongly filled hole, relative to the reward for a right one, so that filling holes
# at random earns almost nothing.
WRONG_COST = 0.5
_CELL = re.compile("r([1-9])c([1-9])=([1-9])")

_RULE = "Each row, column and {box}x{box} box has 1-{size} once."
ROLES = {
    "tool": Role(
        (
            "{puzzle}\n"
            f"{_RULE}\n"
            "Last answer:\n{answer}\n"
            "Cells for the dots, such as r1c2=3 r2c1=4:\n",
            f"Help to solve this Sudoku. {_RULE} Dots are empty.\n"
            "{puzzle}\n"
            "Think if you like. Then name the cells that you are sure of, by row and column, such "
            "as r1c2=3 r2c1=4, and nothing after them:\n",
            "Sudoku, {size}x{size}, . is empty:\n"
            "{puzzle}\n"
            "This answer was wrong:\n{answer}\n"
            "Right digits, as r<row>c<column>=<digit>, on the last line:\n",
        )
    ),
    "reasoner": Role(
        (
            "{puzzle}\n"
            f"{_RULE}\n"
            "With what a helper proposes:\n{filled}\n"
            "All {size} rows, digits only:\n",
            f"Solve this Sudoku. {_RULE} Dots are empty; the other cells must stay.\n"
            "{puzzle}\n"
            "A helper, who may be wrong, proposes {proposal}.\n"
            "Think if you like, then end with the {size} rows of the whole grid, digits only:\n",
            "Sudoku, {size}x{size}, . is empty:\n"
            "{puzzle}\n"
            "Proposed: {proposal}\n"
            "This answer was wrong:\n{answer}\n"
            "The right grid, {size} lines of {size} digits, last:\n",
        )
    ),
}


class SudokuProblem(TurnProblem):
    """A puzzle, the current proposal, and the last answer.

    Args:
        size: number of cells per side.
        puzzle: the cells; 0 is a hole.
        solution: the only grid that completes the puzzle.
    """

    roles = ROLES

    def __init__(self, size: int, puzzle: Grid, solution: Grid) -> None:
        self._size, self._puzzle, self._solution = size, puzzle, solution
        self._proposal: dict[int, int] = {}
        self._answer: Grid | None = None

    @property
    def key(self) -> str:
        return self._text(self._puzzle)

    @property
    def is_solved(self) -> bool:
        return self._answer == self._solution

    def fields(self, role: str) -> dict[str, str]:
        self.check_role(role)
        common = {
            "puzzle": self.key,
            "answer": self._text(self._answer) if self._answer else "none",
            "size": str(self._size),
            "box": str(math.isqrt(self._size)),
        }
        if role == "tool":
            return common
        filled = [self._proposal.get(cell, digit) for cell, digit in enumerate(self._puzzle)]
        return common | {
            "proposal": self._notation(self._proposal) or "nothing",
            "filled": self._text(filled),
        }

    def act(self, role: str, response: str) -> Reward:
        self.check_turn(role)
        return self._propose(response) if role == "tool" else self._solve(response)

    def demonstration(self, role: str) -> str:
        self.check_role(role)
        if role == "reasoner":
            return self._text(self._solution)
        return self._notation({hole: self._solution[hole] for hole in self._holes()})

    def _propose(self, response: str) -> Reward:
        """Store a proposal; the reward is the share of right minus wrong holes, at least -1."""
        cells = self._cells(response)
        self._proposal = {cell: digit for cell, digit in cells if not self._puzzle[cell]}
        if not cells:
            return MALFORMED
        # contradicting a given digit is wrong; repeating it earns nothing
        wrong = {(cell, digit) for cell, digit in cells if self._solution[cell] != digit}
        right = {(cell, digit) for cell, digit in cells if not self._puzzle[cell]} - wrong
        share = (len(right) - len(wrong)) / len(self._holes())
        return Reward(max(-1.0, share), local=0.0)

    def _solve(self, response: str) -> Reward:
        """Check an answer; a right one earns 1, another that keeps the given digits earns less."""
        self._proposal = {}
        answer = self._grid(response)
        if answer is None:
            return MALFORMED
        if any(given not in (0, digit) for given, digit in zip(self._puzzle, answer, strict=True)):
            return Reward(team=0.0, local=0.0)
        self._answer = answer
        holes = self._holes()
        right = sum(answer[hole] == self._solution[hole] for hole in holes)
        wrong = len(holes) - right
        return Reward(max(0.0, (right - WRONG_COST * wrong) / len(holes)), local=0.0)

    def _cells(self, response: str) -> list[tuple[int, int]]:
        """Return the cells and digits at the end of a response, after its last other word."""
        cells = []
        for word in reversed(response.replace(",", " ").split()):
            found = _CELL.fullmatch(word)
            numbers = [int(number) for number in found.groups()] if found else [self._size + 1]
            if max(numbers) > self._size:
                break
            row, column, digit = numbers
            cells.append(((row - 1) * self._size + column - 1, digit))
        return cells[::-1]

    def _grid(self, response: str) -> Grid | None:
        """Return the grid of the last lines; None if they are not rows of digits."""
        lines = response.rstrip().rsplit("\n", self._size)[-self._size :]
        rows = ["".join(line.split()) for line in lines]
        if any(len(row) != self._size for row in rows):
            return None
        digits = "".join(rows)
        known = {str(digit) for digit in range(1, self._size + 1)}
        if len(rows) != self._size or not set(digits) <= known:
            return None
        return tuple(map(int, digits))

    def _holes(self) -> list[int]:
        return [cell for cell, digit in enumerate(self._puzzle) if not digit]

    def _text(self, cells: Grid | list[int]) -> str:
        digits = "".join(str(digit) if digit else "." for digit in cells)
        rows = range(0, len(digits), self._size)
        return "\n".join(digits[row : row + self._size] for row in rows)

    def _notation(self, cells: Mapping[int, int]) -> str:
        return " ".join(
            f"r{cell // self._size + 1}c{cell % self._size + 1}={digit}"
            for cell, digit in sorted(cells.items())
        )


@TASKS.register("sudoku")
class SudokuTask(Task):
    """Puzzles with exactly one solution.

    Args:
        config: the size and the number of holes.
    """

    name = "sudoku"
    roles = ROLES

    def __init__(self, config: SudokuConfig) -> None:
        self._config = config

    def draw(self, generator: random.Random) -> SudokuProblem:
        size = self._config.size
        return SudokuProblem(size, *draw_grids(generator, size, self._config.holes))
