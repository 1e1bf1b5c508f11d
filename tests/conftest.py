"""Shared fixtures: a separate run store per test, and a project to run commands in."""

from __future__ import annotations

import math
import os
import signal
from collections import defaultdict
from pathlib import Path

import pytest
import warm
from hypothesis import settings
from projects import TINY, Project, copy_project

# Workers share the cores: torch must not start a thread per core in each of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """Prepare `warm`, and restore SIGINT for programs under test: a shell's `&` makes a process and its children ignore it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        warm.prepare()  # one server for all workers
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # hypothesis' limit of 200 ms per example is sometimes exceeded when another worker is busy
    settings.register_profile("shared_machine", deadline=None)
    settings.load_profile("shared_machine")


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave some variants of a test in the short tier."""
    variants = defaultdict(list)
    for item in items:
        if item.get_closest_marker("mostly_slow"):
            variants[item.nodeid.partition("[")[0]].append(item)
    for group in variants.values():
        (short,) = group[0].get_closest_marker("mostly_slow").args
        for number, item in enumerate(group):
            if number % math.ceil(len(group) / short):
                item.add_marker("slow")


LONGEST = (
    "test_histories",
    "test_docs",
    "test_contract",
    "test_text_workflow",
    "test_dvc_repro",
    "test_halving_by",
)


@pytest.hookimpl(tryfirst=True)  # before xdist reports the order to its controller
def pytest_collection_finish(session: pytest.Session) -> None:
    """Let each worker start with some of the longest tests: xdist deals out equal slices."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in session.items if any(name in item.nodeid for name in LONGEST)]
    chosen = set(long)
    others = [item for item in session.items if item not in chosen]
    size = math.ceil(len(session.items) / workers)
    ordered = []
    for worker in range(workers):
        first = long[worker::workers]
        ordered += first + others[: size - len(first)]
        del others[: size - len(first)]
    session.items[:] = ordered + others


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate run store for this test, never the user's."""
    store = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("HETEROMARK_STORE", str(store))
    return store


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the repository's configs and very short runs."""
    copy = copy_project(tmp_path / "project")
    copy.set_params(**TINY)
    return copy
