"""What lies in a run's folders, and the commands that make something of it."""

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
    """A command line to copy, and what it is for."""

    purpose: str
    line: str


def checkpoints_of(run: HistoryRun) -> pd.DataFrame:
    """The run's files with weights, the newest first: file, size in bytes, time of writing."""
    rows = []
    for path in filter(Path.is_file, run.folder.rglob("*.pt")):
        state = path.stat()
        name = path.relative_to(run.folder).as_posix()
        rows.append((name, state.st_size, datetime.fromtimestamp(state.st_mtime)))
    table = pd.DataFrame(rows, columns=["file", "size", "written"])
    return table.sort_values(["written", "file"], ascending=False, ignore_index=True)


def pictures_of(run: HistoryRun) -> list[Path]:
    """Animated GIFs that lie in the run's folders, by name."""
    folders = (run.folder, *run.copies)
    found = {path.resolve() for folder in folders for path in folder.glob("*.gif")}
    return sorted(found, key=lambda path: (path.name, path))


@dataclass(frozen=True)
class Evaluation:
    """A run's final evaluation: its episodes' returns, and who won where that is known."""

    deterministic: bool
    returns: tuple[float, ...]
    wins: tuple[bool, ...] | None


def evaluation_of(run: HistoryRun) -> Evaluation | None:
    """What evaluation.json says; None where it is missing, empty, or no evaluation.

    Episodes whose return is not finite are left out.
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
    """How to go on with an unfinished run: with the command that it was started by."""
    if run.record is None or run.status not in (Status.INTERRUPTED, Status.FAILED):
        return None
    if not run.record.command:
        return None
    script, *arguments = run.record.command
    module = MODULES.get(Path(script).name)
    program = ["python", "-m", module] if module else ["heteromark"]
    return Command("go on from the last checkpoint", _line_with_store([*program, *arguments]))


def evaluate_commands(run: HistoryRun, checkpoints: pd.DataFrame) -> list[Command]:
    """How to evaluate what the run has: final and best weights, or its newest checkpoint."""
    files = list(checkpoints["file"])
    if not files:
        return []
    words = ["heteromark", "evaluate", str(run.copies[0]) if run.copies else run.key]
    best = ["--checkpoint", "best"]
    line_of = shlex.join if run.copies else _line_with_store
    met = "problems" if run.is_of_language_models else "episodes"
    if CHECKPOINT_FILE in files:
        told, chosen = f"evaluate the final weights on fresh {met}", []
    else:
        newest = next((file for file in files if file != BEST_FILE), BEST_FILE)
        told = f"evaluate the newest checkpoint on fresh {met}"
        chosen = best if newest == BEST_FILE else ["--checkpoint", newest]
    commands = [Command(told, line_of([*words, *chosen, "--episodes", "100"]))]
    if BEST_FILE in files and CHECKPOINT_FILE in files:
        line = line_of([*words, *best, "--episodes", "100"])
        commands.append(Command("evaluate the best weights", line))
    if run.is_of_language_models:
        return commands  # what they say cannot be drawn; the page has it in words
    picture = (run.copies[0] if run.copies else run.folder) / "episode.gif"
    line = line_of([*words, *chosen, "--episodes", "1", "--gif", str(picture)])
    return [*commands, Command("draw an episode, to be seen on this page", line)]


def _line_with_store(words: list[str]) -> str:
    """A command line that looks into the store, which is named where it is not the default one."""
    chosen = os.environ.get(STORE_VARIABLE)
    return (f"{STORE_VARIABLE}={shlex.quote(chosen)} " if chosen else "") + shlex.join(words)
