"""Files of a run, and the commands to resume and evaluate it."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest
from made_history import RunSpec, agent, make_run, run_config

from heteromark.runs.record import BEST_FILE, EVALUATION_FILE, RunRecord, Status
from heteromark.ui.data.files import (
    Evaluation,
    checkpoints_of,
    evaluate_commands,
    evaluation_of,
    pictures_of,
    resume_command,
)
from heteromark.ui.data.history import History, HistoryRun


def the_run(store, results: Path | None = None) -> HistoryRun:
    (run,) = History(store, results or store.root / "none").runs()
    return run


def stored_run(store, **changes) -> HistoryRun:
    make_run(store, RunSpec(run_config(agent("happo_agent_v1")), **changes))
    return the_run(store)


def with_command(run: HistoryRun, store, *command: str) -> HistoryRun:
    record = RunRecord.read(run.folder).model_copy(update={"command": list(command)})
    record.write(run.folder)
    return the_run(store)


def lines(run: HistoryRun) -> list[list[str]]:
    return [shlex.split(command.line) for command in evaluate_commands(run, checkpoints_of(run))]


def test_checkpoints_newest_first(store):
    run = stored_run(store, status=Status.INTERRUPTED, share=0.5)
    assert checkpoints_of(run)["file"].tolist() == ["checkpoints/iteration_000010.pt"]
    (run.folder / "checkpoint.pt").write_bytes(b"four")
    table = checkpoints_of(run)
    assert table["file"].tolist() == ["checkpoint.pt", "checkpoints/iteration_000010.pt"]
    assert table["size"].tolist() == [4, 10]


def test_run_without_checkpoints(store):
    run = stored_run(store, status=Status.FAILED, share=0.0)
    assert checkpoints_of(run).empty
    assert evaluate_commands(run, checkpoints_of(run)) == []


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (
            ["/venv/bin/heteromark", "train", "--set", "name=a b"],
            "heteromark train --set 'name=a b'",
        ),
        (["/x/heteromark/__main__.py", "train", "--seed", "0"], "heteromark train --seed 0"),
        (
            ["/x/heteromark/training/factory_train.py", "+experiment=quick_test"],
            "python -m heteromark.training.factory_train +experiment=quick_test",
        ),
    ],
)
def test_unfinished_run_is_resumed_by_the_command_that_started_it(store, recorded, expected):
    run = with_command(stored_run(store, status=Status.INTERRUPTED, share=0.5), store, *recorded)
    assert resume_command(run).line == f"HETEROMARK_STORE={store.root} {expected}"


def test_commands_do_not_set_the_default_store(store, monkeypatch):
    run = stored_run(store, status=Status.INTERRUPTED, share=0.5)
    monkeypatch.delenv("HETEROMARK_STORE")
    assert resume_command(run).line.startswith("heteromark train --agent-config config/agents/")


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.DIVERGED])
def test_finished_run_has_no_resume_command(store, status):
    assert resume_command(stored_run(store, status=status)) is None


def test_commands_for_final_and_best_weights_and_a_gif(store):
    run = stored_run(store)
    (run.folder / BEST_FILE).write_bytes(b"best")
    _, evaluate, digest, *final = lines(run)[0]
    assert (evaluate, digest, final) == ("heteromark", "evaluate", [run.key, "--episodes", "100"])
    assert lines(run)[1][-4:] == ["--checkpoint", "best", "--episodes", "100"]
    assert lines(run)[2][-2:] == ["--gif", str(run.folder / "episode.gif")]


def test_unfinished_run_evaluates_its_newest_checkpoint(store):
    run = stored_run(store, status=Status.INTERRUPTED, share=0.5)
    newest = ["--checkpoint", "checkpoints/iteration_000010.pt"]
    assert lines(run)[0][4:6] == lines(run)[1][4:6] == newest


def test_commands_of_a_run_below_results_use_its_folder(store, tmp_path):
    folder = stored_run(store).folder
    copy = tmp_path / "results" / "watched"
    copy.mkdir(parents=True)
    (copy / "run.json").write_bytes((folder / "run.json").read_bytes())
    run = the_run(store, tmp_path / "results")
    assert lines(run)[0][:3] == ["heteromark", "evaluate", str(copy)]
    assert lines(run)[-1][-1] == str(copy / "episode.gif")


def test_gifs_are_found_in_all_folders_of_a_run(store, tmp_path):
    run = stored_run(store)
    (run.folder / "b.gif").write_bytes(b"GIF89a")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.gif").write_bytes(b"GIF89a")
    run = HistoryRun(**{**run.__dict__, "copies": (copy,)})
    assert [path.name for path in pictures_of(run)] == ["a.gif", "b.gif"]


def test_evaluation(store):
    evaluation = evaluation_of(stored_run(store))
    assert len(evaluation.returns) == len(evaluation.wins) == 50
    assert evaluation.deterministic


def test_episodes_without_a_finite_return_are_skipped(store):
    run = stored_run(store)
    report = {"deterministic": False, "returns": [1.0, None, 3.0], "wins": [True, False, False]}
    (run.folder / EVALUATION_FILE).write_text(json.dumps(report))
    assert evaluation_of(run) == Evaluation(False, (1.0, 3.0), (True, False))


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", "{}", "null"),
        '{"deterministic": true, "returns": [], "wins": null}',
        '{"deterministic": true, "returns": [null], "wins": null}',
        '{"deterministic": true, "returns": ["x"], "wins": null}',
        '{"deterministic": true, "returns": [1, 2], "wins": [true]}',
    ],
)
def test_invalid_evaluation_is_none(store, content):
    run = stored_run(store)
    (run.folder / EVALUATION_FILE).write_text(content)
    assert evaluation_of(run) is None


@pytest.mark.slow
def test_commands_work(project, store):
    """Train, kill, resume and evaluate with the commands of the page, in the project folder."""
    train = ("heteromark", "train", "--agent-config", "config/agents/happo_agent_v1.yaml")
    short = ("--environment", "speaker_listener", "--total-timesteps", "4096")
    training = project.start(*train, *short)
    wait_until(lambda: any(store.root.glob("runs/*/checkpoints/*.pt")))
    training.kill()
    training.wait()
    run = the_run(store, project.folder / "results")
    assert run.status == Status.INTERRUPTED
    assert "completed" in project.run("bash", "-c", resume_command(run).line).stdout
    run = the_run(store, project.folder / "results")
    command = evaluate_commands(run, checkpoints_of(run))[0].line
    command = command.replace("--episodes 100", "--episodes 1")
    assert "1 episodes" in project.run("bash", "-c", command).stdout


def wait_until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
