"""Copies of an environment split over worker processes. Imports no torch.

A worker is a fresh interpreter that is given two file descriptors: a socket for commands and a
file of anonymous memory for the arrays. Compared with `multiprocessing`: forking is not safe once
torch has threads; spawning and the fork server run the program's main module again in each worker,
which for a training run means importing torch; and named shared memory is left behind when
processes are killed. Here nothing has a name, so that nothing can be left behind.
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
    copies_in_words,
    ending_in_words,
    sendable,
)
from heteromark.environment.pettingzoo.arrays import Layout, views_of
from heteromark.environment.pettingzoo.copies import Copies, CopySettings

_PATIENCE = 5.0  # seconds that a worker is given to close its copies

# The worker finds modules where this process does, the user's own included.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve()"

# what a call returned, what it raised, and the traceback of that
_Reply = tuple[Any, BaseException | None, str]


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen
    connection: Connection
    first: int
    stop: int


class WorkerPool:
    """All N copies, in worker processes; does what `Copies` does.

    Args:
        make_copies: the class of copies; see `Copies`.
        settings: see there.
        layouts: of the N copies' arrays, in the order in which `Copies` takes them.
        num_workers: number of processes, at most N; each has N / num_workers copies, give or take
            one.

    Attributes:
        block: the memory of all arrays, one layout after the other.

    Raises:
        ValueError: the settings cannot be sent to another process; or what `Copies` raises.
        WorkerDied: a worker ended while it started.
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
        # also when the interpreter exits, or this object is forgotten
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
                f"environment {self._name!r} cannot be sent to worker processes: {error}; name its "
                "factory by an import path, or set environment.num_workers=0"
            ) from error
        for worker in self._workers:
            self._send(worker, pickled)
            self._send(worker, pickle.dumps((worker.first, worker.stop)))
        for worker in self._workers:
            _result(*self._receive(worker))

    # --- what `Copies` does --------------------------------------------------------------------

    def reseed(self, seeds: Sequence[int]) -> None:
        """See `Copies.reseed`."""
        self._ask("reseed", [(w, (seeds[w.first : w.stop],)) for w in self._workers])

    def reset(self, rows: Sequence[int]) -> None:
        """See `Copies.reset`; `rows` count through all copies."""
        theirs = [
            (w, [row - w.first for row in rows if w.first <= row < w.stop]) for w in self._workers
        ]
        self._ask("reset", [(worker, (own,)) for worker, own in theirs if own])

    def step(self) -> None:
        """See `Copies.step`."""
        self._ask("step", [(worker, ()) for worker in self._workers])

    def answer(self) -> None:
        """See `TurnCopies.answer`."""
        self._ask("answer", [(worker, ()) for worker in self._workers])

    def render(self) -> np.ndarray:
        """See `Copies.render`."""
        return self._ask("render", [(self._workers[0], ())])[0]

    def close(self) -> None:
        """Close every copy and end the workers; a worker that does not end is killed."""
        self._finish()

    # --- talking to workers --------------------------------------------------------------------

    def _ask(self, method: str, asked: Sequence[tuple[_Worker, tuple[Any, ...]]]) -> list[Any]:
        """Call a method in some workers, each with its arguments, and wait for all results."""
        if not self._finish.alive:
            raise RuntimeError(f"the workers of environment {self._name!r} have been closed")
        try:
            for worker, arguments in asked:
                self._send(worker, pickle.dumps((method, arguments)))
            replies = [self._receive(worker) for worker, _ in asked]
        except BaseException:
            # Commands and replies no longer match, be it by a death or by ctrl-C.
            self.close()
            raise
        return [_result(*reply) for reply in replies]

    def _send(self, worker: _Worker, message: bytes) -> None:
        try:
            worker.connection.send_bytes(message)
        except OSError as error:
            raise self._death(worker) from error

    def _receive(self, worker: _Worker) -> _Reply:
        try:
            return pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death(worker) from error

    def _death(self, worker: _Worker) -> WorkerDied:
        worker.connection.close()
        try:
            status = worker.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            status = worker.process.wait()
        copies = copies_in_words(worker.first, worker.stop)
        return WorkerDied(
            f"the worker process with {copies} of environment {self._name!r} "
            f"{ending_in_words(status)}; set environment.num_workers=0 to see where, or check the "
            "machine's memory if it was killed"
        )


def _result(value: Any, error: BaseException | None, where: str) -> Any:
    if error is not None:
        raise error from WorkerTraceback(where)
    return value


def _anonymous_memory(size: int) -> int:
    """A descriptor of memory that has no name and is freed when the last process closes it."""
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
            # a group of its own: ctrl-C reaches only the parent, which then ends its workers
            process_group=0,
        )
    return _Worker(process, ours, first, stop)


def _shut_down(workers: Sequence[_Worker]) -> None:
    """End workers: each ends by itself when its connection is closed."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _PATIENCE
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


# --- within a worker ---------------------------------------------------------------------------


def serve() -> None:
    """A worker's program: hold copies and do what the parent asks until it closes or dies."""
    connection, memory = Connection(int(sys.argv[1])), int(sys.argv[2])
    faulthandler.enable()
    # The parent decides when a worker ends. Not SIG_IGN, which programs that an environment starts
    # would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    held: list[Copies] = []
    try:
        _reply(connection, lambda: held.append(_make_copies(connection, memory)))
        while True:
            method, arguments = pickle.loads(connection.recv_bytes())
            _reply(connection, getattr(held[0], method), *arguments)
    except (EOFError, OSError):  # the parent closed the connection, or is gone
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
    """Call, and send the parent what came of it."""
    try:
        reply: _Reply = (function(*arguments), None, "")
    except Exception as error:
        reply = (None, sendable(error), traceback.format_exc())
    connection.send_bytes(pickle.dumps(reply))
