"""Read metrics.csv, also of runs that are training, and average learning curves over seeds."""

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

# How much of the end of a file is read to find the last complete row. Rows have a few kB at most.
TAIL_BYTES = 65_536
# Longer lines are drawn through the means of this many bins: more points only make charts slow.
MAX_POINTS = 200

Axis = Literal["frames", "time"]
COLUMN_OF_AXIS: dict[Axis, str] = {"frames": "frames", "time": "time_elapsed"}

Line = tuple[np.ndarray, np.ndarray]


def read_metrics(path: Path) -> pd.DataFrame:
    """Return all complete rows of a metrics.csv as floats; NaN where nothing was measured.

    A run that has just started has an empty table. An incomplete last row, which the training
    process is still writing, is ignored.

    Raises:
        OSError: the file cannot be read; a run that failed early has none.
        ValueError: the file is not a table of numbers.
    """
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return pd.DataFrame()
    return pd.read_csv(io.StringIO(whole), dtype="float64")


def newest_row(path: Path) -> dict[str, float]:
    """Return the last complete row of a metrics.csv, by column; empty if there is none.

    Only the header and the end of the file are read.

    Raises:
        OSError: the file cannot be read.
        ValueError: a value is not a number, or the number of cells is wrong.
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
        raise ValueError(f"{path}: the last row has {len(row)} cells for {len(columns)} columns")
    return {name: float(cell or math.nan) for name, cell in zip(columns, row, strict=True)}


def metric_names(table: pd.DataFrame) -> list[str]:
    """Return metric names without groups, in column order: `entropy` for `entropy/marine`."""
    return list(dict.fromkeys(column.partition("/")[0] for column in table.columns))


def columns_of(table: pd.DataFrame, metric: str) -> dict[str, str]:
    """Return the columns of a metric by group; the group is "" if the metric has no groups."""
    split = {column: column.partition("/") for column in table.columns}
    return {group: column for column, (name, _, group) in split.items() if name == metric}


def metric_values(table: pd.DataFrame, metric: str) -> np.ndarray:
    """Return a metric `[rows]`: the mean over the groups that measured it; NaN if none did."""
    columns = list(columns_of(table, metric).values())
    if not columns:
        return np.full(len(table), np.nan)
    return table[columns].mean(axis=1).to_numpy()


def thinned(x: np.ndarray, y: np.ndarray) -> Line:
    """Return the finite points of a line; more than `MAX_POINTS` are averaged in equal bins."""
    measured = np.isfinite(x) & np.isfinite(y)
    x, y = x[measured], y[measured]
    if len(x) <= MAX_POINTS:
        return x, y
    bins = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[part].mean() for part in bins]), np.array([y[part].mean() for part in bins])


def line_of(table: pd.DataFrame, metric: str, axis: Axis) -> Line:
    """Return x and y of a run's metric where it was measured, at most `MAX_POINTS` points.

    Args:
        axis: `frames`, or `time` (seconds of training).
    """
    column = COLUMN_OF_AXIS[axis]
    if column not in table:
        return np.empty(0), np.empty(0)
    return thinned(table[column].to_numpy(), metric_values(table, metric))


def band_of(lines: Sequence[Line]) -> pd.DataFrame:
    """Return the mean of the lines of several seeds, with its bootstrap 95 % interval.

    Each line is interpolated between its first and last point, never extrapolated. Beyond the end
    of a shorter line, the mean is over the remaining seeds; `seeds` is their number.

    Returns:
        Columns x, mean, low, high, seeds; low and high are NaN with one seed.
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
