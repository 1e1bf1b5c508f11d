"""How counts, frames and metrics are said, on pages, in plots and in messages."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """`1 seed`, `1,234 seeds`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def frames_range(lengths: Iterable[int]) -> str:
    """`10,000`, or `10,000 to 12,000` where runs differ in length."""
    frames = set(lengths)
    return " to ".join(f"{number:,}" for number in sorted({min(frames), max(frames)}))


def words(name: str) -> str:
    """The name of a column as one says it."""
    return name.replace("_", " ")


def unit(metric: str) -> str:
    """What a metric of the selection is counted in."""
    return "share of episodes" if metric == "win_rate" else "reward per episode"
