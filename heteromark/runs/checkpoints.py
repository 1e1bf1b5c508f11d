"""The checkpoints that a run is resumed from, as files: their names say how far they are.

`checkpoints/iteration_{iteration}-{hash}.pt` in a run's folder, with the hash of its content, so
that damage is noticed before it is used. What is in them: `training.checkpoint`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = "checkpoints"
_NAME = re.compile(r"^iteration_(?P<iteration>\d+)-(?P<hash>[0-9a-f]{16})\.pt$")


@dataclass(frozen=True)
class CheckpointFile:
    """One of a run's checkpoints.

    Attributes:
        path: the file.
        iteration: whole iterations that it was taken after.
    """

    path: Path
    iteration: int

    def is_whole(self, content: bytes) -> bool:
        """Whether the file's content is what was written."""
        return _NAME.match(self.path.name)["hash"] == _hash(content)


def checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """The checkpoints in a run's folder, newest first."""
    found = [
        CheckpointFile(path, int(match["iteration"]))
        for path in (Path(folder) / FOLDER).glob("*.pt")
        if (match := _NAME.match(path.name))
    ]
    return sorted(found, key=lambda file: file.iteration, reverse=True)


def checkpoint_path(folder: Path, iteration: int, content: bytes) -> Path:
    """Where a checkpoint with this content belongs."""
    return Path(folder) / FOLDER / f"iteration_{iteration:06d}-{_hash(content)}.pt"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
