"""Stores with synthetic runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_history import RunSpec, agent, make_run, run_config
from playwright.sync_api import Browser
from serving import CHROMIUM, browsing

from heteromark.runs.record import METRICS_FILE, Status
from heteromark.runs.store import RunStore


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser that draws nothing on a screen."""
    if CHROMIUM is None:
        pytest.skip("the tests of pages need Chromium; on Debian: apt-get install chromium")
    with browsing() as browser:
        yield browser


@pytest.fixture
def store(own_store: Path) -> RunStore:
    """The empty store of the test, which the pages use by default."""
    return RunStore(own_store)


@pytest.fixture
def three_seeds(store: RunStore) -> list[Path]:
    """Folders of three completed seeds of one config."""
    config = run_config(agent("happo_agent_v1"))
    return [make_run(store, RunSpec(config.model_copy(update={"seed": seed}))) for seed in range(3)]


@pytest.fixture
def training(store: RunStore):
    """Start a simulated training of a seed; returns its digest and its process, killed at the end.

    The process has written its first row when the function returns.
    """
    processes = []

    def start(seed: int = 0, seconds: float = 600.0) -> tuple[str, subprocess.Popen]:
        config = run_config(agent("happo_agent_v1"), seed=seed)
        spec = RunSpec(config, started=datetime.now(UTC), status=Status.RUNNING)
        folder = make_run(store, spec)
        (folder / METRICS_FILE).rename(folder / "rows.csv")
        script = Path(__file__).with_name("pretended_training.py")
        process = subprocess.Popen(
            [sys.executable, script, folder.name, str(seconds)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "1\n"
        return folder.name, process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
