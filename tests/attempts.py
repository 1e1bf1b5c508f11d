"""Helpers to interrupt runs and to compare their results."""

from __future__ import annotations

import csv

from heteromark.runs.record import WALL_CLOCK_COLUMNS


class Crash(Exception):
    """Stands for anything that ends a process."""


def rows(folder, wall_clock=False):
    """Return the rows of metrics.csv, without columns that depend on the machine's speed."""
    with (folder / "metrics.csv").open() as file:
        return [
            {k: v for k, v in row.items() if wall_clock or k not in WALL_CLOCK_COLUMNS}
            for row in csv.DictReader(file)
        ]


def results(folder):
    """Return all results that must not depend on how often a run was interrupted."""
    best = folder / "best.pt"
    return (
        rows(folder),
        (folder / "checkpoint.pt").read_bytes(),
        (folder / "evaluation.json").read_text(),
        best.read_bytes() if best.exists() else None,
    )


def crash_at(iteration):
    def on_progress(frames, total, metrics):
        if metrics["iteration"] == iteration:
            raise Crash

    return on_progress
