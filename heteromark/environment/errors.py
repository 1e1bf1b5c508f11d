"""Errors of environments and of the processes that step them. Imports no torch."""

from __future__ import annotations

import pickle
import signal


class IncompatibleOpponent(ValueError):
    """An opponent that cannot play in an environment.

    Args:
        kind: kind of the opponent.
        why: the reason, and what to do about it.
        key: the config key or option that selected it.
    """

    def __init__(self, kind: str, why: str, key: str = "environment.opponent.kind") -> None:
        super().__init__(kind, why, key)  # all arguments, so that the error can be pickled
        self.kind, self.why, self.key = kind, why, key

    def __str__(self) -> str:
        return f"{self.key} is {self.kind}, but {self.why}"

    def with_key(self, key: str) -> IncompatibleOpponent:
        """Return the same error for an opponent that another key selected."""
        return IncompatibleOpponent(self.kind, self.why, key)


class WorkerDied(RuntimeError):
    """A worker process ended, and its copies with it."""


class WorkerTraceback(Exception):
    """The worker's traceback, attached as the cause of the exception raised in the parent."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def format_copies(first: int, stop: int) -> str:
    """Name the copies from `first` up to, but not including, `stop`."""
    return f"copy {first}" if stop - first == 1 else f"copies {first} to {stop - 1}"


def describe_exit(status: int) -> str:
    """Describe how a process ended, given Python's exit status: negative for a signal."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"


def make_picklable(error: Exception) -> Exception:
    """Return the exception, or a RuntimeError with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
