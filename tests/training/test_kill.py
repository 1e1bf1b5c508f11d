"""A run that is killed by SIGKILL at various points ends with the same results."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from attempts import results
from engine_config import make_config

from heteromark.training.loop import train

CONFIG = {"training__total_frames": 7 * 64, "evaluation__interval": 1}


def train_until(folder: Path, kind: str, number: int) -> None:
    """Train, and be killed after an iteration or just before an atomic write is completed."""

    def kill_at(happened: int) -> None:
        if happened == number:
            os.kill(os.getpid(), signal.SIGKILL)

    replace, writes = Path.replace, 0

    def watched(self: Path, target: Path) -> Path:
        nonlocal writes
        writes += 1
        if kind == "write":
            kill_at(writes)
        return replace(self, target)

    def on_progress(frames: int, total: int, metrics: dict) -> None:
        if kind == "iteration":
            kill_at(metrics["iteration"])

    Path.replace = watched
    train(make_config(**CONFIG), folder, on_progress=on_progress)


@pytest.mark.slow
def test_a_killed_run_ends_the_same(tmp_path):
    config = make_config(**CONFIG)
    train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    # The processes start with torch already imported.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["heteromark.training.loop"])
    # An attempt writes best.pt (if there is one) and metrics.csv, then alternately a checkpoint and
    # best.pt. So these kills come before the first checkpoint, between it and best.pt, in training,
    # before the second checkpoint, between it and best.pt, and after it.
    for kind, number in (
        ("write", 2),
        ("write", 3),
        ("iteration", 3),
        ("write", 3),
        ("write", 4),
        ("iteration", 5),
    ):
        process = context.Process(target=train_until, args=(folder, kind, number))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (kind, number)
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")
