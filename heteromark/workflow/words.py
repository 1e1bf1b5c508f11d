"""Format counts, frames and metrics for pages, plots and messages."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """Return a number with a noun: `1 seed`, `1,234 seeds`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def frames_range(lengths: Iterable[int]) -> str:
    """Return `10,000`, or `10,000 to 12,000` if runs differ in length."""
    frames = set(lengths)
    return " to ".join(f"{number:,}" for number in sorted({min(frames), max(frames)}))


def words(name: str) -> str:
    """Return a column name with spaces: `evaluation return`."""
    return name.replace("_", " ")


def unit(metric: str) -> str:
    """Return the unit of a selection metric."""
    return "share of episodes" if metric == "win_rate" else "reward per episode"
