"""The run store: keeps runs during and after training, addressed by digest.

Layout of `$HETEROMARK_STORE` (default: the user's cache directory):

    runs/{digest}/         run folder, with the checkpoints it resumes from
    locks/{digest}.lock    held by the one process that writes runs/{digest}
    quarantine/            folders whose files do not match their record; deleted only by hand

The store lies outside the repository. Temporary DVC workspaces therefore share it, and Snakemake
and DVC can delete and recreate results without training again.
"""

from __future__ import annotations

import fcntl
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

from heteromark.runs.files import atomic_path, copy_atomic, file_mode, make_folder, sha256_of
from heteromark.runs.record import RECORD_FILE, RUN_FILES, RunRecord, Status

STORE_VARIABLE = "HETEROMARK_STORE"

log = logging.getLogger(__name__)


class StoreError(Exception):
    """The store cannot be used. The message says what to do."""


class RunIsLocked(StoreError):
    """Another process is writing a run."""


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
    """Return `$HETEROMARK_STORE`, or a folder in the user's cache directory if it is not set.

    `~` and variables in it are expanded.

    Raises:
        StoreError: it contains an unknown user or an unset variable.
    """
    from platformdirs import user_cache_path

    chosen = os.environ.get(STORE_VARIABLE)
    if not chosen:
        return user_cache_path("heteromark") / "store"
    expanded = os.path.expanduser(os.path.expandvars(chosen))
    if "$" in expanded or expanded.startswith("~"):
        raise StoreError(
            f"{STORE_VARIABLE} is {chosen!r}, which contains a variable that is not set or a user "
            "that does not exist; write the folder's full path"
        )
    return Path(expanded)


class RunStore:
    """Runs by digest. All methods may be called from several processes at once.

    Several people can share a store. Reading it takes no lock and writes nothing, so it works on
    read-only storage. New files and locks have the group permissions of the folder they are in.
    """

    def __init__(self, root: Path | None = None):
        self.root = Path(root) if root else default_store()

    def folder(self, digest: str) -> Path:
        """Return the folder of a run, whether it exists or not."""
        return self.root / "runs" / digest

    def check_writable(self) -> None:
        """Raise StoreError if the store cannot be written, before hours of training are lost."""
        try:
            make_folder(self.root / "runs")
            make_folder(self.root / "locks")
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
        """Return whether a running process is writing this run; True if that cannot be read."""
        path = self._lock_path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def writing(self, digest: str, wait: bool = True) -> Iterator[Path]:
        """Hold the run's lock and yield its folder; wait, with a warning, for another writer.

        Raises:
            RunIsLocked: another process is writing the run, and `wait` is False.
            StoreError: the store cannot be written.
        """
        self.check_writable()
        lock = self._lock(digest)
        with self._lock_errors_explained(digest):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                message = f"run {digest} is being trained by another process"
                if not wait:
                    raise RunIsLocked(message) from None
                log.warning("%s; waiting for it", message)
                lock.acquire()
        try:
            folder = self.folder(digest)
            make_folder(folder)
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
        with self._missing(path) as is_missing:
            if is_missing:
                with atomic_path(path) as temporary:
                    write(temporary)
        return path

    def shared_folder(self, name: str, write: Callable[[Path], None]) -> Path:
        """Return a folder that several runs start from; see `shared_file`."""
        path = self.root / "models" / name
        with self._missing(path) as is_missing:
            if is_missing:
                with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=path.parent) as temporary:
                    written = Path(temporary, name)
                    write(written)
                    written.rename(path)
        return path

    @contextmanager
    def _missing(self, path: Path) -> Iterator[bool]:
        """Yield whether a shared file or folder must be written; others wait until it is."""
        if path.exists():
            yield False
            return
        self.check_writable()
        make_folder(path.parent)
        with FileLock(path.with_suffix(".lock"), mode=file_mode(path.parent)):
            yield not path.exists()

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
        return [run for run in self.runs() if _is_prunable(run, statuses, older_than)]

    def prune(self, run: StoredRun, statuses: set[Status] | None, older_than: timedelta) -> bool:
        """Delete a run of `prunable`, unless it no longer is: its training may have gone on.

        Returns:
            Whether the run was deleted.

        Raises:
            StoreError: another process is writing it, or the store cannot be written.
        """
        with self._removing(run.digest) as now:
            # Nobody else writes it now: a record that says so belongs to an ended process.
            still = now is not None and _is_prunable(now, statuses, older_than)
            if still:
                shutil.rmtree(run.folder)
        return still

    def remove(self, digest: str) -> StoredRun:
        """Delete a run, whatever its status, and return it.

        Raises:
            StoreError: there is no such run, another process is writing it, or the store cannot be
                written.
        """
        if not self.folder(digest).is_dir():
            raise StoreError(f"the store {self.root} has no run {digest}; see heteromark store ls")
        with self._removing(digest) as run:
            if run is None:
                raise StoreError(f"run {digest} was removed by another process")
            shutil.rmtree(run.folder)
        return run

    @contextmanager
    def _removing(self, digest: str) -> Iterator[StoredRun | None]:
        """Hold a run's lock and yield the run as it is now; None: it is gone."""
        try:
            with self._lock_errors_explained(digest), self._lock(digest).acquire(timeout=0):
                folder = self.folder(digest)
                yield self._stored(folder, is_ours=True) if folder.is_dir() else None
        except Timeout as error:
            raise StoreError(f"run {digest} is being trained now, so it was not removed") from error

    @contextmanager
    def _lock_errors_explained(self, digest: str) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            path = self._lock_path(digest)
            place = error.filename or path
            raise StoreError(
                f"{place} cannot be written: {error.strerror}. In a store that a group shares, "
                f"everything belongs to the group and is writable for it: its owner can run "
                f"`chgrp -R GROUP {self.root}`, `chmod -R g+rwX {self.root}` and `find "
                f"{self.root} -type d -exec chmod g+s {{}} +`. Or set {STORE_VARIABLE} to a folder "
                "of your own"
            ) from error

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
        make_folder(target.parent)
        folder.rename(target)
        return target

    def _lock_path(self, digest: str) -> Path:
        return self.root / "locks" / f"{digest}.lock"

    def _lock(self, digest: str) -> FileLock:
        path = self._lock_path(digest)
        make_folder(path.parent)
        return FileLock(path, mode=file_mode(path.parent))

    def _quarantine(self, folder: Path, damaged: list[str]) -> None:
        target = self.set_aside(folder.name)
        log.warning(
            "run %s in the store is damaged (%s does not match its record); "
            "moved it to %s and training it again",
            folder.name,
            ", ".join(damaged),
            target,
        )

    def _stored(self, folder: Path, is_ours: bool = False) -> StoredRun:
        """Describe a run; `is_ours`: this process holds its lock."""
        try:
            record = RunRecord.read(folder)
        except (OSError, ValueError):
            record = None
        status = record.status if record else None
        if status is Status.RUNNING and (is_ours or not self.is_locked(folder.name)):
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


def _is_prunable(run: StoredRun, statuses: set[Status] | None, older_than: timedelta) -> bool:
    if run.modified > time.time() - older_than.total_seconds():
        return False
    if statuses:
        return run.status in statuses
    return run.status in (Status.FAILED, Status.INTERRUPTED) and not run.is_resumable


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
