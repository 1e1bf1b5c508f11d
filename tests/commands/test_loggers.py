"""Logging back ends: the metrics they get, and that they do not affect a run."""

from __future__ import annotations

import logging
import random
import sys
from functools import partial

import pytest
from attempts import Crash, crash_at, rows
from engine_config import make_config

from heteromark.commands import loggers
from heteromark.commands.launch import train_run
from heteromark.commands.loggers import Backend, MetricLoggers
from heteromark.config.errors import ConfigError
from heteromark.config.models.components import LoggerConfig
from heteromark.config.rules.packages import backend_faults
from heteromark.runs.store import RunStore
from heteromark.training import loop
from heteromark.workflow.plan import make_plan

train = partial(loop.train, open_loggers=MetricLoggers)  # as `launch.train_run` does

SHORT = {"training__total_frames": 4 * 64, "training__num_epochs": 1}
BACKENDS = ("tensorboard", "wandb", "mlflow")
MISSING = [fault.message.split()[0] for fault in backend_faults(LoggerConfig(backends=[*BACKENDS]))]


def tensorboard_scalars(folder):
    """Return {metric: {step: value}} from TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    shown = {}
    for name in events.Tags()["scalars"]:
        points = [(event.step, event.value) for event in events.Scalars(name)]
        shown[name] = dict(points)
        assert len(points) == len(shown[name]), f"{name} has a step twice"
    return shown


def finite_cells(folder):
    """Return {metric: {step: value}} from metrics.csv."""
    table = rows(folder, wall_clock=True)
    return {
        name: {int(row["frames"]): pytest.approx(float(row[name])) for row in table if row[name]}
        for name in table[0]
        if any(row[name] for row in table)
    }


def test_tensorboard_shows_every_number_of_metrics_csv(tmp_path):
    plain = make_config(**SHORT, evaluation__interval=2)
    logged = make_config(**SHORT, evaluation__interval=2, logger__backends=["tensorboard"])
    train(plain, tmp_path / "plain")
    train(logged, tmp_path / "logged")
    shown = tensorboard_scalars(tmp_path / "logged")
    assert shown == finite_cells(tmp_path / "logged")
    assert list(shown["evaluation_return"]) == [128, 256]
    assert "win_rate" not in shown, "the environment does not report wins"
    assert rows(tmp_path / "plain") == rows(tmp_path / "logged")


def test_a_resumed_run_logs_nothing_twice(tmp_path):
    config = make_config(**SHORT, logger__backends=["tensorboard"])
    for iteration in (1, 3):
        with pytest.raises(Crash):
            train(config, tmp_path, on_progress=crash_at(iteration))
    train(config, tmp_path)
    assert tensorboard_scalars(tmp_path) == finite_cells(tmp_path)


class Recorder:
    """A fake back end that draws random numbers, as MLflow does for its run names."""

    def __init__(self, fails_at=None):
        self.fails_at, self.logged, self.closed = fails_at, {}, None

    def log_metrics(self, metrics, step):
        random.random()
        if step == self.fails_at:
            raise ConnectionError("the server is gone")
        self.logged[step] = metrics

    def flush(self):
        pass

    def close(self, succeeded):
        self.closed = succeeded


def with_recorder(monkeypatch, recorder, **details):
    """Return a config whose only back end is the recorder; `details` are fields of Backend."""
    opened = []

    def opener(attempt):
        opened.append(attempt.run)
        return Backend(recorder, recorder.close, **details)

    monkeypatch.setitem(loggers._OPEN, "tensorboard", opener)
    return make_config(**SHORT, logger__backends=["tensorboard"]), opened


def test_a_failing_back_end_is_reported_once_and_does_not_affect_the_run(
    tmp_path, monkeypatch, caplog
):
    train(make_config(**SHORT), tmp_path / "plain")
    recorder = Recorder(fails_at=128)
    config, _ = with_recorder(monkeypatch, recorder)
    train(config, tmp_path / "logged")
    assert list(recorder.logged) == [64]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    expected = "tensorboard failed and gets no more metrics (ConnectionError: the server is gone)"
    assert expected in warning
    plain, logged = (rows(tmp_path / name) for name in ("plain", "logged"))
    assert plain == logged


def test_a_back_end_does_not_change_the_random_state(tmp_path, monkeypatch):
    config, _ = with_recorder(monkeypatch, Recorder())
    before = random.getstate()
    with MetricLoggers(config, tmp_path, 0, {}) as metric_loggers:
        metric_loggers.log({"frames": 64, "loss": 0.5})
    assert random.getstate() == before


def test_an_interrupted_run_keeps_its_back_end_id(tmp_path, monkeypatch):
    """The checkpoint stores the back end's ID of the run; logged rows are not sent again."""
    first, second = Recorder(), Recorder()
    config, opened = with_recorder(monkeypatch, first, run="x1")
    with pytest.raises(Crash):
        train(config, tmp_path, on_progress=crash_at(3))
    assert (list(first.logged), first.closed) == ([64, 128, 192], False)
    assert opened == [None]
    config, opened = with_recorder(monkeypatch, second, run="x1", logged_frames=192)
    train(config, tmp_path)
    assert opened == ["x1"]
    assert (list(second.logged), second.closed) == ([256], True)


def test_a_back_end_that_cannot_start_is_reported_before_training(tmp_path, monkeypatch):
    config, _ = with_recorder(monkeypatch, Recorder())

    def refuse(_attempt):
        raise PermissionError("no API key")

    monkeypatch.setitem(loggers._OPEN, "tensorboard", refuse)
    with pytest.raises(ValueError, match="cannot start tensorboard: no API key; fix this"):
        train(config, tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == ""


@pytest.mark.skipif(not MISSING, reason="all back ends are installed")
def test_a_back_end_that_is_not_installed_is_reported_before_anything_is_written(tmp_path):
    config = make_config(**SHORT, logger__backends=[*BACKENDS])
    with pytest.raises(ConfigError) as error:
        train_run(config, store=RunStore(tmp_path / "store"))
    for backend in BACKENDS:
        assert (f"pip install 'heteromark[{backend}]'" in str(error.value)) == (backend in MISSING)
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(not MISSING, reason="all back ends are installed")
def test_a_plan_with_a_missing_back_end_is_rejected(project, monkeypatch):
    project.write("config/logger/default.yaml", f"backends: {MISSING}\n")
    monkeypatch.chdir(project.folder)
    with pytest.raises(ConfigError) as error:
        make_plan()
    assert {fault.key for fault in error.value.faults} == {"logger.backends"}
    assert len(error.value.faults) == len(MISSING)


@pytest.mark.skipif(not MISSING, reason="all back ends are installed")
def test_a_job_with_a_missing_back_end_stops_all_jobs(project, own_store):
    jobs = f"logger=default,{MISSING[0]}"
    result = project.run(
        *(sys.executable, "-m", "heteromark.training.factory_train", "--multirun", jobs),
        check=False,
    )
    assert result.returncode == 2
    assert f"pip install 'heteromark[{MISSING[0]}]'" in result.stderr
    assert f"logger.backends = ['{MISSING[0]}']" in result.stderr
    assert not list(own_store.glob("runs/*"))


@pytest.mark.skipif("wandb" in MISSING, reason="wandb is not installed")
def test_wandb_writes_its_files_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")  # restores what the logger sets
    config = make_config(**SHORT, logger__backends=["wandb"])
    with pytest.raises(Crash):
        train(config, tmp_path, on_progress=crash_at(3))
    (first,) = tmp_path.glob("wandb/offline-run-*")
    train(config, tmp_path)
    names = {path.name.rpartition("-")[2] for path in tmp_path.glob("wandb/offline-run-*")}
    assert names == {first.name.rpartition("-")[2]}, "both attempts are one run"
    (written,) = first.glob("run-*.wandb")
    assert written.stat().st_size > 0


@pytest.mark.skipif("mlflow" in MISSING, reason="mlflow is not installed")
def test_mlflow_has_every_number_once(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = make_config(**SHORT, logger__backends=["mlflow"], logger__project="tests")
    with pytest.raises(Crash):
        train(config, tmp_path, on_progress=crash_at(3))
    train(config, tmp_path)
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "tests")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "test_v1 seed 0"
    assert run.data.params["optimizer.learning_rate"] == "0.0003"
    history = {
        name: [
            (point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }
    expected = finite_cells(tmp_path)
    assert history.keys() == expected.keys()
    for name, points in history.items():
        if name not in ("time_elapsed", "frames_per_second"):  # differ between attempts
            assert points == list(expected[name].items())
