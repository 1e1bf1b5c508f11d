"""Idempotent training: take the run from the store, resume it or train it; then copy its files.

Imports torch only if there is something to train, so that a store hit takes well under a second.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from heteromark.commands.continuation import continue_shorter_run
from heteromark.config.errors import ConfigError
from heteromark.config.files import to_yaml
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.packages import package_faults
from heteromark.runs.digest import (
    chosen_trainer,
    config_digest,
    run_digest,
    trajectory_digest,
    versions,
)
from heteromark.runs.files import file_mode, make_folder, sha256_of, write_text_atomic
from heteromark.runs.metrics import OnProgress
from heteromark.runs.record import (
    CONFIG_FILE,
    LOG_FILE,
    RUN_FILES,
    STUB,
    AgentIdentity,
    ContinuedRun,
    Outcome,
    RunRecord,
    Status,
)
from heteromark.runs.seal import Seal
from heteromark.runs.store import RunStore, StoreError

log = logging.getLogger("heteromark")

# Disk full, quota exceeded, file too large, read-only file system, permission denied.
_STORE_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

Steps = Generator[float, None, Outcome]  # of a training, see `training.loop`
TrainingSteps = Callable[..., Steps]
Attempt = Generator[float, None, tuple[RunRecord, bool]]


class Terminated(BaseException):
    """A signal asked the process to end. Not an Exception, so that no handler swallows it."""

    def __init__(self, signal_number: int):
        self.signal_number = signal_number
        super().__init__(signal.Signals(signal_number).name)


class RunFailed(Exception):
    """A run ended with an error. The message names the error and the log file."""


def train_run(
    config: RunConfig,
    *,
    config_path: str | None = None,
    target: Path | None = None,
    store: RunStore | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> tuple[RunRecord, bool]:
    """Train a run unless it is in the store, and copy its files to `target`.

    Args:
        config: the run.
        config_path: the agent config's path, for the record.
        target: folder to copy the finished run to. None: leave it in the store only.
        store: default: the user's store.
        resume: False: set an unfinished attempt aside and start from scratch. A finished run is
            taken from the store in any case, because training it again would give the same result.
        on_progress: called with (frames, total frames, metrics) after each iteration.

    Returns:
        The run's record, and whether the run was found in the store.

    Raises:
        ConfigError: a logging back end is not installed, or the config does not fit the machine or
            the groups of its environment.
        StoreError: the store cannot be written.
        Terminated: a signal stopped the run. The last checkpoint is kept; the same call resumes.
        RunFailed: the run failed; its record has status failed.
    """
    store = store or RunStore()
    digest = run_digest(config)
    record = store.lookup(digest)
    from_store = record is not None
    if record is None:
        if faults := package_faults(config):
            raise ConfigError(faults)
        seal = Seal(config)
        steps = attempt(config, seal, store, config_path, on_progress, resume=resume)
        with seal.noting(), ending_on_signals():
            [result] = interleave([steps])
        if isinstance(result, Exception):
            raise result
        record, from_store = result
    if target is not None:
        store.materialise(digest, target)
    return record, from_store


def interleave(attempts: Sequence[Attempt]) -> list[tuple[RunRecord, bool] | Exception]:
    """Advance attempts by one step each, again and again, until all have ended.

    An attempt that fails leaves the others alone. A BaseException that is not an Exception, such as
    Terminated, ends all of them.

    Returns:
        For each attempt its result, or the exception that ended it.
    """
    results: dict[int, tuple[RunRecord, bool] | Exception] = {}
    try:
        while len(results) < len(attempts):
            for number in range(len(attempts)):
                if number in results:
                    continue
                try:
                    next(attempts[number])
                except StopIteration as end:
                    results[number] = end.value
                except Exception as error:
                    results[number] = error
    except BaseException as stop:
        for number, each in enumerate(attempts):
            if number not in results:
                with suppress(type(stop), Exception):  # so that each of them is ended
                    each.throw(stop)
        raise
    return [results[number] for number in range(len(attempts))]


def attempt(
    config: RunConfig,
    seal: Seal,
    store: RunStore,
    config_path: str | None = None,
    on_progress: OnProgress | None = None,
    *,
    resume: bool = True,
    wait: bool = True,
    command: Sequence[str] | None = None,
    training_steps: TrainingSteps | None = None,
) -> Attempt:
    """Train a run in the store, unless another process finishes it meanwhile.

    See `train_run` for what is not described here.

    Args:
        seal: of the run; `noting` while the attempt lasts.
        wait: wait for another process that trains the run.
        command: trains the run, for the record; default: this process's.
        training_steps: trains it; default: `training.loop.training_steps`.

    Returns:
        The run's record, and whether another process finished it.

    Raises:
        RunIsLocked: another process trains the run, and `wait` is False.
    """
    digest = run_digest(config)
    with store.writing(digest, wait) as folder:
        if finished := store.lookup(digest):
            return finished, True
        store.set_damaged_aside(digest)
        if not resume and (aside := store.set_aside(digest)):
            log.info("the unfinished attempt was moved to %s", aside)
        make_folder(folder)
        continued = continue_shorter_run(config, folder, store) if resume else None
        record = _opening_record(folder, config, digest, config_path, continued)
        known = {"used": seal.used, "command": [*(command or sys.argv)]}
        record = record.model_copy(update=known)
        steps = _train(config, folder, record, seal, on_progress, training_steps)
        return (yield from _recorded(folder, config, record, steps)), False


def _recorded(
    folder: Path, config: RunConfig, record: RunRecord, steps: Steps
) -> Generator[float, None, RunRecord]:
    """Train a run, and keep its record and its log up to date."""
    stopwatch = Stopwatch(record.duration_seconds or 0.0)

    def close(status: Status, reason: str | None = None, **changes: object) -> RunRecord:
        closed = record.model_copy(
            update={
                "status": status,
                "reason": reason,
                "ended": _now(),
                "duration_seconds": stopwatch.seconds,
                "pid": None,
                **changes,
            }
        )
        closed.write(folder)
        return closed

    with _as_store_error(folder):
        record.write(folder)
        write_text_atomic(folder / CONFIG_FILE, to_yaml(config.recorded()))
        try:
            outcome = yield from _logged(folder / LOG_FILE, steps, stopwatch)
        except Terminated as stop:
            close(Status.INTERRUPTED, f"ended by {stop}")
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            close(Status.FAILED, reason)
            if isinstance(error, ConfigError) or _is_store_trouble(error, folder):
                raise
            raise RunFailed(
                f"run {record.digest} failed: {reason}\nTraceback: {folder / LOG_FILE}"
            ) from error
        files = {name: sha256_of(folder / name) for name in RUN_FILES if (folder / name).is_file()}
        return close(
            outcome.status,
            outcome.reason,
            summary=outcome.summary,
            device=outcome.device,
            notes=outcome.notes,
            files=files,
        )


def _train(
    config: RunConfig,
    folder: Path,
    record: RunRecord,
    seal: Seal,
    on_progress: OnProgress | None,
    training_steps: TrainingSteps | None,
) -> Steps:
    log.info("run %s, attempt %d, in %s", record.digest, record.attempts, folder)
    if record.continued is not None:
        log.info("continuing from the shorter run %s", record.continued.digest)
    # Set these before torch is imported: its thread pools read them only once.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(config.training.num_threads)
    if chosen_trainer() == STUB:
        from heteromark.commands import stub

        return stub.train(config, folder, on_progress=on_progress)
    if training_steps is None:
        from heteromark.training import loop

        training_steps = loop.training_steps
    open_loggers = None
    if config.logger.backends:
        from heteromark.commands.loggers import MetricLoggers

        open_loggers = MetricLoggers

    def check(frames: int, total: int, metrics: dict[str, float]) -> None:
        seal.check()
        if on_progress is not None:
            on_progress(frames, total, metrics)

    outcome = yield from training_steps(
        config, folder, on_progress=check, open_loggers=open_loggers
    )
    seal.check_at_end()
    return outcome


@dataclass
class Stopwatch:
    """Seconds that a run took, without the turns of other runs in the same process."""

    seconds: float


def _logged(path: Path, steps: Steps, stopwatch: Stopwatch) -> Steps:
    """Write what is logged during a run's steps to its log file, and add up their time."""
    if not path.exists():
        path.touch()
        path.chmod(file_mode(path.parent))
    with closing(logging.FileHandler(path, encoding="utf-8")) as handler:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        try:
            while True:
                began = time.monotonic()
                with _logging_to(handler):
                    try:
                        stopwatch.seconds += next(steps)
                    except StopIteration as end:
                        outcome: Outcome = end.value
                        stopwatch.seconds += outcome.borrowed
                        return outcome
                    finally:
                        stopwatch.seconds += time.monotonic() - began
                yield 0.0
        except BaseException as error:
            with _logging_to(handler):
                log.debug("the run did not finish", exc_info=error)
                steps.close()
            raise


def _opening_record(
    folder: Path,
    config: RunConfig,
    digest: str,
    config_path: str | None,
    continued: ContinuedRun | None,
) -> RunRecord:
    try:
        earlier = RunRecord.read(folder)
        attempts, started = earlier.attempts + 1, earlier.started
        seconds = earlier.duration_seconds
        continued = continued or earlier.continued
    except (FileNotFoundError, ValueError):
        attempts, started, seconds = 1, _now(), None
    named = config.agent.model_dump(include=set(AgentIdentity.model_fields))
    identity = AgentIdentity(short_name=config.agent.short_name, config_path=config_path, **named)
    return RunRecord(
        digest=digest,
        config_digest=config_digest(config),
        trajectory=trajectory_digest(config),
        agent=identity,
        environment=config.environment.name,
        kind=config.kind,
        trainer=chosen_trainer(),
        mode=config.mode,
        seed=config.seed,
        status=Status.RUNNING,
        started=started,
        duration_seconds=seconds,
        attempts=attempts,
        continued=continued,
        host=platform.node(),
        pid=os.getpid(),
        git=_git_state(),
        versions={"python": platform.python_version(), **versions()},
        command=sys.argv,
    )


@contextmanager
def _as_store_error(folder: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a StoreError that names the remedy."""
    try:
        yield
    except OSError as error:
        if not _is_store_trouble(error, folder):
            raise
        raise StoreError(
            f"cannot write {error.filename or folder}: {error.strerror}. The last checkpoint is "
            "kept: free space or fix the permissions, then run the same command to resume. "
            "`heteromark store prune` lists runs that are no longer needed"
        ) from error


def _is_store_trouble(error: Exception, folder: Path) -> bool:
    """Return whether the error comes from writing to the run's folder in the store."""
    if not isinstance(error, OSError) or error.errno not in _STORE_TROUBLE:
        return False
    return error.filename is None or Path(error.filename).is_relative_to(folder)


@contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.DEBUG)  # for tracebacks in this file; the console has its own level
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn signals into Terminated, so that the record gets the status interrupted.

    Ignored signals stay ignored, so that `nohup` keeps a run alive when its terminal closes.
    """

    def end(number: int, _frame: object) -> None:
        raise Terminated(number)

    earlier = {
        number: signal.signal(number, end)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _git_state() -> dict[str, object]:
    """Return the commit and whether there are uncommitted changes; {} outside a git repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
