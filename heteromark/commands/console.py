"""Console output of `heteromark` and `factory_train`: errors, and how a run ended."""

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
    """Log to the console, and make modules in the working directory importable."""
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])
    if str(Path.cwd()) not in sys.path:  # as with `python -m`
        sys.path.insert(0, str(Path.cwd()))


def set_verbosity(level: int) -> None:
    """Set the least severe level of messages that are printed; progress has the level INFO."""
    logging.getLogger("heteromark").setLevel(level)
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)


@contextmanager
def exit_on_expected_errors(*others: type[Exception]) -> Iterator[None]:
    """Turn expected errors into a message and an exit status instead of a traceback.

    Exit status: 2 for an invalid configuration, 1 for a failed command, 128 + n for signal n.

    Args:
        others: further exceptions that mean a failed command, besides RunFailed and StoreError.
    """
    failures: tuple[type[Exception], ...] = (StoreError, RunFailed, *others)
    try:
        yield
    except ConfigError as error:
        _end(f"error: {error}", 2)
    except failures as error:
        _end(f"error: {error}", 1)
    except Terminated as stop:
        message = f"{stop}: stopped; run the same command to resume from the last checkpoint"
        _end(message, 128 + stop.signal_number)
    except BrokenPipeError:  # the reader of the output, e.g. `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _end("SIGINT: stopped; finished training is kept", 128 + signal.SIGINT)


def outcome_lines(record: RunRecord, from_store: bool, folder: Path) -> list[str]:
    """Return lines with the run's status, its figures and the folder of its files."""
    summary = record.summary
    figures = (
        f"frames {summary.frames}, final return {figure(summary.final_return)}, "
        f"evaluation return {figure(summary.evaluation_return)}"
    )
    origin = "found in the run store" if from_store else "trained"
    if not from_store and record.continued is not None:
        origin += f", continued from iteration {record.continued.iteration} of "
        origin += record.continued.digest
    lines = [f"{record.status}: {record.digest} ({origin}); {figures}"]
    if record.reason:
        lines.append(f"reason: {record.reason}")
    return [*lines, f"files: {folder}"]


def figure(value: float | None) -> str:
    """Format a number with two decimals, or a dash for None."""
    return "-" if value is None else f"{value:.2f}"


def _end(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)
