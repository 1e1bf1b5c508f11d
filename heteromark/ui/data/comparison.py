"""Learning curves side by side: the mean over a config's seeds, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from heteromark.ui.data.metrics import MAX_POINTS, metric_values, thinned
from heteromark.workflow.statistics import bootstrap_interval

Axis = Literal["frames", "time"]
COLUMN_OF_AXIS: dict[Axis, str] = {"frames": "frames", "time": "time_elapsed"}

Line = tuple[np.ndarray, np.ndarray]


def line_of(table: pd.DataFrame, metric: str, axis: Axis) -> Line:
    """Where a run's metric was measured, at most `MAX_POINTS` points: x and y.

    Args:
        axis: frames, or time: seconds of training.
    """
    column = COLUMN_OF_AXIS[axis]
    if column not in table:
        return np.empty(0), np.empty(0)
    return thinned(table[column].to_numpy(), metric_values(table, metric))


def band_of(lines: Sequence[Line]) -> pd.DataFrame:
    """Mean of several seeds' lines, and the bootstrap 95 % interval of that mean.

    Each line is interpolated between its first and its last point, never beyond: where some seeds
    have not come that far, the mean is over the others, and `seeds` says over how many.

    Returns:
        Columns x, mean, low, high, seeds; low and high are NaN where there is one seed.
    """
    lines = [line for line in lines if len(line[0])]
    if not lines:
        return pd.DataFrame(columns=["x", "mean", "low", "high", "seeds"], dtype=float)
    grid = np.unique(np.concatenate([x for x, _ in lines]))
    if len(grid) > MAX_POINTS:
        grid = np.linspace(grid[0], grid[-1], MAX_POINTS)
    values = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in lines])
    rows = []
    for at, column in zip(grid, values.T, strict=True):
        present = column[np.isfinite(column)]
        if len(present):
            low, high = bootstrap_interval(present, "mean") or (np.nan, np.nan)
            rows.append((at, present.mean(), low, high, len(present)))
    return pd.DataFrame(rows, columns=["x", "mean", "low", "high", "seeds"])
