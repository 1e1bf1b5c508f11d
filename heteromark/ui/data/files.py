"""List the files of a run, and the commands that resume and evaluate it."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from heteromark.runs.record import BEST_FILE, CHECKPOINT_FILE, EVALUATION_FILE, Status
from heteromark.runs.store import STORE_VARIABLE
from heteromark.ui.data.history import HistoryRun

MODULES = {"factory_train.py": "heteromark.training.factory_train"}


@dataclass(frozen=True)
class Command:
    """A command line to copy, and its purpose."""

    purpose: str
    line: str


def checkpoints_of(run: HistoryRun) -> pd.DataFrame:
    """Return the weight files of a run, newest first.

    Returns:
        Columns file (relative to the run's folder), size (bytes), written (local time).
    """
    rows = []
    for path in filter(Path.is_file, run.folder.rglob("*.pt")):
        state = path.stat()
        name = path.relative_to(run.folder).as_posix()
        rows.append((name, state.st_size, datetime.fromtimestamp(state.st_mtime)))
    table = pd.DataFrame(rows, columns=["file", "size", "written"])
    return table.sort_values(["written", "file"], ascending=False, ignore_index=True)


def pictures_of(run: HistoryRun) -> list[Path]:
    """Return the animated GIFs in the run's folders, sorted by name."""
    folders = (run.folder, *run.copies)
    found = {path.resolve() for folder in folders for path in folder.glob("*.gif")}
    return sorted(found, key=lambda path: (path.name, path))


@dataclass(frozen=True)
class Evaluation:
    """The final evaluation of a run: returns per episode, and wins if the environment has them."""

    deterministic: bool
    returns: tuple[float, ...]
    wins: tuple[bool, ...] | None


def evaluation_of(run: HistoryRun) -> Evaluation | None:
    """Read evaluation.json; None if it is missing, empty or invalid.

    Episodes without a finite return are skipped.
    """
    try:
        report = json.loads((run.folder / EVALUATION_FILE).read_text(encoding="utf-8"))
        wins = report["wins"]
        played = [
            (float(value), wins and bool(wins[episode]))
            for episode, value in enumerate(report["returns"])
            if value is not None
        ]
        deterministic = bool(report["deterministic"])
    except (OSError, ValueError, TypeError, LookupError):
        return None
    if not played:
        return None
    returns, won = zip(*played, strict=True)
    return Evaluation(deterministic, returns, won if wins else None)


def resume_command(run: HistoryRun) -> Command | None:
    """Return the command that resumes an unfinished run: the one that started it."""
    if run.record is None or run.status not in (Status.INTERRUPTED, Status.FAILED):
        return None
    if not run.record.command:
        return None
    script, *arguments = run.record.command
    module = MODULES.get(Path(script).name)
    program = ["python", "-m", module] if module else ["heteromark"]
    return Command("Resume from the last checkpoint", _line_with_store([*program, *arguments]))


def evaluate_commands(run: HistoryRun, checkpoints: pd.DataFrame) -> list[Command]:
    """Return commands that evaluate the final and best weights, or else the newest checkpoint."""
    files = list(checkpoints["file"])
    if not files:
        return []
    words = ["heteromark", "evaluate", str(run.copies[0]) if run.copies else run.key]
    best = ["--checkpoint", "best"]
    line_of = shlex.join if run.copies else _line_with_store
    noun = "problems" if run.is_language_model_run else "episodes"
    chosen: list[str] = []
    purpose = f"Evaluate the final weights on new {noun}"
    if CHECKPOINT_FILE not in files:
        newest = next((file for file in files if file != BEST_FILE), BEST_FILE)
        purpose = f"Evaluate the newest checkpoint on new {noun}"
        chosen = best if newest == BEST_FILE else ["--checkpoint", newest]
    commands = [Command(purpose, line_of([*words, *chosen, "--episodes", "100"]))]
    if BEST_FILE in files and CHECKPOINT_FILE in files:
        line = line_of([*words, *best, "--episodes", "100"])
        commands.append(Command("Evaluate the best weights", line))
    if run.is_language_model_run:
        return commands  # text has no GIF; the page shows transcripts
    picture = (run.copies[0] if run.copies else run.folder) / "episode.gif"
    line = line_of([*words, *chosen, "--episodes", "1", "--gif", str(picture)])
    return [*commands, Command("Record an episode as a GIF; this page then shows it", line)]


def _line_with_store(words: list[str]) -> str:
    """Return a command line that uses this run store; the variable is set unless it is default."""
    chosen = os.environ.get(STORE_VARIABLE)
    return (f"{STORE_VARIABLE}={shlex.quote(chosen)} " if chosen else "") + shlex.join(words)
