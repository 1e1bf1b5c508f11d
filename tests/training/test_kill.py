"""A run that the operating system kills, at moments that only it can choose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine_config import make_config
from test_loop import results

from heteromark.training.loop import train

# argv: folder, and what to be killed at: "iteration:3", or "write:5" for the moment before the
# fifth atomic write is moved into place
RUN = """
import os, signal, sys
from pathlib import Path
from engine_config import make_config
from heteromark.training.loop import train

kind, number = sys.argv[2].split(":")

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def on_progress(frames, total, metrics):
    if kind == "iteration" and metrics["iteration"] == int(number):
        kill()

replace, writes = Path.replace, 0

def watched(self, target):
    global writes
    writes += 1
    if kind == "write" and writes == int(number):
        kill()
    return replace(self, target)

Path.replace = watched
config = make_config(training__total_frames=7 * 64, evaluation__interval=1)
train(config, Path(sys.argv[1]), on_progress=on_progress)
"""


@pytest.mark.slow
def test_a_killed_run_ends_the_same(tmp_path):
    config = make_config(training__total_frames=7 * 64, evaluation__interval=1)
    train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    helpers = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": helpers}
    # An attempt writes best.pt if there is one and metrics.csv, then by turns a checkpoint and
    # best.pt: so these are before the first checkpoint, between it and best.pt, in training,
    # before the second checkpoint, between it and best.pt, and after it.
    for moment in ("write:2", "write:3", "iteration:3", "write:3", "write:4", "iteration:5"):
        killed = subprocess.run(
            [sys.executable, "-c", RUN, str(folder), moment], env=environment, check=False
        )
        assert killed.returncode == -signal.SIGKILL, moment
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")
