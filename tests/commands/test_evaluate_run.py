"""`heteromark evaluate`: which policy is evaluated, and the report."""

from __future__ import annotations

import json
import shutil
import signal
import threading

import pytest
from engine_config import make_config
from typer.testing import CliRunner

from heteromark.cli import app
from heteromark.commands.evaluate_run import (
    EvaluationError,
    EvaluationRequest,
    evaluate_run,
    find_checkpoint,
)
from heteromark.commands.launch import train_run
from heteromark.config.errors import ConfigError
from heteromark.runs.digest import run_digest
from heteromark.runs.store import RunStore


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with one run, evaluated at each of its four iterations."""
    store = RunStore(tmp_path_factory.mktemp("trained"))
    config = make_config(evaluation__interval=1)
    record, _ = train_run(config, store=store, target=store.root / "results")
    return store, record


def test_find_checkpoint_finds_each_checkpoint_of_a_run(trained):
    store, record = trained
    digest = record.digest
    stored, results = store.folder(digest), store.root / "results"
    assert find_checkpoint(str(results)) == results / "checkpoint.pt"
    assert find_checkpoint(str(results), "best") == results / "best.pt"
    assert find_checkpoint(digest[:5], "best", store) == stored / "best.pt"
    early, _ = sorted((stored / "checkpoints").iterdir())
    inside = f"checkpoints/{early.name}"
    assert find_checkpoint(digest, inside, store) == early
    assert find_checkpoint(str(results), str(early)) == early
    assert find_checkpoint(str(early)) == early


def test_best_is_one_of_the_records_files(trained):
    store, record = trained
    assert "best.pt" in record.files
    assert not store.verify()
    store.folder(record.digest).joinpath("best.pt").rename(store.root / "aside.pt")
    assert store.verify() == {record.digest: ["best.pt"]}
    (store.root / "aside.pt").rename(store.folder(record.digest) / "best.pt")


@pytest.mark.parametrize(
    ("checkpoint", "iteration"),
    [("final", 4), ("best", None), ("checkpoints/iteration_000002*.pt", 2)],
)
def test_each_checkpoint_can_be_evaluated(trained, tmp_path, checkpoint, iteration):
    store, record = trained
    folder = store.folder(record.digest)
    if "*" in checkpoint:
        checkpoint = str(next(folder.glob(checkpoint)))
    output = tmp_path / "figures.json"
    lines = evaluate_run(
        EvaluationRequest(
            str(folder), episodes=3, seed=0, checkpoint=checkpoint, device="cpu", output=output
        )
    )
    figures = json.loads(output.read_text())
    assert figures["iteration"] == (iteration or record.summary.best_iteration)
    assert f"after iteration {figures['iteration']}: 3 episodes, most likely" in lines[0]
    # The run's evaluation also had three episodes and seed 0.
    if checkpoint == "final":
        assert figures["return_mean"] == record.summary.evaluation_return
    if checkpoint == "best":
        assert figures["return_mean"] == record.summary.best_evaluation_return


def test_episodes_can_be_sampled_and_cut_off(trained):
    store, record = trained
    lines = evaluate_run(
        EvaluationRequest(
            str(store.folder(record.digest)), episodes=2, deterministic=False, max_steps=7
        )
    )
    assert "2 episodes, sampled actions" in lines[0]
    assert "episode length:   7.0 frames" in lines
    assert "cut off:          2 episodes, after 7 frames" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opponent": "random"}, "--opponent is random, but in environment .* must be self"),
        ({"seat": "first"}, "--seat is first, but in environment .*: remove --seat"),
        ({"opponent": "past_self"}, "--opponent is past_self, but in environment "),
    ],
)
def test_options_that_do_not_fit_the_environment_are_rejected(trained, options, message):
    store, record = trained
    request = EvaluationRequest(str(store.folder(record.digest)), episodes=1, **options)
    with pytest.raises(EvaluationError, match=message):
        evaluate_run(request)


def test_a_faulty_gif_path_is_reported_before_anything_is_played(trained, tmp_path):
    store, record = trained
    request = EvaluationRequest(
        str(store.folder(record.digest)), episodes=10**9, gif=tmp_path / "movie.mp4"
    )
    with pytest.raises(ConfigError, match=r"must end in \.gif"):
        evaluate_run(request)


def test_a_missing_checkpoint_is_reported_with_the_existing_ones(trained, tmp_path):
    store, record = trained
    shutil.copytree(store.folder(record.digest), tmp_path / "run")
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"which has best\.pt, checkpoint\.pt, checkpoints/iter"):
        find_checkpoint(str(folder), "worst")
    with pytest.raises(ConfigError, match="selects one of a run's files"):
        find_checkpoint(str(folder / "best.pt"), "best")
    (folder / "best.pt").unlink()
    with pytest.raises(ConfigError, match=r"evaluation\.interval > 0"):
        find_checkpoint(str(folder), "best")
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(ConfigError, match="the run has not finished"):
        find_checkpoint(str(folder))
    with pytest.raises(ConfigError, match="no folder, file or digest matches"):
        find_checkpoint("0123", store=store)


def test_the_digest_depends_on_evaluations_but_not_on_loggers(trained):
    _, record = trained
    assert record.digest == run_digest(make_config(evaluation__interval=1))
    assert record.digest != run_digest(make_config())
    assert record.digest == run_digest(
        make_config(
            evaluation__interval=1, logger__backends=["wandb"], training__keep_checkpoints=9
        )
    )


def test_an_interrupted_evaluation_is_reported_and_writes_nothing(trained, tmp_path):
    store, record = trained
    output = tmp_path / "figures.json"
    main_thread = threading.main_thread().ident
    interruption = threading.Timer(0.7, signal.pthread_kill, (main_thread, signal.SIGINT))
    interruption.start()
    folder = str(store.folder(record.digest))
    result = CliRunner().invoke(
        app, ["evaluate", folder, "--episodes", "1000000", "--output", str(output)]
    )
    assert result.exit_code == 130
    assert result.stderr == "SIGINT: the evaluation was interrupted; nothing was written\n"
    assert not output.exists()
