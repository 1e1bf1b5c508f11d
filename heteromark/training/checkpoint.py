"""Checkpoints for resuming a run exactly, and files of trained policies."""

from __future__ import annotations

import io
import logging
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from tensordict.nn import TensorDictModuleBase

from heteromark.algorithm.learner import Learner
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import flatten
from heteromark.modules.random_state import random_state, restore_random_state
from heteromark.runs.checkpoints import checkpoint_files, checkpoint_path
from heteromark.runs.files import atomic_path
from heteromark.runs.record import CHECKPOINT_FILE

if TYPE_CHECKING:
    from heteromark.environment.opponents.pool import OpponentPool

VERSION = 3

# Config keys that must match before a saved state can be read; tensor shapes are checked too.
_DECISIVE = ("agent.algorithm", "policy_type", "optimizer_type")
_POOL = "environment"  # the only key under "opponent_pools" in a checkpoint
_REMEDY = "resume with the original config, or delete the checkpoint to train from scratch"
logger = logging.getLogger("heteromark")


class Stateful(Protocol):
    """A part of a checkpoint: a network, an optimizer, a normaliser or an opponent pool."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class _PastPolicies:
    """An opponent pool, with the actors as templates for its policies."""

    pool: OpponentPool
    actors: Mapping[str, TensorDictModuleBase]

    def state_dict(self) -> dict[str, Any]:
        return self.pool.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pool.load_state_dict(state_dict, self.actors)


@dataclass(frozen=True)
class BestPolicy:
    """The policy with the best evaluation during training; the earliest one in a tie."""

    iteration: int  # iterations completed at its evaluation
    evaluation_return: float  # mean over the evaluation's episodes
    content: bytes  # content of its file, see `policy_content`


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    iteration: int = 0  # completed iterations
    elapsed: float = 0.0  # seconds of training over all attempts
    best: BestPolicy | None = None  # None: nothing was evaluated yet
    logger_runs: Mapping[str, str] = field(default_factory=dict)  # run ID by logging back end
    is_own: bool = True  # False: taken over from a shorter run that this run continues
    notes: tuple[str, ...] = ()  # what a reader of the results should know
    # only in a checkpoint: states of "collector" and "algorithm", where the next iteration starts
    in_flight: dict[str, Any] | None = None
    metrics: str = ""  # only in a checkpoint: content of metrics.csv


def save_checkpoint(folder: Path, config: RunConfig, learner: Learner, progress: Progress) -> Path:
    """Write everything needed to resume a run, and delete old checkpoints.

    Keeps the newest `training.keep_checkpoints` files. The checkpoint includes the best policy, so
    a resumed run never takes its best policy from an iteration after the checkpoint.

    Args:
        folder: the run's folder.

    Returns:
        The file, see `runs.checkpoints`.
    """
    content = _to_bytes(
        {
            "version": VERSION,
            "config": config.recorded(),
            "iteration": progress.iteration,
            "elapsed": progress.elapsed,
            "best": None if progress.best is None else vars(progress.best),
            "logger_runs": dict(progress.logger_runs),
            "notes": list(progress.notes),
            "state": {
                name: {key: part.state_dict() for key, part in parts.items()}
                for name, parts in _stateful(learner).items()
            },
            "in_flight": progress.in_flight,
            "metrics": zlib.compress(progress.metrics.encode()),
            "random": random_state(),
        }
    )
    path = checkpoint_path(folder, progress.iteration, content)
    write_policy(path, content)
    for outdated in checkpoint_files(folder)[config.training.keep_checkpoints :]:
        outdated.path.unlink()
    return path


def load_checkpoint(folder: Path, config: RunConfig, learner: Learner) -> Progress | None:
    """Restore the newest intact checkpoint in a run's folder, whatever device wrote it.

    Logs a warning for a damaged file, renames it to `*.corrupt` and tries the next older one.

    Returns:
        The restored progress. None: there is no intact checkpoint, and nothing was changed.

    Raises:
        ValueError: the checkpoint has a different version, algorithm or networks. The message
            names the difference, both values and the remedy.
    """
    candidates = [
        file for file in checkpoint_files(folder) if file.iteration <= config.num_iterations
    ]
    for i, candidate in enumerate(candidates):
        path = candidate.path
        content = path.read_bytes()
        if not candidate.is_whole(content):
            is_last = i + 1 == len(candidates)
            then = "training from scratch" if is_last else "trying the previous checkpoint"
            logger.warning("checkpoint %s is corrupt (hash mismatch); %s", path, then)
            path.rename(path.with_name(path.name + ".corrupt"))
            continue
        saved = _from_bytes(content, path)
        _check_version(saved, path)
        _check_config(saved["config"], config, path)
        _restore(_stateful(learner), saved["state"], path)
        restore_random_state(saved["random"])
        is_own = _is_of_this_run(saved["config"], config)
        return Progress(
            saved["iteration"],
            saved["elapsed"],
            None if saved["best"] is None else BestPolicy(**saved["best"]),
            saved["logger_runs"] if is_own else {},
            is_own,
            tuple(saved["notes"]),
            saved["in_flight"],
            zlib.decompress(saved["metrics"]).decode(),
        )
    return None


def policy_content(
    config: RunConfig, learner: Learner, iteration: int, evaluation_return: float | None
) -> bytes:
    """Return the content of checkpoint.pt or best.pt. The same policy gives the same bytes.

    Args:
        iteration: number of iterations the policy was trained for.
        evaluation_return: its mean evaluation return; None: not evaluated.
    """
    pool = learner.opponent_pool
    return _to_bytes(
        {
            "version": VERSION,
            "config": config.recorded(),
            "iteration": iteration,
            "evaluation_return": evaluation_return,
            "actors": {name: net.state_dict() for name, net in learner.actors.items()},
            "critics": {name: net.state_dict() for name, net in learner.critics.items()},
            "value_norms": {name: norm.state_dict() for name, norm in learner.value_norms.items()},
            "opponent_pool": None if pool is None else pool.state_dict(),
        }
    )


def write_policy(path: Path, content: bytes) -> None:
    """Write the content of a policy or a checkpoint atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_policy(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a policy from its file, or from a checkpoint in a run's checkpoints/ folder.

    Unpickles only tensors and plain containers. Moves all tensors to `device`.

    Returns:
        A dict with "config", "iteration", "evaluation_return" (None: not evaluated), "actors" by
        group, and "opponent_pool" (None: the run has no pool).

    Raises:
        ValueError: the file is missing, is damaged, has a different version or is not a policy.
            The message names the file and the remedy.
    """
    if not path.is_file():
        raise ValueError(
            f"checkpoint {path} does not exist; give the {CHECKPOINT_FILE} of a finished run"
        )
    saved = _from_bytes(path.read_bytes(), path, device)
    if not isinstance(saved, dict) or "version" not in saved:
        raise ValueError(
            f"{path} was not written by heteromark; give the {CHECKPOINT_FILE} of a run"
        )
    _check_version(saved, path)
    if "state" in saved:
        state = saved["state"]
        pool = state["opponent_pools"].get(_POOL)
        saved |= {"actors": state["actors"], "evaluation_return": None, "opponent_pool": pool}
    return saved


def shape_misfit(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Describe the first entry of a saved state that does not fit the expected one; None: all fit.

    Args:
        expected, found: flat state dicts. Only keys and shapes are compared.
    """
    for key in [*expected, *(key for key in found if key not in expected)]:
        if key not in found:
            return f"{key} is missing"
        if key not in expected:
            return f"{key} is unexpected"
        here, there = (getattr(state[key], "shape", None) for state in (expected, found))
        if here != there:
            return f"{key} has shape {_shape_text(there)}, expected {_shape_text(here)}"
    return None


def _shape_text(shape: torch.Size | None) -> str:
    return "none" if shape is None else str(list(shape))


def _stateful(learner: Learner) -> dict[str, dict[str, Stateful]]:
    pool = learner.opponent_pool
    return {
        "actors": dict(learner.actors),
        "critics": dict(learner.critics),
        "actor_optimizers": dict(learner.actor_optimizers),
        "critic_optimizers": dict(learner.critic_optimizers),
        "value_norms": dict(learner.value_norms),
        "opponent_pools": {} if pool is None else {_POOL: _PastPolicies(pool, learner.actors)},
    }


def _restore(
    stateful: dict[str, dict[str, Stateful]], state: dict[str, dict[str, Any]], path: Path
) -> None:
    """Load all states. Check names and shapes first, so that a misfit changes nothing."""
    for name, parts in stateful.items():
        if set(parts) != set(state[name]):
            raise ValueError(
                f"checkpoint {path} has {name} for {', '.join(state[name]) or 'nothing'}, but the "
                f"run has {name} for {', '.join(parts) or 'nothing'}; {_REMEDY}"
            )
        for key, part in parts.items():
            if isinstance(part, torch.nn.Module) and (
                misfit := shape_misfit(part.state_dict(), state[name][key])
            ):
                raise ValueError(
                    f"checkpoint {path} does not fit the run's {name} of {key!r}: {misfit}; "
                    f"{_REMEDY}"
                )
    for name, parts in stateful.items():
        for key, part in parts.items():
            try:
                part.load_state_dict(state[name][key])
            except (RuntimeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"checkpoint {path} does not fit the run's {name} of {key!r}: {error}; "
                    f"{_REMEDY}"
                ) from error


def _check_version(saved: dict[str, Any], path: Path) -> None:
    if saved["version"] != VERSION:
        raise ValueError(
            f"checkpoint {path} has format version {saved['version']}, but this heteromark reads "
            f"version {VERSION}; use the heteromark that wrote it, or delete the checkpoint to "
            "train from scratch"
        )


def _check_config(saved: dict[str, Any], config: RunConfig, path: Path) -> None:
    theirs, ours = flatten(saved), flatten(config.model_dump(mode="json"))
    for key in _DECISIVE:
        if theirs.get(key) != ours[key]:
            raise ValueError(
                f"checkpoint {path} was written with {key} = {theirs.get(key)!r}, but this run has "
                f"{ours[key]!r}; {_REMEDY}"
            )


def _is_of_this_run(saved: dict[str, Any], config: RunConfig) -> bool:
    """Return False for a checkpoint of a run with a different length or mode."""
    there = saved["mode"], saved["training"]["total_frames"]
    return there == (config.mode, config.training.total_frames)


def _to_bytes(content: dict[str, Any]) -> bytes:
    # Save to memory first: torch.save(path) would write the file's name into the file.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _from_bytes(content: bytes, path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (RuntimeError, EOFError, LookupError, pickle.UnpicklingError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or not a heteromark checkpoint; train the run again, or give a "
            f"different {CHECKPOINT_FILE}"
        ) from error
