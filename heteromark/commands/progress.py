"""Progress of a training run: a bar in a terminal, a line every few seconds in a log."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from heteromark.config.models.run import RunConfig
from heteromark.runs.metrics import OnProgress

log = logging.getLogger("heteromark")

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_of(config: RunConfig) -> Iterator[OnProgress]:
    """Yield the function that the training loop calls after each iteration."""
    name = f"{config.agent.short_name} seed {config.seed}"
    if not log.isEnabledFor(logging.INFO):
        yield lambda *_: None
    elif sys.stderr.isatty():
        total = config.num_iterations * config.collector.frames_per_batch
        with _bar(name, total) as show:
            yield show
    else:
        yield _lines(name)


@contextmanager
def _bar(name: str, total_frames: int) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} frames"),
        TextColumn("{task.fields[returns]}"),
        TextColumn("{task.fields[speed]} frames/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        figures = _Figures()
        task = progress.add_task(
            name, total=total_frames, returns=figures.returns, speed=figures.speed
        )

        def show(frames: int, _total_frames: int, metrics: dict[str, float]) -> None:
            figures.update(metrics)
            progress.update(task, completed=frames, returns=figures.returns, speed=figures.speed)

        yield show


def _lines(name: str) -> OnProgress:
    last = time.monotonic()
    figures = _Figures()

    def show(frames: int, total_frames: int, metrics: dict[str, float]) -> None:
        nonlocal last
        figures.update(metrics)
        if frames < total_frames and time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        log.info(
            "%s: %d/%d frames (%.0f %%), %s, %s frames/s",
            name,
            frames,
            total_frames,
            100 * frames / total_frames,
            figures.returns,
            figures.speed,
        )

    return show


class _Figures:
    """The latest known figures, formatted. A NaN does not replace an earlier value."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}

    def update(self, metrics: Mapping[str, float]) -> None:
        self._latest |= {name: x for name, x in metrics.items() if not math.isnan(x)}

    @property
    def returns(self) -> str:
        evaluated = self._latest.get("evaluation_return")
        evaluation = "" if evaluated is None else f", evaluation {evaluated:.2f}"
        trained = self._latest.get("episode_return")
        return f"return {'-' if trained is None else f'{trained:.2f}'}{evaluation}"

    @property
    def speed(self) -> str:
        speed = self._latest.get("frames_per_second")
        return "-" if speed is None else f"{speed:,.0f}"
