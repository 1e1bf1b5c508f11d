"""Copies of an environment in worker processes. Imports no torch.

A worker is a fresh interpreter that receives two file descriptors: a socket for commands and
anonymous memory for the arrays. `multiprocessing` is not used for these reasons:

- forking is not safe once torch has started threads;
- spawning and the fork server run the program's main module again in each worker, which imports
  torch in a training run;
- named shared memory remains after processes are killed. Here nothing has a name.
"""

from __future__ import annotations

import faulthandler
import itertools
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from heteromark.environment.errors import (
    WorkerDied,
    WorkerTraceback,
    describe_exit,
    format_copies,
    make_picklable,
)
from heteromark.environment.pettingzoo.arrays import Layout, views_of
from heteromark.environment.pettingzoo.copies import Copies, CopySettings
from heteromark.environment.pettingzoo.episodes import RunningEpisode
from heteromark.runs.seal import note_reads

_CLOSE_TIMEOUT = 5.0  # seconds a worker has to close its copies

# The worker uses this process's module search path, so it also finds user-defined modules.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve()"

# a call's result, its exception, and the exception's traceback
_Reply = tuple[Any, BaseException | None, str]


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    first: int
    stop: int


class WorkerPool:
    """All N copies in worker processes, with the interface of `Copies`.

    Args:
        make_copies: the class of copies; see `Copies`.
        settings: see `CopySettings`.
        layouts: layouts of the N copies' arrays, in the order of `Copies`' arguments.
        num_copies: number of copies N.
        num_workers: number of processes, at most N; the copies are split evenly.

    Attributes:
        block: the memory of all arrays, one layout after the other.

    Raises:
        ValueError: the settings cannot be pickled; or see `Copies`.
        WorkerDied: a worker ended during startup.
    """

    def __init__(
        self,
        make_copies: Callable[..., Copies],
        settings: CopySettings,
        layouts: Sequence[Layout],
        num_copies: int,
        num_workers: int,
    ) -> None:
        self._name = settings.name
        size = sum(layout.size for layout in layouts)
        memory = _anonymous_memory(size)
        try:
            self.block = mmap.mmap(memory, size)
            bounds = [num_copies * k // num_workers for k in range(num_workers + 1)]
            self._workers = [
                _start(memory, first, stop) for first, stop in itertools.pairwise(bounds)
            ]
        finally:
            os.close(memory)
        # also runs when the interpreter exits or this object is garbage-collected
        self._finish = weakref.finalize(self, _shut_down, self._workers)
        try:
            self._send_settings((make_copies, settings, layouts))
        except BaseException:
            self.close()
            raise

    def _send_settings(self, settings: tuple[Any, ...]) -> None:
        try:
            pickled = pickle.dumps(settings)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"environment {self._name!r} cannot be sent to worker processes: {error}; specify "
                "its factory by an import path, or set environment.num_workers=0"
            ) from error
        for worker in self._workers:
            self._send(worker, pickled)
            self._send(worker, pickle.dumps((worker.first, worker.stop)))
        for worker in self._workers:
            _result(*self._receive(worker))

    # --- the interface of `Copies` -------------------------------------------------------------

    def reseed(self, seeds: Sequence[int]) -> None:
        """See `Copies.reseed`."""
        self._call("reseed", [(w, (seeds[w.first : w.stop],)) for w in self._workers])

    def reset(self, rows: Sequence[int]) -> None:
        """See `Copies.reset`; `rows` are indices among all copies."""
        rows_of = [
            (w, [row - w.first for row in rows if w.first <= row < w.stop]) for w in self._workers
        ]
        self._call("reset", [(worker, (own,)) for worker, own in rows_of if own])

    def step(self) -> None:
        """See `Copies.step`."""
        self._call("step", [(worker, ()) for worker in self._workers])

    def answer(self) -> None:
        """See `TurnCopies.answer`."""
        self._call("answer", [(worker, ()) for worker in self._workers])

    def running_episodes(self) -> list[RunningEpisode]:
        """See `Copies.running_episodes`."""
        shares = self._call("running_episodes", [(worker, ()) for worker in self._workers])
        return [episode for share in shares for episode in share]

    def continue_episodes(self, episodes: Sequence[RunningEpisode]) -> list[str | None]:
        """See `Copies.continue_episodes`."""
        calls = [(w, (episodes[w.first : w.stop],)) for w in self._workers]
        shares = self._call("continue_episodes", calls)
        return [why for share in shares for why in share]

    def render(self) -> np.ndarray:
        """See `Copies.render`."""
        return self._call("render", [(self._workers[0], ())])[0]

    def close(self) -> None:
        """Close every copy and end the workers; kill workers that do not end in time."""
        self._finish()

    # --- communication with workers ------------------------------------------------------------

    def _call(self, method: str, calls: Sequence[tuple[_Worker, tuple[Any, ...]]]) -> list[Any]:
        """Call a method in some workers, each with its arguments, and wait for all results."""
        if not self._finish.alive:
            raise RuntimeError(f"the workers of environment {self._name!r} have been closed")
        try:
            for worker, arguments in calls:
                self._send(worker, pickle.dumps((method, arguments)))
            replies = [self._receive(worker) for worker, _ in calls]
        except BaseException:
            # After a worker died or ctrl-C, commands and replies no longer match.
            self.close()
            raise
        return [_result(*reply) for reply in replies]

    def _send(self, worker: _Worker, message: bytes) -> None:
        try:
            worker.connection.send_bytes(message)
        except OSError as error:
            raise self._death_error(worker) from error

    def _receive(self, worker: _Worker) -> _Reply:
        try:
            return pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death_error(worker) from error

    def _death_error(self, worker: _Worker) -> WorkerDied:
        worker.connection.close()
        try:
            status = worker.process.wait(_CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            status = worker.process.wait()
        copies = format_copies(worker.first, worker.stop)
        return WorkerDied(
            f"the worker process with {copies} of environment {self._name!r} "
            f"{describe_exit(status)}; set environment.num_workers=0 to see where, or if it was "
            "killed, check whether the machine ran out of memory"
        )


def _result(value: Any, error: BaseException | None, where: str) -> Any:
    if error is not None:
        raise error from WorkerTraceback(where)
    return value


def _anonymous_memory(size: int) -> int:
    """Return a descriptor of unnamed memory, which is freed when the last process closes it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("heteromark")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _start(memory: int, first: int, stop: int) -> _Worker:
    ours, theirs = Pipe()
    with theirs:
        descriptors = (theirs.fileno(), memory)
        program = _PROGRAM.format(path=sys.path, module=__name__)
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, descriptors)],
            pass_fds=descriptors,
            # a separate process group: ctrl-C interrupts only the parent, which ends its workers
            process_group=0,
        )
    return _Worker(process, ours, first, stop)


def _shut_down(workers: Sequence[_Worker]) -> None:
    """End workers: each exits when its connection is closed, or is killed after a timeout."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


# --- in a worker process -----------------------------------------------------------------------


def serve() -> None:
    """Run a worker: execute the parent's commands until it closes the connection or dies."""
    connection, memory = Connection(int(sys.argv[1])), int(sys.argv[2])
    faulthandler.enable()
    note_reads()
    # The parent decides when a worker ends. SIG_IGN is not used because programs started by an
    # environment would inherit it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    held: list[Copies] = []
    try:
        _reply(connection, lambda: held.append(_make_copies(connection, memory)))
        while True:
            method, arguments = pickle.loads(connection.recv_bytes())
            _reply(connection, getattr(held[0], method), *arguments)
    except (EOFError, OSError):  # the parent closed the connection or died
        pass
    finally:
        for copies in held:
            copies.close()


def _make_copies(connection: Connection, memory: int) -> Copies:
    make_copies, settings, layouts = pickle.loads(connection.recv_bytes())
    first, stop = pickle.loads(connection.recv_bytes())
    block = mmap.mmap(memory, sum(layout.size for layout in layouts))
    os.close(memory)
    arrays = [
        {key: array[first:stop] for key, array in views.items()}
        for views in views_of(layouts, block)
    ]
    return make_copies(settings, *arrays, first=first)


def _reply(connection: Connection, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function and send its result or exception to the parent."""
    try:
        reply: _Reply = (function(*arguments), None, "")
    except Exception as error:
        reply = (None, make_picklable(error), traceback.format_exc())
    connection.send_bytes(pickle.dumps(reply))
