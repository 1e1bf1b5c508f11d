"""Stores with made runs."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_history import Made, agent, make_run, run_config

from heteromark.runs.record import METRICS_FILE, Status
from heteromark.runs.store import RunStore


@pytest.fixture
def store(own_store: Path) -> RunStore:
    """The test's own store, empty; what the pages look in by default."""
    return RunStore(own_store)


@pytest.fixture
def three_seeds(store: RunStore) -> list[Path]:
    """Folders of the three seeds of one completed config."""
    config = run_config(agent("happo_agent_v1"))
    return [make_run(store, Made(config.model_copy(update={"seed": seed}))) for seed in range(3)]


@pytest.fixture
def training(store: RunStore):
    """Start a pretended training of a seed; returns its digest and its process, killed at the end.

    It has written its first row when it is handed out.
    """
    processes = []

    def start(seed: int = 0, seconds: float = 600.0) -> tuple[str, subprocess.Popen]:
        config = run_config(agent("happo_agent_v1"), seed=seed)
        made = Made(config, started=datetime.now(UTC), status=Status.RUNNING)
        folder = make_run(store, made)
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
