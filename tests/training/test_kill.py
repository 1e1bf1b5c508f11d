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
train(make_config(training__total_frames=7 * 64), Path(sys.argv[1]), on_progress=on_progress)
"""


@pytest.mark.slow
def test_a_killed_run_ends_the_same(tmp_path):
    config = make_config(training__total_frames=7 * 64)
    train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    helpers = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": helpers}
    # writes: 1 is metrics.csv at the start of each attempt, 2 the attempt's first checkpoint
    for moment in ("iteration:1", "iteration:3", "write:2", "write:3", "iteration:6", "write:3"):
        killed = subprocess.run(
            [sys.executable, "-c", RUN, str(folder), moment], env=environment, check=False
        )
        assert killed.returncode == -signal.SIGKILL, moment
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")
