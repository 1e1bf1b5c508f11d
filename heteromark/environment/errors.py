"""What environments and the processes that step them raise. Imports no torch."""

from __future__ import annotations

import pickle
import signal


class OpponentMisfit(ValueError):
    """An opponent that cannot play in an environment.

    Args:
        kind: of the opponent.
        why: what is the matter, and what to do about it.
        key: the config key or option that asked for it.
    """

    def __init__(self, kind: str, why: str, key: str = "environment.opponent.kind") -> None:
        super().__init__(kind, why, key)  # all of it, so that it can be sent between processes
        self.kind, self.why, self.key = kind, why, key

    def __str__(self) -> str:
        return f"{self.key} is {self.kind}, but {self.why}"

    def under(self, key: str) -> OpponentMisfit:
        """The same for an opponent that another key asked for."""
        return OpponentMisfit(self.kind, self.why, key)


class WorkerDied(RuntimeError):
    """A worker process ended, and its copies with it."""


class WorkerTraceback(Exception):
    """Where an exception was raised in its worker; the cause of the exception raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def copies_in_words(first: int, stop: int) -> str:
    """Of the copies of a process, `first` to before `stop`."""
    return f"copy {first}" if stop - first == 1 else f"copies {first} to {stop - 1}"


def ending_in_words(status: int) -> str:
    """How a process ended, given its exit status as Python has it: negative for a signal."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"


def sendable(error: Exception) -> Exception:
    """The exception, or what it says if it cannot be sent to the parent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
