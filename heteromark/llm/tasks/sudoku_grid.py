"""Sudoku grids: enumerate completions, and draw grids and puzzles with a unique solution."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import cache

# The cells of a grid, row by row; 0 is a hole.
Grid = tuple[int, ...]


@cache
def peers(size: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each cell, the other cells in its row, column and box."""
    box = math.isqrt(size)

    def units(cell: int) -> tuple[int, int, tuple[int, int]]:
        row, column = divmod(cell, size)
        return row, column, (row // box, column // box)

    cells = range(size**2)
    return tuple(
        tuple(
            other
            for other in cells
            if other != cell and any(a == b for a, b in zip(units(cell), units(other), strict=True))
        )
        for cell in cells
    )


def digits_for(cells: Sequence[int], cell: int, size: int) -> list[int]:
    """Return the digits that do not occur in the row, column or box of a cell."""
    taken = {cells[peer] for peer in peers(size)[cell]}
    return [digit for digit in range(1, size + 1) if digit not in taken]


def completions(
    cells: Sequence[int], size: int, generator: random.Random | None = None
) -> Iterator[Grid]:
    """Yield all ways to fill the holes; in random order if a generator is given."""
    hole: int | None = None
    options = list(range(size + 1))
    for cell, digit in enumerate(cells):
        if not digit and len(here := digits_for(cells, cell, size)) < len(options):
            hole, options = cell, here
            if len(options) < 2:
                break
    if hole is None:
        yield tuple(cells)
        return
    options = generator.sample(options, len(options)) if generator else options
    for digit in options:
        filled = list(cells)
        filled[hole] = digit
        yield from completions(filled, size, generator)


def draw_grids(generator: random.Random, size: int, max_holes: int) -> tuple[Grid, Grid]:
    """Draw a puzzle with a unique solution, and the solution.

    Args:
        generator: source of randomness.
        size: number of cells per side, a square number.
        max_holes: number of holes; the puzzle has fewer if more would make it ambiguous.
    """
    solution = next(completions([0] * size**2, size, generator))
    puzzle = list(solution)
    n_holes = 0
    for cell in generator.sample(range(size**2), size**2):
        if n_holes == max_holes:
            break
        puzzle[cell] = 0
        if _has_other(puzzle, cell, solution[cell], size):
            puzzle[cell] = solution[cell]
        else:
            n_holes += 1
    return tuple(puzzle), solution


def _has_other(cells: list[int], cell: int, digit: int, size: int) -> bool:
    """Return whether the holes can be filled with another digit in this cell."""
    return any(
        next(completions([*cells[:cell], other, *cells[cell + 1 :]], size), None)
        for other in digits_for(cells, cell, size)
        if other != digit
    )
