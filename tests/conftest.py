"""Shared fixtures: a run store of the tests' own, and a project to run commands in."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings
from projects import TINY, Project, copy_project


def pytest_configure() -> None:
    """Let programs under test feel ctrl-C: what a shell starts with `&` ignores it, and passes it on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # hypothesis' 200 ms for an example are exceeded now and then where another worker is busy
    settings.register_profile("shared_machine", deadline=None)
    settings.load_profile("shared_machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest, so that two workers end together."""
    longest = ("test_docs", "test_contract")
    items.sort(key=lambda item: next((i for i, n in enumerate(longest) if n in item.nodeid), 9))


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run store of this test's own, never the user's."""
    store = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("HETEROMARK_STORE", str(store))
    return store


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the repository's configs and very short runs."""
    made = copy_project(tmp_path / "project")
    made.set_params(**TINY)
    return made
