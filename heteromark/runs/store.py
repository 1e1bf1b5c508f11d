"""The run store: keeps runs during and after training, addressed by digest.

Layout of `$HETEROMARK_STORE` (default: the user's cache directory):

    runs/{digest}/         run folder, with the checkpoints it resumes from
    locks/{digest}.lock    held by the one process that writes runs/{digest}
    quarantine/            folders whose files do not match their record; deleted only by hand

The store lies outside the repository. Temporary DVC workspaces therefore share it, and Snakemake
and DVC can delete and recreate results without training again.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from heteromark.runs.files import atomic_path, copy_atomic, sha256_of
from heteromark.runs.record import RECORD_FILE, RUN_FILES, RunRecord, Status

STORE_VARIABLE = "HETEROMARK_STORE"

log = logging.getLogger(__name__)


class StoreError(Exception):
    """The store cannot be used. The message says what to do."""


@dataclass(frozen=True)
class StoredRun:
    """One folder of the store. `record` is None when run.json is missing or unreadable."""

    digest: str
    folder: Path
    record: RunRecord | None
    status: Status | None
    size: int  # bytes
    modified: float  # seconds since the epoch

    @property
    def is_resumable(self) -> bool:
        """Whether an unfinished run has a checkpoint to resume from."""
        return any((self.folder / "checkpoints").glob("*.pt"))


def default_store() -> Path:
    """Return `$HETEROMARK_STORE`, or a folder in the user's cache directory if it is not set."""
    from platformdirs import user_cache_path

    chosen = os.environ.get(STORE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("heteromark") / "store"


class RunStore:
    """Runs by digest. All methods may be called from several processes at once."""

    def __init__(self, root: Path | None = None):
        self.root = Path(root) if root else default_store()

    def folder(self, digest: str) -> Path:
        """Return the folder of a run, whether it exists or not."""
        return self.root / "runs" / digest

    def check_writable(self) -> None:
        """Raise StoreError if the store cannot be written, before hours of training are lost."""
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
                f"Free space (`heteromark store prune` removes old runs), fix its permissions, "
                f"or set {STORE_VARIABLE} to another folder"
            ) from error

    def is_locked(self, digest: str) -> bool:
        """Return whether a running process is writing this run."""
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
        """Hold the run's lock and yield its folder; wait, with a warning, for another writer."""
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

    def shared_file(self, name: str, write: Callable[[Path], None]) -> Path:
        """Return a file that several runs start from; write it if it does not exist.

        Other processes wait while one writes the file.

        Args:
            name: identifies the content, e.g. a digest.
            write: writes the file to a path.

        Raises:
            StoreError: the store cannot be written.
        """
        path = self.root / "models" / f"{name}.pt"
        if not path.is_file():
            self.check_writable()
            path.parent.mkdir(exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.is_file():
                    with atomic_path(path) as temporary:
                        write(temporary)
        return path

    def lookup(self, digest: str) -> RunRecord | None:
        """Return the record of a finished run if all its files are intact, else None."""
        try:
            record = RunRecord.read(self.folder(digest))
        except (OSError, ValueError):
            return None
        whole = record.status.is_final and not damaged_files(self.folder(digest), record)
        return record if whole else None

    def set_damaged_aside(self, digest: str) -> None:
        """Move a finished run with damaged files to quarantine and report it.

        Call it with the run's lock held, before training the run again.
        """
        folder = self.folder(digest)
        try:
            record = RunRecord.read(folder)
        except FileNotFoundError:
            return
        except ValueError:
            self._quarantine(folder, [RECORD_FILE])
            return
        if record.status.is_final and (damaged := damaged_files(folder, record)):
            self._quarantine(folder, damaged)

    def materialise(self, digest: str, target: Path) -> None:
        """Copy a finished run's files to `target`, byte for byte, run.json last.

        Intact files that exist already are not touched and keep their modification times.
        """
        source = self.folder(digest)
        record = RunRecord.read(source)
        for name in (*(name for name in RUN_FILES if name in record.files), RECORD_FILE):
            destination = Path(target) / name
            if not _same_content(source / name, destination):
                copy_atomic(source / name, destination)

    def runs(self) -> list[StoredRun]:
        """Return all runs of the store. A run whose process died has status `interrupted`."""
        folders = sorted(self.root.joinpath("runs").glob("*"))
        return [self._stored(folder) for folder in folders if folder.is_dir()]

    def finished(self) -> Iterator[RunRecord]:
        """Yield the records of finished runs; skip unreadable ones."""
        for path in self.root.joinpath("runs").glob(f"*/{RECORD_FILE}"):
            with suppress(OSError, ValueError):
                record = RunRecord.read(path.parent)
                if record.status.is_final:
                    yield record

    def prunable(
        self, statuses: set[Status] | None = None, older_than: timedelta = timedelta()
    ) -> list[StoredRun]:
        """Return the runs that can be deleted.

        Args:
            statuses: select runs with one of these. None: failed and interrupted runs without a
                checkpoint to resume from.
            older_than: select runs last modified at least this long ago.
        """
        limit = time.time() - older_than.total_seconds()
        return [
            run
            for run in self.runs()
            if run.modified <= limit
            and (
                run.status in statuses
                if statuses
                else run.status in (Status.FAILED, Status.INTERRUPTED) and not run.is_resumable
            )
        ]

    def remove(self, digest: str) -> None:
        """Delete a run.

        Raises:
            StoreError: another process is writing it.
        """
        try:
            with self._lock(digest).acquire(timeout=0):
                shutil.rmtree(self.folder(digest))
        except Timeout as error:
            raise StoreError(f"run {digest} is being trained now, so it was not removed") from error

    def verify(self) -> dict[str, list[str]]:
        """Return the damaged files of finished runs by digest; empty if all runs are intact."""
        damaged = {}
        for run in self.runs():
            if run.record is None:
                damaged[run.digest] = [RECORD_FILE]
            elif run.record.status.is_final and (names := damaged_files(run.folder, run.record)):
                damaged[run.digest] = names
        return damaged

    def quarantined(self) -> list[Path]:
        """Return the folders in quarantine. Nothing deletes them automatically."""
        return sorted(self.root.joinpath("quarantine").glob("*"))

    def set_aside(self, digest: str) -> Path | None:
        """Move a run's folder to quarantine and return its new path, or None if it is missing."""
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
            "run %s in the store is damaged (%s does not match its record); "
            "moved it to %s and training it again",
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
        return StoredRun(
            folder.name, folder, record, status, _size_of(folder), folder.stat().st_mtime
        )


def damaged_files(folder: Path, record: RunRecord, contents: bool = True) -> list[str]:
    """Return the names of files that are missing or, with `contents`, differ from the record."""
    return [
        name
        for name, digest in sorted(record.files.items())
        if not (Path(folder) / name).is_file()
        or (contents and sha256_of(Path(folder) / name) != digest)
    ]


def _size_of(folder: Path) -> int:
    """Return the size of all files in bytes.

    A temporary file may disappear while another process trains.
    """
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def _same_content(source: Path, target: Path) -> bool:
    return (
        target.is_file()
        and target.stat().st_size == source.stat().st_size
        and sha256_of(target) == sha256_of(source)
    )
