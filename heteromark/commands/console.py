"""What `heteromark` and `factory_train` tell on the console: faults, and how a run ended."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heteromark.commands.launch import RunFailed, Terminated
from heteromark.config.errors import ConfigError
from heteromark.runs.record import RunRecord
from heteromark.runs.store import StoreError


def prepare_process() -> None:
    """Log to the console, and find a user's environments in the working directory."""
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])
    if str(Path.cwd()) not in sys.path:  # as with `python -m`
        sys.path.insert(0, str(Path.cwd()))


@contextmanager
def expected_errors_told(*others: type[Exception]) -> Iterator[None]:
    """Expected errors become one message and an exit status, not a traceback.

    Exit status: 2 for a faulty configuration, 1 for a failed command, 128 + n for signal n.

    Args:
        others: exceptions that mean a failed command, besides those of a run and of the store.
    """
    try:
        yield
    except ConfigError as error:
        _end(f"error: {error}", 2)
    except (StoreError, RunFailed, *others) as error:
        _end(f"error: {error}", 1)
    except Terminated as stop:
        message = f"{stop}: stopped; the same command resumes from the last checkpoint"
        _end(message, 128 + stop.signal_number)
    except BrokenPipeError:  # whoever read the output, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _end("SIGINT: stopped; what has been trained is kept", 128 + signal.SIGINT)


def outcome_lines(record: RunRecord, from_store: bool, folder: Path) -> list[str]:
    """How a run ended, its figures, and where its files are."""
    summary = record.summary
    figures = (
        f"frames {summary.frames}, final return {figure(summary.final_return)}, "
        f"evaluation return {figure(summary.evaluation_return)}"
    )
    origin = "found in the run store" if from_store else "trained"
    if not from_store and record.continued is not None:
        origin += f", from iteration {record.continued.iteration} of {record.continued.digest} on"
    lines = [f"{record.status}: {record.digest} ({origin}); {figures}"]
    if record.reason:
        lines.append(f"reason: {record.reason}")
    return [*lines, f"files: {folder}"]


def figure(value: float | None) -> str:
    """A number for people, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def _end(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)
