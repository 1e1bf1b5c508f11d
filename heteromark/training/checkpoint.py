"""Checkpoints: to continue a run exactly, and to keep trained policies."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from tensordict.nn import TensorDictModuleBase

from heteromark.algorithm.learner import Learner
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import flatten
from heteromark.runs.checkpoints import checkpoint_files, checkpoint_path
from heteromark.runs.files import atomic_path
from heteromark.runs.record import CHECKPOINT_FILE
from heteromark.training.random_state import random_state, restore_random_state

if TYPE_CHECKING:
    from heteromark.environment.opponents.pool import OpponentPool

VERSION = 2

# What decides how a state is to be read, beyond the shapes of its tensors.
_DECISIVE = ("agent.algorithm", "policy_type", "optimizer_type")
_POOL = "environment"  # the one entry of a checkpoint's opponent pools
_REMEDY = "resume with the config that it was written with, or delete it to train anew"
logger = logging.getLogger("heteromark")


class Stateful(Protocol):
    """What a checkpoint saves and restores: networks, optimizers, normalisers, opponent pools."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class _PastPolicies:
    """An opponent pool, whose policies are built like the actors."""

    pool: OpponentPool
    actors: Mapping[str, TensorDictModuleBase]

    def state_dict(self) -> dict[str, Any]:
        return self.pool.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pool.load_state_dict(state_dict, self.actors)


@dataclass(frozen=True)
class BestPolicy:
    """The policy that did best of those evaluated while training; the earliest of equals."""

    iteration: int  # after which it was evaluated
    evaluation_return: float  # mean over the evaluation's episodes
    content: bytes  # its file, see `policy_content`


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    iteration: int = 0  # whole iterations
    elapsed: float = 0.0  # seconds of training over all attempts
    best: BestPolicy | None = None  # None: nothing was evaluated yet
    # what the run is called by back ends that metrics are sent to
    logger_runs: Mapping[str, str] = field(default_factory=dict)
    is_own: bool = True  # False: it was reached by a shorter run, which this one continues


def save_checkpoint(folder: Path, config: RunConfig, learner: Learner, progress: Progress) -> Path:
    """Write everything a run needs to continue; drop all but `training.keep_checkpoints` files.

    The best policy is part of it, so that what a resumed run knows as its best never comes from
    iterations after the checkpoint.

    Args:
        folder: the run's folder.

    Returns:
        the file, see `runs.checkpoints`.
    """
    content = _to_bytes(
        {
            "version": VERSION,
            "config": config.model_dump(mode="json"),
            "iteration": progress.iteration,
            "elapsed": progress.elapsed,
            "best": None if progress.best is None else vars(progress.best),
            "logger_runs": dict(progress.logger_runs),
            "state": {
                name: {key: part.state_dict() for key, part in parts.items()}
                for name, parts in _stateful(learner).items()
            },
            "random": random_state(),
        }
    )
    path = checkpoint_path(folder, progress.iteration, content)
    write_policy(path, content)
    for outdated in checkpoint_files(folder)[config.training.keep_checkpoints :]:
        outdated.path.unlink()
    return path


def load_checkpoint(folder: Path, config: RunConfig, learner: Learner) -> Progress | None:
    """Continue from the newest good checkpoint of a run's folder, whatever device wrote it.

    A damaged file is reported, set aside as `*.corrupt`, and the one before it is tried.

    Returns:
        how far the run had come; None if there is no good checkpoint, and nothing was changed.

    Raises:
        ValueError: the checkpoint is of another version, algorithm, or of other networks; the
            message names what differs, both values, and what to do.
    """
    # one taken at the end is for longer runs: what is to follow it here comes before it there
    candidates = [
        file for file in checkpoint_files(folder) if file.iteration < config.num_iterations
    ]
    for i, candidate in enumerate(candidates):
        path = candidate.path
        content = path.read_bytes()
        if not candidate.is_whole(content):
            then = "trying the one before it" if i + 1 < len(candidates) else "training anew"
            logger.warning("checkpoint %s is corrupt (hash differs); %s", path, then)
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
        )
    return None


def policy_content(
    config: RunConfig, learner: Learner, iteration: int, evaluation_return: float | None
) -> bytes:
    """The content of checkpoint.pt and best.pt, for evaluation. Same policy, same bytes.

    Args:
        iteration: after which the policy was taken.
        evaluation_return: what it achieved in its evaluation, if it was evaluated.
    """
    pool = learner.opponent_pool
    return _to_bytes(
        {
            "version": VERSION,
            "config": config.model_dump(mode="json"),
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
    """What a policy's file says, or the policy in a run's checkpoint of its progress.

    Nothing is unpickled but tensors and plain containers, and all tensors come to `device`,
    whatever device they were saved from.

    Returns:
        "config", "iteration", "evaluation_return" (None: not evaluated), "actors" by group, and
        "opponent_pool" (None: there is none).

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
    if "state" in saved:
        state = saved["state"]
        pool = state["opponent_pools"].get(_POOL)
        saved |= {"actors": state["actors"], "evaluation_return": None, "opponent_pool": pool}
    return saved


def shape_misfit(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first entry in which a saved state cannot be loaded where another is expected, in words.

    Args:
        expected, found: flat state dictionaries; entries without a shape are not compared.
    """
    for key in [*expected, *(key for key in found if key not in expected)]:
        if key not in found:
            return f"it lacks {key}"
        if key not in expected:
            return f"it has {key}, for which there is no place"
        here, there = (getattr(state[key], "shape", None) for state in (expected, found))
        if here != there:
            return f"its {key} has shape {list(there)}, but {list(here)} is expected"
    return None


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
    """Load all states, or none: everything is compared before anything is changed."""
    for name, parts in stateful.items():
        if set(parts) != set(state[name]):
            raise ValueError(
                f"checkpoint {path} holds {name} of {', '.join(state[name]) or 'nothing'}, but the "
                f"run has {', '.join(parts) or 'none'}; {_REMEDY}"
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
            f"checkpoint {path} has version {saved['version']}, but this heteromark reads version "
            f"{VERSION}; use the heteromark that wrote it, or delete it to train anew"
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
    """False for a shorter run, or one in another mode, that this one continues."""
    there = saved["mode"], saved["training"]["total_frames"]
    return there == (config.mode, config.training.total_frames)


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
