"""A policy file from elsewhere runs no code that the user did not agree to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from engine_config import TIC_TAC_TOE, make_config
from typer.testing import CliRunner

from heteromark.cli import app
from heteromark.commands.launch import train_run
from heteromark.runs.store import RunStore
from heteromark.training.saved_policy import read_saved
from heteromark.training.trust import UntrustedCode, require_trusted


@pytest.fixture
def shipped(own_store: Path, tmp_path: Path) -> Path:
    """A run's policy file, sent to somebody whose store does not have the run."""
    config = make_config(training__total_frames=64, evaluation__episodes=1)
    train_run(config, target=tmp_path / "run")
    shutil.rmtree(own_store)
    return tmp_path / "run" / "checkpoint.pt"


def tampered(path: Path, **environment) -> Path:
    """Change the environment in a policy file, as an attacker would."""
    content = torch.load(path, weights_only=True)
    content["config"]["environment"] |= environment
    torch.save(content, path)
    return path


def evaluate(path: Path, *options: str):
    return CliRunner().invoke(app, ["evaluate", str(path), "--episodes", "1", *options])


def test_the_command_in_a_file_is_not_run(shipped, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    evil = tampered(shipped, task="os:system", kwargs={"command": f"touch {ran}"})
    refused = evaluate(evil)
    assert refused.exit_code != 0
    assert "names code to import: environment.task = 'os:system'" in str(refused.exception)
    assert "--trust" in str(refused.exception)
    assert not ran.exists()
    monkeypatch.setenv("HETEROMARK_TRUST", "")  # restored after the test, which sets it
    evaluate(evil, "--trust")
    assert ran.exists()


@pytest.mark.parametrize(
    "task",
    [
        "subprocess:run",
        "heteromark.runs.files:write_text_atomic",
        "heteromark.environment.pettingzoo.workers:serve",
        "pandas:read_pickle",
        "pettingzoo.utils.conversions:aec_to_parallel",
        "mpe2evil:parallel_env",
        "environments.sub:make",  # a module that does not lie in this project
        "toy_environments:ToyBattle",
    ],
)
def test_other_code_is_refused_by_default(task, shipped, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere" / "environments"
    elsewhere.mkdir(parents=True)
    (elsewhere / "sub.py").touch()
    monkeypatch.syspath_prepend(elsewhere.parent)
    with pytest.raises(UntrustedCode, match="names code to import"):
        read_saved(tampered(shipped, task=task, kwargs={}))


def test_code_of_every_key_is_checked(tmp_path):
    for key, value in (
        ("environment__opponent", {"kind": "heuristic", "heuristic": "os:system"}),
        ("policy_type", "subprocess:run"),
        ("optimizer_type", "subprocess:run"),
        ("loss_type", "subprocess:run"),
    ):
        config = make_config(**{**TIC_TAC_TOE, key: value})
        (tmp_path / "file").touch()
        with pytest.raises(UntrustedCode, match=r"os:system|subprocess:run"):
            require_trusted(config, tmp_path / "file")


def test_known_environments_and_the_projects_own_need_no_trust(shipped, tmp_path, monkeypatch):
    assert read_saved(shipped).config.environment.task.startswith("mpe2")
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "arena.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    read_saved(tampered(shipped, task="environments.arena:make"))


def test_files_of_the_own_store_need_no_trust(tmp_path):
    config = make_config(
        environment__task="toy_environments:ToyBattle",
        training__total_frames=128,
        evaluation__episodes=1,
    )
    record, _ = train_run(config, target=tmp_path / "run")
    read_saved(tmp_path / "run" / "checkpoint.pt")  # a copy
    folder = RunStore().folder(record.digest)
    for path in (folder / "checkpoint.pt", *folder.glob("checkpoints/*.pt")):
        read_saved(path)
