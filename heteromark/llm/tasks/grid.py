"""Square grids with walls, and distances in them."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

WALL, FREE = "#", "."
# (row, column) step of each move, in the order that shortest paths prefer
MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}

# row and column, from 0 at the top left
Cell = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """A square of cells, some of them walls.

    Attributes:
        rows: one string per row, of `WALL` and `FREE` characters.
    """

    rows: tuple[str, ...]

    def step(self, cell: Cell, move: str) -> Cell:
        """Return the cell after a move; walls and the border block it."""
        row, column = cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]
        size = len(self.rows)
        if not (0 <= row < size and 0 <= column < size) or self.rows[row][column] == WALL:
            return cell
        return row, column

    def distances(self, start: Cell) -> dict[Cell, int]:
        """Return the shortest-path length to every reachable cell, nearest first."""
        found = {start: 0}
        waiting = deque([start])
        while waiting:
            cell = waiting.popleft()
            for move in MOVES:
                neighbour = self.step(cell, move)
                if neighbour not in found:
                    found[neighbour] = found[cell] + 1
                    waiting.append(neighbour)
        return found

    def picture(self, marks: dict[Cell, str]) -> str:
        """Return the grid as text, one line per row, with marks on some cells."""
        return "\n".join(
            "".join(marks.get((i, j), cell) for j, cell in enumerate(row))
            for i, row in enumerate(self.rows)
        )


def random_grid(size: int, walls: float, generator: random.Random) -> Grid:
    """Draw a grid of `size` times `size` cells with a share of `walls` walls, rounded."""
    cells = size * size
    chosen = set(generator.sample(range(cells), round(walls * cells)))
    text = "".join(WALL if cell in chosen else FREE for cell in range(cells))
    return Grid(tuple(text[row * size : (row + 1) * size] for row in range(size)))
