"""Which runs there are: those of the run store and those below results/, each once.

A look costs what changed since the last: a file that has the same modification time and size is
not read again. Nothing about a run raises: an unreadable record is a row that says so. Of
metrics.csv only the newest row is read, and only of runs that have not finished.
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

# Besides the values of `Status`: the run's folder has no record that can be read.
UNREADABLE = "unreadable"
STATUSES = (*(status.value for status in Status), UNREADABLE)


@dataclass(frozen=True)
class HistoryRun:
    """One run, as far as it has come.

    Attributes:
        key: its digest; without a readable record the name or the path of its folder.
        folder: where its files are: in the run store if it is there, else below results/.
        status: one of `STATUSES`. A run whose record says that it trains, but whose process is
            gone, is interrupted.
        copies: its folders below results/.
        frames: so far.
        total_frames: of a run that is training, how many it will be.
        training_return: at the end; of an unfinished run that of its newest iteration.
        frames_per_second: on average; of an unfinished run those of its newest iteration.
        seconds: of wall-clock time so far, over all attempts.
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

    @property
    def name(self) -> str:
        """The config's short name; of a run without a readable record its key."""
        return self.key if self.record is None else self.record.agent.short_name

    @property
    def is_of_language_models(self) -> bool:
        """Whether language-model agents were trained."""
        return self.record is not None and self.record.kind == LLM

    @property
    def config_digest(self) -> str | None:
        """What it has in common with the other seeds of its config."""
        return None if self.record is None else self.record.config_digest

    @property
    def started(self) -> datetime | None:
        """Start of the first attempt, in UTC."""
        try:
            return None if self.record is None else datetime.fromisoformat(self.record.started)
        except ValueError:
            return None


class History:
    """The runs of a store and of a results folder. May be asked by several threads."""

    def __init__(self, store: RunStore, results: Path) -> None:
        self.store = store
        self.results = Path(results)
        self._records = _Reader(RECORD_FILE, lambda path: RunRecord.read(path.parent))
        self._newest_rows = _Reader(METRICS_FILE, newest_row)
        self._totals = _Reader(CONFIG_FILE, _total_frames)
        self._asking = threading.Lock()

    def runs(self) -> list[HistoryRun]:
        """All runs, the newest start first; those whose start is not known come last."""
        with self._asking:
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
        if is_running and not (is_stored and self._is_written(key)):
            is_running = False
            reason = "its process is gone without a word: it was killed, or the machine went down"
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

    def _is_written(self, digest: str) -> bool:
        try:
            return self.store.is_locked(digest)
        except OSError:  # a store that may only be read: nothing speaks against the record
            return True


class _Reader:
    """Reads a file of one name in many folders, each again only when it has changed."""

    def __init__(self, name: str, read: Callable[[Path], Any]) -> None:
        self._name = name
        self._read = read
        self._known: dict[Path, tuple[tuple[int, int], Any, str]] = {}

    def read(self, folder: Path) -> tuple[Any, str]:
        """What the file holds, or None and why it cannot be read."""
        path = folder / self._name
        try:
            state = os.stat(path)
        except OSError as error:
            return None, f"{path}: {error.strerror}"
        version = (state.st_mtime_ns, state.st_size)
        known = self._known.get(folder)
        if known is None or known[0] != version:
            known = self._known[folder] = (version, *self._look(path))
        return known[1:]

    def _look(self, path: Path) -> tuple[Any, str]:
        try:
            return self._read(path), ""
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
            return None, f"{path}: {describe_error(error)}"


def _stored(store: RunStore) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(store.root / "runs"), key=lambda entry: entry.name)
    except OSError:  # nothing was trained yet
        return
    yield from (Path(entry.path) for entry in entries if entry.is_dir())


def _record_folders(results: Path) -> Iterator[Path]:
    """Folders with a record, at any depth; what lies within one of them belongs to it."""
    for folder, inner, files in os.walk(results):
        inner.sort()
        if RECORD_FILE in files:
            inner.clear()
            yield Path(folder)


def _newest_first(run: HistoryRun) -> tuple[float, str]:
    started = run.started
    return (0.0 if started is None else -started.timestamp(), run.key)


def _total_frames(config_file: Path) -> int:
    """Frames that a run's config asks for, in whole iterations."""
    config = read_mapping(config_file)
    batch = config["collector"]["frames_per_batch"]
    return -(-config["training"]["total_frames"] // batch) * batch


def _seconds_so_far(folder: Path, record: RunRecord, is_running: bool) -> float | None:
    """Of earlier attempts, by the record; and of this one, which began when it was written."""
    if record.status is not Status.RUNNING:
        return record.duration_seconds
    try:
        began = os.stat(folder / RECORD_FILE).st_mtime
        last = time.time() if is_running else os.stat(folder / METRICS_FILE).st_mtime
    except OSError:
        return record.duration_seconds
    return (record.duration_seconds or 0.0) + max(0.0, last - began)
