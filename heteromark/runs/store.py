"""The run store: where runs live while and after they train, addressed by digest.

Layout of `$HETEROMARK_STORE` (default: the user's cache directory):

    runs/{digest}/         run folder, plus checkpoints/ while it trains
    locks/{digest}.lock    held by the one process that writes runs/{digest}
    quarantine/            folders whose files no longer match their record; never deleted unasked

The store lies outside the repository, so that temporary DVC workspaces share it, and Snakemake and
DVC may delete and rerun as they like without repeating expensive work.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from heteromark.runs.files import copy_atomic, sha256_of
from heteromark.runs.record import RECORD_FILE, RUN_FILES, RunRecord, Status

STORE_VARIABLE = "HETEROMARK_STORE"

log = logging.getLogger(__name__)


class StoreError(Exception):
    """The store cannot be used; the message says what to do."""


@dataclass(frozen=True)
class StoredRun:
    """One folder of the store. `record` is None when run.json is missing or unreadable."""

    digest: str
    folder: Path
    record: RunRecord | None
    status: Status | None
    size: int  # bytes


def default_store() -> Path:
    """`$HETEROMARK_STORE`, else a folder in the user's cache directory."""
    from platformdirs import user_cache_path

    chosen = os.environ.get(STORE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("heteromark") / "store"


class RunStore:
    """Runs by digest. All methods may be called from several processes at once."""

    def __init__(self, root: Path | None = None):
        self.root = Path(root) if root else default_store()

    def folder(self, digest: str) -> Path:
        """Folder of a run, whether it exists or not."""
        return self.root / "runs" / digest

    def check_writable(self) -> None:
        """Raise StoreError unless a file can be written here, before hours of training."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            (self.root / "locks").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(b"\0" * 4096)
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            raise StoreError(
                f"the run store {self.root} cannot be written: {error.strerror or error}. "
                f"Free space or mend its permissions (`heteromark store prune` removes old runs), "
                f"or point {STORE_VARIABLE} to another folder"
            ) from error

    def is_locked(self, digest: str) -> bool:
        """Whether a live process is writing this run now."""
        lock = self._lock(digest)
        if not Path(lock.lock_file).exists():
            return False
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    @contextmanager
    def writing(self, digest: str) -> Iterator[Path]:
        """Hold the run's lock; waits for another writer, and says so. Yields the run's folder."""
        self.check_writable()
        lock = self._lock(digest)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("run %s is being trained by another process; waiting for it", digest)
            lock.acquire()
        try:
            folder = self.folder(digest)
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
        finally:
            lock.release()

    def lookup(self, digest: str) -> RunRecord | None:
        """The record of a finished run whose files are whole, else None.

        A finished run with damaged files is moved to quarantine and reported, so that the caller
        trains it anew.
        """
        folder = self.folder(digest)
        try:
            record = RunRecord.read(folder)
        except OSError:  # none there; or the store is unusable, which check_writable tells
            return None
        except ValueError:
            self._quarantine(folder, [RECORD_FILE])
            return None
        if not record.status.is_final:
            return None
        damaged = damaged_files(folder, record)
        if damaged:
            self._quarantine(folder, damaged)
            return None
        return record

    def materialise(self, digest: str, target: Path) -> None:
        """Copy a finished run's files to `target`, byte for byte, run.json last.

        Files that are already there and whole are left alone, their times included.
        """
        source = self.folder(digest)
        record = RunRecord.read(source)
        for name in (*(name for name in RUN_FILES if name in record.files), RECORD_FILE):
            destination = Path(target) / name
            if not _same_content(source / name, destination):
                copy_atomic(source / name, destination)

    def runs(self) -> list[StoredRun]:
        """All runs of the store. A run whose process died counts as interrupted."""
        folders = sorted(self.root.joinpath("runs").glob("*"))
        return [self._stored(folder) for folder in folders if folder.is_dir()]

    def prunable(
        self, statuses: set[Status], older_than: timedelta = timedelta()
    ) -> list[StoredRun]:
        """Runs with one of the statuses, not being written, last touched that long ago."""
        limit = time.time() - older_than.total_seconds()
        return [
            run
            for run in self.runs()
            if run.status in statuses and run.folder.stat().st_mtime <= limit
        ]

    def remove(self, digest: str) -> None:
        """Delete a run, unless it is being written.

        Raises:
            StoreError: another process is writing it.
        """
        try:
            with self._lock(digest).acquire(timeout=0):
                shutil.rmtree(self.folder(digest))
        except Timeout as error:
            raise StoreError(f"run {digest} is being trained now; it was not removed") from error

    def verify(self) -> dict[str, list[str]]:
        """Damaged files of every finished run, by digest; empty when the store is whole."""
        damaged = {}
        for run in self.runs():
            if run.record is None:
                damaged[run.digest] = [RECORD_FILE]
            elif run.record.status.is_final and (names := damaged_files(run.folder, run.record)):
                damaged[run.digest] = names
        return damaged

    def set_aside(self, digest: str) -> Path | None:
        """Move a run's folder to quarantine, e.g. to train it anew; returns where it is now."""
        folder = self.folder(digest)
        if not folder.exists():
            return None
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        target = self.root / "quarantine" / f"{folder.name}-{stamp}"
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        return target

    def _lock(self, digest: str) -> FileLock:
        return FileLock(self.root / "locks" / f"{digest}.lock")

    def _quarantine(self, folder: Path, damaged: list[str]) -> None:
        target = self.set_aside(folder.name)
        log.warning(
            "run %s in the store is corrupt (%s no longer matches its record); "
            "moved to %s and training anew",
            folder.name,
            ", ".join(damaged),
            target,
        )

    def _stored(self, folder: Path) -> StoredRun:
        try:
            record = RunRecord.read(folder)
        except (OSError, ValueError):
            record = None
        status = record.status if record else None
        if status is Status.RUNNING and not self.is_locked(folder.name):
            status = Status.INTERRUPTED
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return StoredRun(folder.name, folder, record, status, size)


def damaged_files(folder: Path, record: RunRecord) -> list[str]:
    """Names of files that are missing or whose content is not what the record says."""
    return [
        name
        for name, digest in sorted(record.files.items())
        if not (Path(folder) / name).is_file() or sha256_of(Path(folder) / name) != digest
    ]


def _same_content(source: Path, target: Path) -> bool:
    return (
        target.is_file()
        and target.stat().st_size == source.stat().st_size
        and sha256_of(target) == sha256_of(source)
    )
