"""metrics.csv: how a run came along, one row per iteration."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import WALL_CLOCK_COLUMNS

logger = logging.getLogger("heteromark")

# Receives the frames so far, the total frames and the metrics of an iteration.
OnProgress = Callable[[int, int, dict[str, float]], None]


class MetricsFile:
    """metrics.csv: one row per iteration, in full precision. A missing value is an empty cell.

    The file is only written. What is read comes from memory, so that damage to the file cannot
    reach a result.

    Args:
        path: the file.
        content: replaces the file's content: its `text` at the checkpoint that a run resumes from.
    """

    def __init__(self, path: Path, content: str = "") -> None:
        self._path = path
        self._text = io.StringIO(content)
        self._text.seek(0, io.SEEK_END)
        self._columns: list[str] = next(csv.reader([content.partition("\n")[0]]), [])
        write_text_atomic(path, content)

    @property
    def text(self) -> str:
        """The content that the file should have."""
        return self._text.getvalue()

    def append(self, metrics: Mapping[str, float | int]) -> None:
        """Add a row. The keys of the first row become the columns, wall-clock columns last."""
        added = io.StringIO()
        writer = csv.writer(added, lineterminator="\n")
        if not self._columns:
            measured = [name for name in metrics if name not in WALL_CLOCK_COLUMNS]
            self._columns = [*measured, *WALL_CLOCK_COLUMNS]
            writer.writerow(self._columns)
        writer.writerow([_cell(metrics[name]) for name in self._columns])
        self._text.write(added.getvalue())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(added.getvalue())

    def finish(self) -> None:
        """Write the file durably, and report it if something else had changed it."""
        if not self._path.is_file() or self._path.read_bytes() != self.text.encode():
            logger.warning("%s was changed by something else; it is written again", self._path)
        write_text_atomic(self._path, self.text)

    def column(self, name: str) -> list[float]:
        """Return the values of a column; NaN for empty cells."""
        return [row[name] for row in self.rows()]

    def rows(self) -> list[dict[str, float]]:
        """Return all rows; NaN for empty cells."""
        return [
            {name: float(value or "nan") for name, value in row.items()}
            for row in csv.DictReader(io.StringIO(self.text))
        ]

    def final_return(self) -> float | None:
        """Return the mean episode return over the last tenth of the rows; None if none ended."""
        returns = self.column("episode_return")
        last_tenth = returns[-math.ceil(len(returns) / 10) :] if returns else []
        known = [value for value in last_tenth if math.isfinite(value)]
        return sum(known) / len(known) if known else None


def _cell(value: float | int) -> str:
    return "" if math.isnan(value) else repr(value)
