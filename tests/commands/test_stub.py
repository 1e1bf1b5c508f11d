"""The stub trainer: quick, deterministic, and never taken for a real training."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from engine_config import make_config
from projects import Project

from heteromark.commands import stub
from heteromark.commands.launch import train_run
from heteromark.config.errors import ConfigError
from heteromark.runs.digest import config_digest, run_digest, trajectory_digest
from heteromark.runs.record import RUN_FILES, TRAINER_VARIABLE, RunRecord
from heteromark.runs.store import RunStore

TRAIN = ("heteromark", "train", "--agent-config", "config/agents/happo_agent_v1.yaml")


@pytest.fixture
def with_stub(monkeypatch):
    monkeypatch.setenv(TRAINER_VARIABLE, "stub")


def test_every_digest_differs_from_that_of_a_real_run(monkeypatch):
    digests = (run_digest, config_digest, trajectory_digest)
    real = [digest(make_config()) for digest in digests]
    monkeypatch.setenv(TRAINER_VARIABLE, "torch")
    assert [digest(make_config()) for digest in digests] == real
    monkeypatch.setenv(TRAINER_VARIABLE, "stub")
    invented = [digest(make_config()) for digest in digests]
    assert not set(invented) & set(real)


def test_record_log_and_console_say_that_the_figures_are_invented(
    project: Project, own_store, with_stub
):
    result = project.run(*TRAIN, "--output", "out")
    assert f"reason: {stub.REASON}" in result.stdout
    record = RunRecord.read(project.folder / "out")
    assert (record.trainer, record.device, record.reason) == ("stub", "stub", stub.REASON)
    assert set(record.files) == {name for name in RUN_FILES if name != "best.pt"}
    project.run("heteromark", "store", "verify")
    assert "invented by the stub trainer" in project.run("heteromark", "store", "ls").stdout
    evaluated = project.run("heteromark", "evaluate", "out", check=False)
    assert evaluated.returncode == 1
    assert "not a heteromark checkpoint" in evaluated.stderr


def test_a_real_training_does_not_find_a_run_of_the_stub(tmp_path, monkeypatch):
    store = RunStore(tmp_path / "store")
    monkeypatch.setenv(TRAINER_VARIABLE, "stub")
    invented, _ = train_run(make_config(), store=store)
    monkeypatch.delenv(TRAINER_VARIABLE)
    longer = make_config(training__total_frames=6 * 64)
    for config in (make_config(), longer):
        real, from_store = train_run(config, store=store)
        assert not from_store
        assert real.trainer == "torch"
        assert real.digest != invented.digest
        assert real.continued is None or real.continued.digest != invented.digest


def test_its_figures_follow_from_config_and_seed(tmp_path, with_stub):
    def rows(name: str, **overrides):
        folder = tmp_path / name
        outcome = stub.train(make_config(**overrides), make_folder(folder))
        with (folder / "metrics.csv").open(newline="") as file:
            return outcome.summary, list(csv.DictReader(file))

    first, rows_of_first = rows("first")
    assert (first, rows_of_first) == rows("again")
    assert rows("seed", seed=1)[1] != rows_of_first
    assert rows("rate", optimizer__learning_rate=1e-4)[1] != rows_of_first
    config = make_config()
    assert len(rows_of_first) == first.iterations == config.num_iterations
    assert int(rows_of_first[-1]["frames"]) == first.frames == config.training.total_frames
    report = json.loads((tmp_path / "first/evaluation.json").read_text())
    assert len(report["returns"]) == config.evaluation.episodes
    assert report["return_mean"] == first.evaluation_return


def make_folder(folder):
    folder.mkdir()
    return folder


def test_it_evaluates_at_the_config_s_interval(tmp_path, with_stub):
    config = make_config(evaluation__interval=2, training__total_frames=5 * 64)
    summary = stub.train(config, tmp_path).summary
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    evaluated = [int(row["iteration"]) for row in rows if row["evaluation_return"]]
    assert evaluated == [2, 4, 5]
    assert summary.best_iteration in evaluated


def test_it_imports_no_torch(project: Project, own_store, with_stub):
    code = (
        f"import sys\nsys.argv = {list(TRAIN)!r}\n"
        "from heteromark.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {'torch', 'torchrl', 'pandas'} & set(sys.modules)\n"
    )
    assert "(trained)" in project.run(sys.executable, "-c", code).stdout


def test_another_trainer_is_refused(monkeypatch):
    monkeypatch.setenv(TRAINER_VARIABLE, "stubb")
    with pytest.raises(ConfigError, match="HETEROMARK_TRAINER: 'stubb': must be torch or stub"):
        run_digest(make_config())


def test_quiet_prints_results_without_progress(project: Project, own_store, with_stub):
    options = ("--agent-config", "config/agents/happo_agent_v1.yaml", "--output", "out")
    quiet = project.run("heteromark", "-q", "train", *options)
    assert "completed" in quiet.stdout
    assert not quiet.stderr
    usual = project.run("heteromark", "train", *options, "--seed", "1")
    assert "frames/s" in usual.stderr
