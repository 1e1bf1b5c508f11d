"""The run store: atomic writes, verification, one writer per run, no lost data."""

import logging
import multiprocessing
import os
import time
from datetime import timedelta

import pytest

from heteromark.runs.files import atomic_path, sha256_of, write_text_atomic
from heteromark.runs.record import AgentIdentity, RunRecord, Status
from heteromark.runs.store import RunStore, StoreError

DIGEST = "0123456789ab"


def fill(store: RunStore, digest: str = DIGEST, status: Status = Status.COMPLETED) -> RunRecord:
    """Write a run folder, as training does."""
    with store.writing(digest) as folder:
        for name in ("config.yaml", "metrics.csv", "checkpoint.pt"):
            (folder / name).write_text(f"{name} of {digest}\n")
        record = RunRecord(
            digest=digest,
            config_digest="c" * 12,
            agent=AgentIdentity(
                agent_id="demo",
                name="Demo",
                short_name="demo_v1",
                algorithm="HAPPO",
                version=1,
                sweep_variant=None,
                config_path=None,
            ),
            environment="speaker_listener",
            mode="smoke",
            seed=0,
            status=status,
            started="2026-01-01T00:00:00+00:00",
            host="here",
            files={path.name: sha256_of(path) for path in folder.iterdir()},
        )
        record.write(folder)
    return record


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")


def test_a_finished_run_is_found_and_copied_byte_for_byte(store, tmp_path):
    record = fill(store)
    assert store.lookup(DIGEST) == record
    store.materialise(DIGEST, tmp_path / "out")
    for name in (*record.files, "run.json"):
        assert (tmp_path / "out" / name).read_bytes() == (store.folder(DIGEST) / name).read_bytes()


def test_materialising_again_keeps_intact_files_and_replaces_damaged_ones(store, tmp_path):
    fill(store)
    out = tmp_path / "out"
    store.materialise(DIGEST, out)
    os.utime(out / "metrics.csv", (1, 1))
    (out / "config.yaml").write_text("edited")
    store.materialise(DIGEST, out)
    assert (out / "metrics.csv").stat().st_mtime == 1
    assert (out / "config.yaml").read_text() == f"config.yaml of {DIGEST}\n"


@pytest.mark.parametrize("status", [Status.FAILED, Status.INTERRUPTED, Status.RUNNING])
def test_an_unfinished_run_is_not_found(store, status):
    fill(store, status=status)
    assert store.lookup(DIGEST) is None
    assert store.folder(DIGEST).exists()


def test_a_diverged_run_is_a_result(store):
    fill(store, status=Status.DIVERGED)
    assert store.lookup(DIGEST).status is Status.DIVERGED


@pytest.mark.parametrize("damage", ["change", "delete", "record"])
def test_a_damaged_run_is_reported_moved_to_quarantine_and_not_returned(store, damage, caplog):
    fill(store)
    target = store.folder(DIGEST) / ("run.json" if damage == "record" else "checkpoint.pt")
    if damage == "delete":
        target.unlink()
    else:
        target.write_text("{garbage")
    assert DIGEST in store.verify()
    assert store.lookup(DIGEST) is None
    assert store.folder(DIGEST).exists()  # reading changes nothing; another process may be writing
    with caplog.at_level(logging.WARNING), store.writing(DIGEST):
        store.set_damaged_aside(DIGEST)
    assert target.name in caplog.text
    assert len(list((store.root / "quarantine").iterdir())) == 1
    assert not store.folder(DIGEST).exists()


def test_verify_of_an_intact_store_finds_nothing(store):
    fill(store)
    assert store.verify() == {}


def _hold(root, digest, held, release):
    with RunStore(root).writing(digest) as folder:
        held.set()
        release.wait(20)
        time.sleep(0.3)
        (folder / "last words").touch()


def test_one_writer_per_run_and_a_second_waits(store):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(store.root, DIGEST, held, release))
    other.start()
    try:
        assert held.wait(20)
        assert store.is_locked(DIGEST)
        with pytest.raises(StoreError, match="being trained now"):
            store.remove(DIGEST)
        release.set()
        with store.writing(DIGEST) as folder:  # waits until the other process releases the lock
            assert (folder / "last words").exists()
    finally:
        release.set()
        other.join(20)
    assert not store.is_locked(DIGEST)


def test_a_run_whose_process_died_counts_as_interrupted(store):
    fill(store, status=Status.RUNNING)
    (run,) = store.runs()
    assert run.status is Status.INTERRUPTED


def test_prune_keeps_resumable_runs_unless_their_status_is_given(store):
    for digest, status in (("a" * 12, Status.FAILED), ("b" * 12, Status.INTERRUPTED)):
        fill(store, digest, status)
    checkpoint = store.folder("b" * 12) / "checkpoints" / "iteration_000002-0.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert [run.digest for run in store.prunable()] == ["a" * 12]
    assert [run.digest for run in store.prunable({Status.INTERRUPTED})] == ["b" * 12]


def test_prune_selects_by_status_and_age(store):
    fill(store, "a" * 12, Status.COMPLETED)
    fill(store, "b" * 12, Status.FAILED)
    fill(store, "c" * 12, Status.FAILED)
    old = time.time() - 10 * 86400
    os.utime(store.folder("c" * 12), (old, old))
    chosen = store.prunable({Status.FAILED}, timedelta(days=5))
    assert [run.digest for run in chosen] == ["c" * 12]
    store.remove("c" * 12)
    assert {run.digest for run in store.runs()} == {"a" * 12, "b" * 12}


def test_an_unwritable_store_is_reported_before_training(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = RunStore(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match=r"cannot be written.*HETEROMARK_STORE"):
        store.check_writable()


def test_a_failed_atomic_write_leaves_only_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    write_text_atomic(target, "old")

    def crash():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        crash()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
