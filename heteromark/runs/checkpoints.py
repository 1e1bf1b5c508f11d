"""The checkpoint files that a run resumes from.

A file's name holds its iteration and the hash of its content, so that damage is noticed before the
file is used: `checkpoints/iteration_{iteration}-{hash}.pt` in the run's folder. For the content,
see `training.checkpoint`.
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
    """One checkpoint of a run.

    Attributes:
        path: the file.
        iteration: number of iterations completed when it was written.
    """

    path: Path
    iteration: int

    def is_whole(self, content: bytes) -> bool:
        """Return whether `content` matches the hash in the file's name."""
        match = _NAME.match(self.path.name)
        return match is not None and match["hash"] == _hash(content)


def checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """Return the checkpoints in a run's folder, newest first."""
    found = [
        CheckpointFile(path, int(match["iteration"]))
        for path in (Path(folder) / FOLDER).glob("*.pt")
        if (match := _NAME.match(path.name))
    ]
    return sorted(found, key=lambda file: file.iteration, reverse=True)


def iteration_to_resume(folder: Path, num_iterations: int) -> int:
    """Return the iteration of the newest undamaged checkpoint; 0: there is none.

    Args:
        folder: of a run.
        num_iterations: of the run; later checkpoints are of another run.
    """
    for file in checkpoint_files(folder):
        if file.iteration <= num_iterations and file.is_whole(file.path.read_bytes()):
            return file.iteration
    return 0


def checkpoint_path(folder: Path, iteration: int, content: bytes) -> Path:
    """Return the path for a checkpoint with this content."""
    return Path(folder) / FOLDER / f"iteration_{iteration:06d}-{_hash(content)}.pt"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
