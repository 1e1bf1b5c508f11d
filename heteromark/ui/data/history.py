"""Find all runs in the run store and below results/, each once.

A file is read again only when its modification time or size has changed. A damaged run never
raises: its row is marked unreadable. Only the last row of metrics.csv is read, and only for
unfinished runs.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from heteromark.config.files import read_mapping
from heteromark.config.models.algorithms import LLM
from heteromark.runs.record import CONFIG_FILE, METRICS_FILE, RECORD_FILE, RunRecord, Status
from heteromark.runs.store import RunStore
from heteromark.ui.data.metrics import newest_row
from heteromark.workflow.aggregate import describe_error

# In addition to `Status`: the run's folder has no readable record.
UNREADABLE = "unreadable"
STATUSES = (*(status.value for status in Status), UNREADABLE)


@dataclass(frozen=True)
class HistoryRun:
    """One finished or unfinished run.

    Attributes:
        key: the digest; without a readable record, the name or path of the folder.
        folder: the folder in the run store, or else below results/.
        status: one of `STATUSES`. A run that is recorded as running but has no process is
            interrupted.
        reason: why the run failed, diverged, was interrupted or is unreadable.
        copies: folders of the run below results/.
        frames: environment frames so far.
        total_frames: planned frames of a run that is training; else None.
        training_return: final return; for unfinished runs, of the newest iteration.
        frames_per_second: mean; for unfinished runs, of the newest iteration.
        seconds: wall-clock time so far, over all attempts.
    """

    key: str
    folder: Path
    status: str
    reason: str | None
    record: RunRecord | None
    copies: tuple[Path, ...] = ()
    frames: int = 0
    total_frames: int | None = None
    training_return: float | None = None
    frames_per_second: float | None = None
    seconds: float | None = None

    def readable_record(self) -> RunRecord:
        """Return the record of a run that is known to have one.

        Raises:
            ValueError: the run is unreadable.
        """
        if self.record is None:
            raise ValueError(f"run {self.key} has no readable record: {self.reason}")
        return self.record

    @property
    def name(self) -> str:
        """The short name of the config; without a readable record, the key."""
        return self.key if self.record is None else self.record.agent.short_name

    @property
    def is_language_model_run(self) -> bool:
        """Whether the agents are language models."""
        return self.record is not None and self.record.kind == LLM

    @property
    def config_digest(self) -> str | None:
        """Digest of the config, the same for all its seeds."""
        return None if self.record is None else self.record.config_digest

    @property
    def started(self) -> datetime | None:
        """Start of the first attempt, in UTC."""
        try:
            return None if self.record is None else datetime.fromisoformat(self.record.started)
        except ValueError:
            return None


class History:
    """The runs of a store and of a results folder. Thread-safe."""

    def __init__(self, store: RunStore, results: Path) -> None:
        self.store = store
        self.results = Path(results)
        self._records = _Reader(RECORD_FILE, lambda path: RunRecord.read(path.parent))
        self._newest_rows = _Reader(METRICS_FILE, newest_row)
        self._totals = _Reader(CONFIG_FILE, _total_frames)
        self._lock = threading.Lock()

    def runs(self) -> list[HistoryRun]:
        """Return all runs, newest start first; runs without a known start come last."""
        with self._lock:
            runs = {folder.name: self._run(folder, True) for folder in _stored(self.store)}
            copies: defaultdict[str, list[Path]] = defaultdict(list)
            for folder in _record_folders(self.results):
                copy = self._run(folder, False)
                copies[copy.key].append(folder)
                runs.setdefault(copy.key, copy)
        found = [replace(run, copies=tuple(copies[key])) for key, run in runs.items()]
        return sorted(found, key=_newest_first)

    def _run(self, folder: Path, is_stored: bool) -> HistoryRun:
        record, fault = self._records.read(folder)
        if record is None:
            key = folder.name if is_stored else folder.as_posix()
            return HistoryRun(key, folder, UNREADABLE, fault, None)
        key = folder.name if is_stored else record.digest
        run = HistoryRun(key, folder, record.status.value, record.reason, record)
        if record.status.is_final:
            summary = record.summary
            return replace(
                run,
                frames=summary.frames,
                training_return=summary.final_return,
                frames_per_second=summary.frames_per_second,
                seconds=record.duration_seconds,
            )
        is_running = record.status is Status.RUNNING
        if is_running and not (is_stored and self._is_locked(key)):
            is_running = False
            reason = "the process ended without a result: it was killed, or the machine went down"
            run = replace(run, status=Status.INTERRUPTED.value, reason=reason)
        row = self._newest_rows.read(folder)[0] or {}
        return replace(
            run,
            frames=int(row.get("frames", 0)),
            total_frames=self._totals.read(folder)[0] if is_running else None,
            training_return=row.get("episode_return"),
            frames_per_second=row.get("frames_per_second"),
            seconds=_seconds_so_far(folder, record, is_running),
        )

    def _is_locked(self, digest: str) -> bool:
        """Whether a process is training the run; True if a read-only store cannot be checked."""
        try:
            return self.store.is_locked(digest)
        except OSError:
            return True


class _Reader:
    """Read one file name in many folders. Contents are cached until the file changes."""

    def __init__(self, name: str, read: Callable[[Path], Any]) -> None:
        self._name = name
        self._read = read
        self._cache: dict[Path, tuple[tuple[int, int], Any, str]] = {}

    def read(self, folder: Path) -> tuple[Any, str]:
        """Return the content of the file and "", or None and the reason why it cannot be read."""
        path = folder / self._name
        try:
            state = os.stat(path)
        except OSError as error:
            return None, f"{path}: {error.strerror}"
        version = (state.st_mtime_ns, state.st_size)
        cached = self._cache.get(folder)
        if cached is None or cached[0] != version:
            cached = self._cache[folder] = (version, *self._load(path))
        return cached[1:]

    def _load(self, path: Path) -> tuple[Any, str]:
        try:
            return self._read(path), ""
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
            return None, f"{path}: {describe_error(error)}"


def _stored(store: RunStore) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(store.root / "runs"), key=lambda entry: entry.name)
    except OSError:  # nothing has been trained yet
        return
    yield from (Path(entry.path) for entry in entries if entry.is_dir())


def _record_folders(results: Path) -> Iterator[Path]:
    """Yield the folders with a record, at any depth; the subfolders of a run are skipped."""
    for folder, subfolders, files in os.walk(results):
        subfolders.sort()
        if RECORD_FILE in files:
            subfolders.clear()
            yield Path(folder)


def _newest_first(run: HistoryRun) -> tuple[float, str]:
    started = run.started
    return (0.0 if started is None else -started.timestamp(), run.key)


def _total_frames(config_file: Path) -> int:
    """Return the total frames of a config, rounded up to whole iterations."""
    config = read_mapping(config_file)
    batch = config["collector"]["frames_per_batch"]
    return -(-config["training"]["total_frames"] // batch) * batch


def _seconds_so_far(folder: Path, record: RunRecord, is_running: bool) -> float | None:
    """Return the time of earlier attempts (in the record) plus the time since it was written."""
    if record.status is not Status.RUNNING:
        return record.duration_seconds
    try:
        began = os.stat(folder / RECORD_FILE).st_mtime
        last = time.time() if is_running else os.stat(folder / METRICS_FILE).st_mtime
    except OSError:
        return record.duration_seconds
    return (record.duration_seconds or 0.0) + max(0.0, last - began)
