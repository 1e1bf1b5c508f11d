"""metrics.csv of runs that may still be training, and learning curves over a config's seeds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from heteromark.workflow.statistics import bootstrap_interval

# A row has some thousand bytes at most; the newest whole one is found in the last part of the file.
TAIL_BYTES = 65_536
# More points than a chart has room for only make it slow: a line is then drawn through bin means.
MAX_POINTS = 200

Axis = Literal["frames", "time"]
COLUMN_OF_AXIS: dict[Axis, str] = {"frames": "frames", "time": "time_elapsed"}

Line = tuple[np.ndarray, np.ndarray]


def read_metrics(path: Path) -> pd.DataFrame:
    """All whole rows of a metrics.csv, in floats; NaN where nothing was measured.

    A run that has just begun has an empty table. The row that a training process is writing at
    this moment is left for the next look.

    Raises:
        OSError: the file cannot be read; a run that failed early has none.
        ValueError: it is no table of numbers.
    """
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return pd.DataFrame()
    return pd.read_csv(io.StringIO(whole), dtype="float64")


def newest_row(path: Path) -> dict[str, float]:
    """The last whole row of a metrics.csv, by column; empty where there is none.

    Reads the header and the end of the file only.

    Raises:
        OSError: the file cannot be read.
        ValueError: the row is not one of numbers.
    """
    with path.open("rb") as file:
        header = file.readline()
        size = file.seek(0, io.SEEK_END)
        file.seek(max(len(header), size - TAIL_BYTES))
        *whole, _ = file.read().split(b"\n")
    if not whole:
        return {}
    columns, row = csv.reader([header.decode(), whole[-1].decode()])
    if len(columns) != len(row):
        raise ValueError(f"{path}: its last row has {len(row)} cells for {len(columns)} columns")
    return {name: float(cell or math.nan) for name, cell in zip(columns, row, strict=True)}


def metric_names(table: pd.DataFrame) -> list[str]:
    """Metrics without their groups, in the order of the columns: `entropy` of `entropy/marine`."""
    return list(dict.fromkeys(column.partition("/")[0] for column in table.columns))


def columns_of(table: pd.DataFrame, metric: str) -> dict[str, str]:
    """Columns of a metric by the group each belongs to; "" where it has no groups."""
    split = {column: column.partition("/") for column in table.columns}
    return {group: column for column, (name, _, group) in split.items() if name == metric}


def metric_values(table: pd.DataFrame, metric: str) -> np.ndarray:
    """A metric `[rows]`, the mean over the groups that measured it; NaN where none did."""
    columns = list(columns_of(table, metric).values())
    if not columns:
        return np.full(len(table), np.nan)
    return table[columns].mean(axis=1).to_numpy()


def thinned(x: np.ndarray, y: np.ndarray) -> Line:
    """The finite points of a line, at most `MAX_POINTS`: of longer ones the means of equal bins."""
    measured = np.isfinite(x) & np.isfinite(y)
    x, y = x[measured], y[measured]
    if len(x) <= MAX_POINTS:
        return x, y
    bins = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[part].mean() for part in bins]), np.array([y[part].mean() for part in bins])


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
