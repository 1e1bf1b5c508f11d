"""Finding runs in the store and below results/, and caching their files."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from made_history import RunSpec, agent, make_run, run_config, run_specs

from heteromark.runs.record import RECORD_FILE, RunRecord, Status
from heteromark.runs.store import RunStore
from heteromark.ui.data.history import UNREADABLE, History


def history(store: RunStore, results: Path = Path("nowhere")) -> History:
    return History(store, results)


def only(runs):
    (run,) = runs
    return run


def test_without_a_store_there_are_no_runs(tmp_path: Path):
    assert history(RunStore(tmp_path / "none"), tmp_path / "none").runs() == []


def test_completed_run_has_its_results(store: RunStore, three_seeds):
    runs = history(store).runs()
    assert {run.folder for run in runs} == set(three_seeds)
    run = next(run for run in runs if run.record.seed == 1)
    record = RunRecord.read(run.folder)
    assert (run.key, run.name, run.status) == (record.digest, "happo_agent_v1", "completed")
    assert run.frames == record.summary.frames == 40960
    assert run.training_return == record.summary.final_return
    assert run.seconds == record.duration_seconds
    assert run.total_frames is None


def test_the_newest_start_comes_first(store: RunStore):
    folders = [make_run(store, spec) for spec in run_specs(4)]
    assert [run.folder for run in history(store).runs()] == folders[::-1]


def test_run_in_store_and_results_is_listed_once(store: RunStore, three_seeds, tmp_path: Path):
    results = tmp_path / "results"
    copy = results / "smoke" / "happo_agent_v1-abc" / "seed_0"
    shutil.copytree(three_seeds[0], copy)
    shutil.copytree(three_seeds[0], results / "model")
    runs = history(store, results).runs()
    assert len(runs) == 3
    run = next(run for run in runs if run.folder == three_seeds[0])
    assert set(run.copies) == {copy, results / "model"}


def test_run_only_below_results_is_found(three_seeds, tmp_path: Path):
    folder = tmp_path / "results" / "watched"
    shutil.copytree(three_seeds[0], folder)
    run = only(history(RunStore(tmp_path / "none"), tmp_path / "results").runs())
    assert (run.key, run.folder, run.copies) == (three_seeds[0].name, folder, (folder,))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"digest": 1}', b"\xff\xfe"])
def test_run_with_unreadable_record_is_listed_as_unreadable(store, three_seeds, content):
    (three_seeds[0] / RECORD_FILE).write_bytes(content)
    runs = history(store).runs()
    assert [run.status for run in runs] == ["completed", "completed", UNREADABLE]
    assert runs[-1].key == three_seeds[0].name
    assert RECORD_FILE in runs[-1].reason
    assert "\n" not in runs[-1].reason
    assert "pydantic" not in runs[-1].reason


def test_folder_without_a_record_is_listed_as_unreadable(store, three_seeds):
    (three_seeds[0] / RECORD_FILE).unlink()
    assert history(store).runs()[-1].reason.endswith("No such file or directory")


def test_run_with_invalid_start_time_comes_last(store, three_seeds):
    record = RunRecord.read(three_seeds[0])
    record.model_copy(update={"started": "soon"}).write(three_seeds[0])
    last = history(store).runs()[-1]
    assert (last.folder, last.started) == (three_seeds[0], None)


def test_only_changed_files_are_read_again(store, three_seeds):
    cached = history(store)
    before = cached.runs()
    path = three_seeds[0] / RECORD_FILE
    state, size = path.stat(), path.stat().st_size
    path.write_bytes(b"x" * size)  # would be unreadable if it were read
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cached.runs() == before
    os.utime(path)
    assert [run.status for run in cached.runs()].count(UNREADABLE) == 1


def test_training_run_progresses_and_is_interrupted_when_its_process_dies(store, training):
    digest, process = training(seconds=0.3)
    live = history(store)
    run = only(live.runs())
    assert (run.key, run.status, run.total_frames) == (digest, "running", 40960)
    assert 0 < run.frames <= 40960
    assert run.training_return is not None
    first_seconds = run.seconds
    wait_until(lambda: only(live.runs()).frames > run.frames)
    assert only(live.runs()).seconds > first_seconds
    process.kill()
    process.wait()
    run = only(live.runs())
    assert (run.status, run.total_frames) == ("interrupted", None)
    assert "killed" in run.reason
    assert 0 <= run.seconds < 60


def wait_until(condition) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_running_record_outside_the_store_is_interrupted(store, training, tmp_path):
    digest, _ = training()
    folder = tmp_path / "results" / "elsewhere"
    shutil.copytree(store.folder(digest), folder)
    run = only(history(RunStore(tmp_path / "none"), tmp_path / "results").runs())
    assert run.status == Status.INTERRUPTED


def test_run_that_failed_before_its_first_iteration(store):
    config = run_config(agent("happo_agent_v1"))
    spec = RunSpec(config, status=Status.FAILED, reason="ValueError: no", share=0.0)
    make_run(store, spec)
    run = only(history(store).runs())
    assert (run.status, run.frames, run.training_return) == ("failed", 0, None)


@pytest.mark.slow
def test_a_thousand_runs_in_less_than_two_seconds(store):
    for spec in run_specs(1000):
        make_run(store, spec)
    cached = history(store)
    began = time.perf_counter()
    assert len(cached.runs()) == 1000
    cold = time.perf_counter() - began
    began = time.perf_counter()
    cached.runs()
    warm = time.perf_counter() - began
    assert cold < 2
    assert warm < 0.5
