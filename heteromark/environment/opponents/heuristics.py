"""Simple players of tic-tac-toe and connect four: win, else block, else take the best cell."""

from __future__ import annotations

import numpy as np


def _lines(rows: int, columns: int, length: int) -> np.ndarray:
    """Return all straight lines on a board, [lines, length], as cell indices in row-major order."""
    lines = [
        [(row + step * down) * columns + column + step * right for step in range(length)]
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))
        for row in range(rows)
        for column in range(columns)
        if row + (length - 1) * down < rows and 0 <= column + (length - 1) * right < columns
    ]
    return np.array(lines)


_TIC_TAC_TOE = _lines(3, 3, 3)
_CONNECT_FOUR = _lines(6, 7, 4)
_CENTRE, _CORNERS = 4, (0, 2, 6, 8)


def tic_tac_toe(observation: np.ndarray, legal: np.ndarray, generator: np.random.Generator) -> int:
    """Choose a cell, in this order: win, block, centre, a corner, an edge.

    Args:
        observation: [3, 3, 2], own marks and the opponent's.
        legal: bool [9].
        generator: breaks ties.
    """
    playable = set(np.flatnonzero(legal).tolist())
    completing = _completing(observation, _TIC_TAC_TOE, playable)
    if completing is not None:
        return completing
    if _CENTRE in playable:
        return _CENTRE
    corners = [cell for cell in _CORNERS if cell in playable]
    return int(generator.choice(corners or sorted(playable)))


def connect_four(observation: np.ndarray, legal: np.ndarray, generator: np.random.Generator) -> int:
    """Choose a column, in this order: win, block, nearest to the centre.

    Args:
        observation: [6, 7, 2], own pieces and the opponent's; the last row is the lowest.
        legal: bool [7].
        generator: breaks ties.
    """
    free = (~observation.any(-1)).sum(0)  # free cells of each column, above its pieces
    columns = np.flatnonzero(legal)
    landing = {int((free[column] - 1) * 7 + column) for column in columns}
    completing = _completing(observation, _CONNECT_FOUR, landing)
    if completing is not None:
        return completing % 7
    distance = np.abs(columns - 3)
    return int(generator.choice(columns[distance == distance.min()]))


def _completing(observation: np.ndarray, lines: np.ndarray, playable: set[int]) -> int | None:
    """Return a playable cell that completes an own line, or else an opponent's; None without."""
    for player in (0, 1):
        marks = observation[..., player].reshape(-1).astype(bool)
        almost = lines[marks[lines].sum(1) == lines.shape[1] - 1]
        for line in almost:
            cell = int(line[~marks[line]][0])
            if cell in playable:
                return cell
    return None
