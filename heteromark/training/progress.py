"""Progress of a training run: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from heteromark.config.schema import RunConfig

log = logging.getLogger("heteromark")

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_of(config: RunConfig) -> Iterator[Callable[[int, int, dict], None]]:
    """Yield the function that the training loop calls after each iteration."""
    name = f"{config.agent.short_name} seed {config.seed}"
    if sys.stderr.isatty():
        total = config.num_iterations * config.collector.frames_per_batch
        with _bar(name, total) as show:
            yield show
    else:
        yield _lines(name)


@contextmanager
def _bar(name: str, total_frames: int) -> Iterator[Callable[[int, int, dict], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} frames"),
        TextColumn("return {task.fields[episode_return]}"),
        TextColumn("{task.fields[speed]} frames/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total_frames, episode_return="-", speed="-")

        def show(frames: int, _total_frames: int, metrics: dict) -> None:
            progress.update(task, completed=frames, **_figures(metrics))

        yield show


def _lines(name: str) -> Callable[[int, int, dict], None]:
    last = time.monotonic()

    def show(frames: int, total_frames: int, metrics: dict) -> None:
        nonlocal last
        if frames < total_frames and time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        figures = _figures(metrics)
        log.info(
            "%s: %d/%d frames (%.0f %%), return %s, %s frames/s",
            name,
            frames,
            total_frames,
            100 * frames / total_frames,
            figures["episode_return"],
            figures["speed"],
        )

    return show


def _figures(metrics: dict) -> dict[str, str]:
    episode_return, speed = metrics.get("episode_return"), metrics.get("frames_per_second")
    return {
        "episode_return": "-" if episode_return is None else f"{episode_return:.2f}",
        "speed": "-" if speed is None else f"{speed:,.0f}",
    }
