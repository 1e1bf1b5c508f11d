"""Checkpoints: to continue a run exactly, and to keep the trained policy."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heteromark.algorithm.base import Learner
from heteromark.config.schema import RunConfig
from heteromark.runs.files import atomic_path
from heteromark.runs.record import CHECKPOINT_FILE
from heteromark.training.random_state import random_state, restore_random_state

VERSION = 1
FOLDER = "checkpoints"
KEPT = 2

_NAME = re.compile(r"^iteration_(?P<iteration>\d+)-(?P<hash>[0-9a-f]{16})\.pt$")
logger = logging.getLogger("heteromark")


@dataclass(frozen=True)
class Progress:
    """How far a run has come: whole iterations, and seconds of training over all attempts."""

    iteration: int = 0
    elapsed: float = 0.0


def save_checkpoint(folder: Path, learner: Learner, progress: Progress) -> Path:
    """Write everything a run needs to continue, and drop all but the newest two.

    The file's name carries the hash of its content, so damage is noticed before it is used.

    Args:
        folder: the run's folder.

    Returns:
        the file, `checkpoints/iteration_{iteration}-{hash}.pt`.
    """
    content = _to_bytes(
        {
            "version": VERSION,
            "iteration": progress.iteration,
            "elapsed": progress.elapsed,
            "state": {
                name: {key: part.state_dict() for key, part in parts.items()}
                for name, parts in _stateful(learner).items()
            },
            "random": random_state(),
        }
    )
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = folder / FOLDER / f"iteration_{progress.iteration:06d}-{digest}.pt"
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    for outdated in _checkpoints(folder)[KEPT:]:
        outdated.unlink()
    return path


def load_checkpoint(folder: Path, learner: Learner) -> Progress | None:
    """Continue from the newest good checkpoint of a run's folder.

    A damaged file is reported, set aside as `*.corrupt`, and the one before it is tried.

    Returns:
        how far the run had come; None if there is no good checkpoint, and nothing was changed.

    Raises:
        ValueError: the checkpoint is of another version, or of other networks.
    """
    candidates = _checkpoints(folder)
    for i, path in enumerate(candidates):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] != _NAME.match(path.name)["hash"]:
            then = "trying the one before it" if i + 1 < len(candidates) else "training anew"
            logger.warning("checkpoint %s is corrupt (hash differs); %s", path, then)
            path.rename(path.with_name(path.name + ".corrupt"))
            continue
        saved = _from_bytes(content, path)
        _check_version(saved, path)
        _restore(learner, saved["state"], path)
        restore_random_state(saved["random"])
        return Progress(saved["iteration"], saved["elapsed"])
    return None


def save_policy(folder: Path, config: RunConfig, learner: Learner) -> Path:
    """Write checkpoint.pt: the config and the weights, for evaluation. Same weights, same bytes."""
    content = _to_bytes(
        {
            "version": VERSION,
            "config": config.model_dump(mode="json"),
            "actors": {name: net.state_dict() for name, net in learner.policies.actors.items()},
            "critics": {name: net.state_dict() for name, net in learner.policies.critics.items()},
            "value_norms": {name: norm.state_dict() for name, norm in learner.value_norms.items()},
        }
    )
    path = folder / CHECKPOINT_FILE
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def read_policy(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of a checkpoint.pt, unpickling nothing but tensors and plain containers.

    Raises:
        ValueError: the file is missing, damaged, of another version or no policy; the message
            names the file and says what to do.
    """
    if not path.is_file():
        raise ValueError(
            f"there is no checkpoint {path}; give the {CHECKPOINT_FILE} of a finished run"
        )
    saved = _from_bytes(path.read_bytes(), path, device)
    if not isinstance(saved, dict) or "version" not in saved:
        raise ValueError(f"{path} was not written by heteromark; give a run's {CHECKPOINT_FILE}")
    _check_version(saved, path)
    if "config" not in saved:
        raise ValueError(
            f"{path} holds a run's progress, no policy; give a run's {CHECKPOINT_FILE}"
        )
    return saved


def _stateful(learner: Learner) -> dict[str, dict[str, Any]]:
    return {
        "actors": dict(learner.policies.actors),
        "critics": dict(learner.policies.critics),
        "actor_optimizers": dict(learner.actor_optimizers),
        "critic_optimizers": dict(learner.critic_optimizers),
        "value_norms": dict(learner.value_norms),
    }


def _restore(learner: Learner, state: dict[str, dict[str, Any]], path: Path) -> None:
    for name, parts in _stateful(learner).items():
        if set(parts) != set(state[name]):
            raise ValueError(
                f"checkpoint {path} holds {name} of {', '.join(state[name]) or 'nothing'}, but the "
                f"run has {', '.join(parts) or 'none'}; delete the checkpoint to train anew"
            )
        for key, part in parts.items():
            try:
                part.load_state_dict(state[name][key])
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"checkpoint {path} does not fit the run's {name} of {key}: {error}; delete "
                    "the checkpoint to train anew"
                ) from error


def _checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, newest first."""
    named = [path for path in (folder / FOLDER).glob("*.pt") if _NAME.match(path.name)]
    return sorted(named, key=lambda path: int(_NAME.match(path.name)["iteration"]), reverse=True)


def _check_version(saved: dict[str, Any], path: Path) -> None:
    if saved["version"] != VERSION:
        raise ValueError(
            f"checkpoint {path} has version {saved['version']}, but this heteromark reads version "
            f"{VERSION}; use the heteromark that wrote it, or delete it to train anew"
        )


def _to_bytes(content: dict[str, Any]) -> bytes:
    # through memory, because torch.save writes the name of the file into the file
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _from_bytes(content: bytes, path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (RuntimeError, EOFError, LookupError, pickle.UnpicklingError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint of heteromark; train the run again, or give "
            f"another {CHECKPOINT_FILE}"
        ) from error
