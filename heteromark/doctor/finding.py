"""The input and the output of a check: `Project` and `Finding`."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from heteromark.config.errors import Fault
from heteromark.runs.store import RunStore, StoredRun

GIBIBYTE = 2**30


class Level(IntEnum):
    """The severity of a finding. Only a problem makes the command fail."""

    OK = 0  # a fact, e.g. what was checked
    NOTE = 1  # worth knowing; nothing is wrong
    WARNING = 2  # works, but perhaps not as expected
    PROBLEM = 3  # a command fails, or a result cannot be trusted


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        file, key, value: what the finding is about, if they apply.
        command: fixes the problem when run in the project's folder.
        advice: what to do, if no command can fix it or in addition to the command.
    """

    level: Level
    message: str
    file: str = ""
    key: str = ""
    value: Any = None
    command: str = ""
    advice: str = ""

    def __str__(self) -> str:
        return str(Fault(self.file, self.message, self.key, self.value, kind=""))


ok = functools.partial(Finding, Level.OK)
note = functools.partial(Finding, Level.NOTE)
warning = functools.partial(Finding, Level.WARNING)
problem = functools.partial(Finding, Level.PROBLEM)


@dataclass(frozen=True)
class Project:
    """The project to check.

    Attributes:
        root: the project's folder.
        store: the run store.
        thorough: compare the contents of all runs in the store with their records. By default, only
            the presence of the files is checked.
        least_free: free disk space, in bytes, below which the check of the store warns.
    """

    root: Path
    store: RunStore
    thorough: bool = False
    least_free: int = 2 * GIBIBYTE

    @functools.cached_property
    def stored_runs(self) -> list[StoredRun]:
        """All runs of the store, listed once for all checks."""
        return self.store.runs()

    def display_path(self, path: Path) -> str:
        """Return a path as a user in the project's folder would type it."""
        # Do not resolve links: DVC may have linked results into its cache.
        path, root = Path(os.path.abspath(path)), Path(os.path.abspath(self.root))
        return str(path.relative_to(root) if path.is_relative_to(root) else path)
