"""A copy of the project's configuration, to compose from and to write to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import ROOT


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's config/ and params.yaml, to be written to."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


@pytest.fixture
def in_project(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the project, with a run store of the test's own."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("HETEROMARK_STORE", str(tmp_path / "store"))
