"""What a check is given, and what it says."""

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
    """How bad it is. Only a problem makes the command fail."""

    OK = 0  # a fact, e.g. what was looked at
    NOTE = 1  # worth knowing; nothing is wrong
    WARNING = 2  # works, but not as one may think
    PROBLEM = 3  # a command fails, or a result is not to be trusted


@dataclass(frozen=True)
class Finding:
    """One thing that a check found. `file`, `key` and `value` as far as they apply.

    `command` mends it when it is typed in the project's folder; where no command can, `advice` says
    in words what to do.
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
    """What is examined: a project's folder, the run store, and how closely to look.

    With `thorough`, the contents of all runs in the store are compared with their records; without,
    only the presence of their files. `least_free` is in bytes.
    """

    root: Path
    store: RunStore
    thorough: bool = False
    least_free: int = 2 * GIBIBYTE

    @functools.cached_property
    def stored_runs(self) -> list[StoredRun]:
        """All runs of the store, listed once for all checks."""
        return self.store.runs()

    def shown(self, path: Path) -> str:
        """A path as a user in the project's folder would type it."""
        # not resolved: DVC may have linked results into its cache
        path, root = Path(os.path.abspath(path)), Path(os.path.abspath(self.root))
        return str(path.relative_to(root) if path.is_relative_to(root) else path)
