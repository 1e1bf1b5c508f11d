"""`heteromark train`: idempotent, resumable, and clear about how a run ended."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from projects import Project

from heteromark.runs.record import WALL_CLOCK_COLUMNS, RunRecord, Status
from heteromark.runs.store import RunStore

TRAIN = ("heteromark", "train", "--agent-config", "config/agents/happo_agent_v1.yaml")


def only_record(store: Path) -> RunRecord:
    (run,) = RunStore(store).runs()
    return run.record


def deterministic_columns(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key not in WALL_CLOCK_COLUMNS}
            for row in csv.DictReader(file)
        ]


def weights(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.slow
def test_a_run_is_trained_once_and_then_found(project: Project, own_store):
    first = project.run(*TRAIN, "--output", "one")
    assert "completed" in first.stdout
    assert "(trained)" in first.stdout
    record = only_record(own_store)
    second = project.run(*TRAIN, "--output", "two")
    assert "found in the run store" in second.stdout
    for name in (*record.files, "run.json"):
        one, two = project.folder / "one" / name, project.folder / "two" / name
        assert one.read_bytes() == two.read_bytes()
    assert record.status is Status.COMPLETED
    assert record.agent.short_name == "happo_agent_v1"
    assert record.summary.frames == 256
    assert record.versions["torch"].startswith("2.13")
    assert set(record.files) == {
        "config.yaml",
        "metrics.csv",
        "evaluation.json",
        "checkpoint.pt",
        "train.log",
    }


@pytest.mark.slow
def test_a_terminal_shows_a_progress_bar(project: Project, tmp_path):
    terminal, theirs = os.openpty()
    environment = {"HETEROMARK_STORE": str(tmp_path / "store"), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", *TRAIN],
        cwd=project.folder,
        env=os.environ | environment,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while chunk := read_terminal(terminal):
        shown += chunk
    assert process.wait(60) == 0
    assert b"256/256 frames" in shown
    assert b"frames/s" in shown


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux raises this when the other end is closed
        return b""


@pytest.mark.slow
def test_a_store_hit_imports_no_torch(project: Project):
    project.run(*TRAIN)
    code = (
        "import sys\n"
        f"sys.argv = {list(TRAIN)!r}\n"
        "from heteromark.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'torchrl', 'tensordict', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = project.run(sys.executable, "-c", code)
    assert "found in the run store" in result.stdout


@pytest.mark.slow
def test_a_run_killed_at_three_moments_ends_bit_identical(project: Project, tmp_path):
    """Acceptance test of resuming: `kill -9`, then the same command, gives the same bytes."""
    # Long enough to be killed in the middle: 30 iterations, a checkpoint every 2 iterations.
    command = (*TRAIN, "--total-timesteps", str(30 * 64))
    project.run(*command, "--output", "whole", HETEROMARK_STORE=str(tmp_path / "other store"))
    store = tmp_path / "store"
    project.store = store
    for rows in (3, 11, 22):
        kill_after_rows(project, rows, *command, "--output", "parts")
        (run,) = RunStore(store).runs()
        assert run.status is Status.INTERRUPTED
    project.run(*command, "--output", "parts")
    whole, parts = project.folder / "whole", project.folder / "parts"
    assert deterministic_columns(parts / "metrics.csv") == deterministic_columns(
        whole / "metrics.csv"
    )
    assert weights(parts / "checkpoint.pt") == weights(whole / "checkpoint.pt")
    assert (parts / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()
    assert only_record(store).attempts == 4


def kill_after_rows(project: Project, rows: int, *command: str) -> None:
    """Start a run, and `kill -9` it when metrics.csv has more than `rows` lines."""
    process = project.start(*command)
    wait_for_rows(project.store, rows, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_rows(store: Path, rows: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        files = list(store.glob("runs/*/metrics.csv"))
        if files and len(files[0].read_text().splitlines()) > rows:
            return
        time.sleep(0.005)
    raise AssertionError(f"the run never wrote {rows} rows, exit status {process.poll()}")


@pytest.mark.slow
def test_a_terminated_run_is_recorded_as_interrupted_and_resumes(project: Project, tmp_path):
    project.store = tmp_path / "store"
    command = (*TRAIN, "--total-timesteps", str(400 * 64))
    process = project.start(*command)
    wait_for_rows(project.store, 4, process)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    record = only_record(project.store)
    assert record.status is Status.INTERRUPTED
    assert record.reason == "ended by SIGTERM"
    log = next(project.store.glob("runs/*/train.log"))
    process = project.start(*command)
    wait_for_rows(project.store, 12, process)
    process.terminate()
    process.wait(30)
    assert "resuming after iteration" in log.read_text()


@pytest.mark.slow
def test_ctrl_c_prints_how_to_resume_and_an_ignored_hangup_does_nothing(project: Project, tmp_path):
    project.store = tmp_path / "store"
    log = project.folder / "console.log"
    command = " ".join((*TRAIN, "--total-timesteps", str(400 * 64)))
    process = project.start("bash", "-c", f"trap '' HUP; exec {command} 2> {log}")
    wait_for_rows(project.store, 4, process)
    process.send_signal(signal.SIGHUP)
    wait_for_rows(project.store, 12, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    assert "run the same command to resume from the last checkpoint" in log.read_text()
    assert only_record(project.store).reason == "ended by SIGINT"


@pytest.mark.slow
def test_a_corrupt_checkpoint_is_reported_and_training_starts_over(project: Project, tmp_path):
    project.store = tmp_path / "store"
    command = (*TRAIN, "--total-timesteps", str(30 * 64), "--output", "out")
    project.run(*command, "--output", "whole", HETEROMARK_STORE=str(tmp_path / "other"))
    kill_after_rows(project, 8, *command)
    checkpoints = list(project.store.glob("runs/*/checkpoints/*.pt"))
    assert checkpoints
    for checkpoint in checkpoints:
        data = bytearray(checkpoint.read_bytes())
        data[len(data) // 2] ^= 0xFF
        checkpoint.write_bytes(data)
    result = project.run(*command)
    assert "corrupt" in result.stderr
    assert weights(project.folder / "out/checkpoint.pt") == weights(
        project.folder / "whole/checkpoint.pt"
    )


@pytest.mark.slow
def test_a_diverged_run_is_a_result_with_a_reason(project: Project, own_store):
    project.write(
        "hot.py",
        "from mpe2 import simple_speaker_listener_v4\n"
        "from pettingzoo.utils.wrappers import BaseParallelWrapper\n\n\n"
        "class Hot(BaseParallelWrapper):\n"
        "    def step(self, actions):\n"
        "        o, r, te, tr, i = super().step(actions)\n"
        "        return o, dict.fromkeys(r, float('inf')), te, tr, i\n\n\n"
        "def make(**kwargs):\n"
        "    return Hot(simple_speaker_listener_v4.parallel_env(**kwargs))\n",
    )
    text = project.read("config/environment/speaker_listener.yaml")
    text = text.replace("mpe2.simple_speaker_listener_v4:parallel_env", "hot:make")
    project.write("config/environment/hot.yaml", text)
    result = project.run(*TRAIN, "--environment", "hot", "--output", "out")
    assert "diverged" in result.stdout
    record = only_record(own_store)
    assert record.status is Status.DIVERGED
    assert record.reason
    assert json.loads(project.read("out/evaluation.json"))["episodes"] == 0
    again = project.run(*TRAIN, "--environment", "hot")
    assert "found in the run store" in again.stdout


@pytest.mark.slow
def test_a_failed_run_prints_its_reason_once_and_is_retried(project: Project, own_store):
    project.write("broken.py", "def make(**kwargs):\n    raise RuntimeError('no such arena')\n")
    text = project.read("config/environment/speaker_listener.yaml")
    text = text.replace("mpe2.simple_speaker_listener_v4:parallel_env", "broken:make")
    project.write("config/environment/broken.yaml", text)
    result = project.run(*TRAIN, "--environment", "broken", check=False)
    assert result.returncode == 1
    assert result.stderr.count("no such arena") == 1
    assert "Traceback (most recent call last)" not in result.stderr
    record = only_record(own_store)
    assert record.status is Status.FAILED
    assert "no such arena" in record.reason
    log = (RunStore(own_store).folder(record.digest) / "train.log").read_text()
    assert "Traceback (most recent call last)" in log
    verbose = ("heteromark", "-v", *TRAIN[1:], "--environment", "broken")
    assert "Traceback (most recent call last)" in project.run(*verbose, check=False).stderr
    assert only_record(own_store).attempts == 2


@pytest.mark.slow
def test_a_full_disk_is_reported_with_a_remedy_and_loses_nothing(project: Project, tmp_path):
    """A limit on file sizes makes a write fail in the middle of a run."""
    project.store = tmp_path / "store"
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.argv = {list(TRAIN)!r}\n"
        "from heteromark.cli import main\nmain()\n"
    )
    project.set_params(network={"net_arch": [64, 64]})  # a checkpoint above the limit
    result = project.run(sys.executable, "-c", script, check=False)
    assert result.returncode == 1
    assert "free space" in result.stderr
    assert "Traceback" not in result.stderr
    assert only_record(project.store).status is Status.FAILED
    assert "(trained)" in project.run(*TRAIN).stdout


def test_an_unwritable_store_is_reported_before_training(project: Project, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    result = project.run(*TRAIN, check=False, HETEROMARK_STORE=str(tmp_path / "file" / "store"))
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "HETEROMARK_STORE" in result.stderr


@pytest.mark.slow
def test_no_resume_sets_the_unfinished_attempt_aside(project: Project, tmp_path):
    project.store = tmp_path / "store"
    command = (*TRAIN, "--total-timesteps", str(400 * 64))
    kill_after_rows(project, 6, *command)
    process = project.start(*command, "--no-resume")
    deadline = time.monotonic() + 60
    while not (project.store / "quarantine").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (aside,) = (project.store / "quarantine").iterdir()
    assert (aside / "metrics.csv").is_file()
