"""metrics.csv: how a run came along, one row per iteration."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import WALL_CLOCK_COLUMNS

# Receives the frames so far, the total frames and the metrics of an iteration.
OnProgress = Callable[[int, int, dict[str, float]], None]


class MetricsFile:
    """metrics.csv: one row per iteration, in full precision. A missing value is an empty cell.

    Args:
        path: the file. Rows after the first `keep` are deleted.
        keep: number of iterations completed so far.

    Raises:
        ValueError: the file has fewer than `keep` rows.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self._path = path
        self._columns: list[str] = []
        if keep:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            if len(lines) < keep + 1:
                raise ValueError(
                    f"{path} has {max(len(lines) - 1, 0)} rows, but the run's checkpoint was taken "
                    f"after iteration {keep}; delete the checkpoints/ folder next to it to train "
                    "from scratch"
                )
            self._columns = next(csv.reader(lines[:1]))
            write_text_atomic(path, "\n".join(lines[: keep + 1]) + "\n")
        else:
            write_text_atomic(path, "")

    def append(self, metrics: Mapping[str, float | int]) -> None:
        """Add a row. The keys of the first row become the columns, wall-clock columns last."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._columns:
            measured = [name for name in metrics if name not in WALL_CLOCK_COLUMNS]
            self._columns = [*measured, *WALL_CLOCK_COLUMNS]
            writer.writerow(self._columns)
        writer.writerow([_cell(metrics[name]) for name in self._columns])
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())

    def sync(self) -> None:
        """Flush all rows to disk. Call it before writing a checkpoint, which relies on them."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def column(self, name: str) -> list[float]:
        """Return the values of a column; NaN for empty cells."""
        return [row[name] for row in self.rows()]

    def rows(self) -> list[dict[str, float]]:
        """Return all rows; NaN for empty cells."""
        with self._path.open(encoding="utf-8", newline="") as file:
            return [
                {name: float(value or "nan") for name, value in row.items()}
                for row in csv.DictReader(file)
            ]

    def final_return(self) -> float | None:
        """Return the mean episode return over the last tenth of the rows; None if none ended."""
        returns = self.column("episode_return")
        last_tenth = returns[-math.ceil(len(returns) / 10) :] if returns else []
        known = [value for value in last_tenth if math.isfinite(value)]
        return sum(known) / len(known) if known else None


def _cell(value: float | int) -> str:
    return "" if math.isnan(value) else repr(value)
