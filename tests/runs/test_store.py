"""The run store: atomic writes, verification, one writer per run, no lost data."""

import json
import logging
import multiprocessing
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heteromark.runs.commands import store_app
from heteromark.runs.files import atomic_path, sha256_of, write_text_atomic
from heteromark.runs.record import AgentIdentity, RunRecord, Status
from heteromark.runs.store import RunStore, StoreError

DIGEST = "0123456789ab"


def fill(store: RunStore, digest: str = DIGEST, status: Status = Status.COMPLETED) -> RunRecord:
    """Write a run folder, as training does."""
    with store.writing(digest) as folder:
        names = ("config.yaml", "metrics.csv", "checkpoint.pt")
        for name in names:
            write_text_atomic(folder / name, f"{name} of {digest}\n")
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
            files={name: sha256_of(folder / name) for name in names},
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


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    target, link = tmp_path / "elsewhere" / "file.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    write_text_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    dangling = tmp_path / "dangling.txt"
    dangling.symlink_to(tmp_path / "elsewhere" / "created.txt")
    write_text_atomic(dangling, "new")
    assert (tmp_path / "elsewhere" / "created.txt").read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text_atomic(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
    write_text_atomic(Path("/dev/stdout"), "")
    assert Path("/dev/stdout").is_symlink()


def test_a_protected_file_behind_a_link_is_not_overwritten(tmp_path):
    """DVC's cache consists of such files, if it links instead of copying."""
    cached, link = tmp_path / "cached", tmp_path / "metrics.json"
    cached.write_text("old")
    cached.chmod(0o444)
    link.symlink_to(cached)
    write_text_atomic(link, "new")
    assert (cached.read_text(), link.read_text()) == ("old", "new")
    assert not link.is_symlink()


@pytest.mark.parametrize("change", ["finished", "running again", "touched"])
def test_a_run_that_changed_after_it_was_listed_is_not_pruned(store, change):
    fill(store, status=Status.INTERRUPTED)
    age = timedelta(days=1 if change == "touched" else 0)
    old = time.time() - 10 * 86400
    os.utime(store.folder(DIGEST), (old, old))
    (run,) = store.prunable(None, age)
    if change == "finished":
        fill(store, status=Status.COMPLETED)
    elif change == "running again":
        (store.folder(DIGEST) / "checkpoints").mkdir()
        (store.folder(DIGEST) / "checkpoints" / "iteration_000002-0.pt").touch()
    else:
        os.utime(store.folder(DIGEST))
    assert not store.prune(run, None, age)
    assert store.folder(DIGEST).is_dir()


def test_one_locked_run_does_not_stop_the_others(store, monkeypatch):
    for digest in ("a" * 12, "b" * 12, "c" * 12):
        fill(store, digest, Status.FAILED)
    monkeypatch.setenv("HETEROMARK_STORE", str(store.root))
    with store.writing("b" * 12):
        printed = CliRunner().invoke(store_app, ["prune", "--yes"])
    assert printed.exit_code == 0
    assert "kept: run bbbbbbbbbbbb is being trained now, so it was not removed" in printed.stdout
    assert "2 runs, 0.0 MiB, deleted" in printed.stdout
    assert [run.digest for run in store.runs()] == ["b" * 12]


def test_runs_are_listed_by_date_as_json_and_removed_one_by_one(store, monkeypatch):
    for digest, day in (("a" * 12, 3), ("b" * 12, 1), ("c" * 12, 2)):
        record = fill(store, digest)
        started = f"2026-01-0{day}T00:00:00+00:00"
        record.model_copy(update={"started": started}).write(store.folder(digest))
    monkeypatch.setenv("HETEROMARK_STORE", str(store.root))
    printed = CliRunner().invoke(store_app, ["ls", "--json"])
    listed = json.loads(printed.stdout)
    assert [run["digest"][0] for run in listed] == ["b", "c", "a"]
    assert listed[0]["record"]["agent"]["short_name"] == "demo_v1"
    lines = CliRunner().invoke(store_app, ["ls"]).stdout.splitlines()
    assert [line[0] for line in lines[:3]] == ["b", "c", "a"]
    removed = CliRunner().invoke(store_app, ["rm", "b" * 12, "a" * 12])
    assert removed.stdout.count("deleted: ") == 2
    assert [run.digest for run in store.runs()] == ["c" * 12]
    unknown = CliRunner().invoke(store_app, ["rm", "d" * 12])
    assert isinstance(unknown.exception, StoreError)
    assert "has no run dddddddddddd" in str(unknown.exception)


def test_the_variable_is_expanded_or_refused(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch")
    for written, read in (
        ("$SCRATCH/store", "/scratch/store"),
        ("${SCRATCH}/store", "/scratch/store"),
        ("~/store", str(Path.home() / "store")),
    ):
        monkeypatch.setenv("HETEROMARK_STORE", written)
        assert RunStore().root == Path(read)
    for refused in ("$NOWHERE/store", "${NOWHERE}/store", "~nobody_here/store"):
        monkeypatch.setenv("HETEROMARK_STORE", refused)
        with pytest.raises(StoreError, match=r"HETEROMARK_STORE is .*not set or a user"):
            RunStore()


COLLEAGUE = 65534


def _as_colleague(function, *arguments):
    """Call a function in a process of another user of the same group; return its result."""

    def call(results):
        os.setgid(GROUP)
        os.setgroups([])
        os.setuid(COLLEAGUE)
        os.umask(0o022)
        try:
            results.put(function(*arguments))
        except Exception as error:
            results.put(error)

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=call, args=(results,))
    process.start()
    result = results.get(timeout=20)
    process.join(20)
    return result


GROUP = 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


@pytest.fixture
def shared(tmp_path_factory):
    """A store in a folder that belongs to a group."""
    with tempfile.TemporaryDirectory() as root:
        os.chown(root, 0, GROUP)
        Path(root).chmod(0o2775)
        yield RunStore(Path(root) / "store")


@as_root
def test_colleagues_share_a_store(shared):
    os.umask(0o022)
    fill(shared, status=Status.INTERRUPTED)

    def use():
        assert [run.status for run in shared.runs()] == [Status.INTERRUPTED]
        assert not shared.verify()
        fill(shared, status=Status.COMPLETED)  # goes on with the run
        fill(shared, "b" * 12)
        shared.remove("b" * 12)
        return shared.lookup(DIGEST) is not None

    assert _as_colleague(use) is True
    fill(shared)


@as_root
def test_a_store_that_cannot_be_written_can_be_read(shared):
    """As with a colleague's lock files, which are read-only for others, or a read-only mount."""
    fill(shared)
    fill(shared, "b" * 12, Status.RUNNING)
    for path in [shared.root, *shared.root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)

    def read():
        statuses = {run.digest: run.status for run in shared.runs()}
        with tempfile.TemporaryDirectory() as target:
            shared.materialise(DIGEST, Path(target) / "run")
            copied = (Path(target) / "run" / "run.json").is_file()
        return statuses, shared.verify(), shared.lookup(DIGEST) is not None, copied

    expected = {DIGEST: Status.COMPLETED, "b" * 12: Status.INTERRUPTED}
    assert _as_colleague(read) == (expected, {}, True, True)
    with shared.writing("b" * 12):
        assert _as_colleague(shared.is_locked, "b" * 12) is True
    for function in (fill, RunStore.remove):
        refused = _as_colleague(function, shared, DIGEST)
        assert isinstance(refused, StoreError)
        assert "cannot be written" in str(refused)
        assert "HETEROMARK_STORE" in str(refused)
