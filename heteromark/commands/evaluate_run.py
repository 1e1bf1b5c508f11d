"""`heteromark evaluate`: a trained run, found by folder, file or digest, on fresh episodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from heteromark.commands.gif import check_gif_path, record_episode, write_gif
from heteromark.config.errors import ConfigError
from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import BEST_FILE, CHECKPOINT_FILE
from heteromark.runs.store import RunStore
from heteromark.training.evaluation_request import BEST, FINAL, FPS, EvaluationRequest

if TYPE_CHECKING:
    from rich.console import RenderableType

_FILE_OF = {FINAL: CHECKPOINT_FILE, BEST: BEST_FILE}


class EvaluationError(Exception):
    """The run cannot be evaluated; the message says why."""


def find_checkpoint(run: str, checkpoint: str = FINAL, store: RunStore | None = None) -> Path:
    """The policy's file that an `EvaluationRequest` names.

    Raises:
        ConfigError: nothing of that name, or several runs.
    """
    path = Path(run)
    if path.is_file():
        if checkpoint != FINAL:
            message = f"chooses among a run's files, but {run} is one file"
            raise ConfigError.single("--checkpoint", message, checkpoint)
        return path
    folder = path if path.is_dir() else _stored(run, store or RunStore())
    candidates = [folder / _FILE_OF.get(checkpoint, checkpoint)]
    if checkpoint not in _FILE_OF:
        candidates.insert(0, Path(checkpoint))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if checkpoint == FINAL:
        message = f"this folder has no {CHECKPOINT_FILE}; its run has not finished"
        raise ConfigError.single("RUN", message, str(folder))
    if checkpoint == BEST:
        message = (
            f"{folder} has no {BEST_FILE}: only runs that are evaluated while they train have one "
            "(evaluation.interval above 0)"
        )
    else:
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.pt"))
        message = (
            f"there is no such file, neither as it stands nor in {folder}, which has "
            f"{', '.join(found) or 'no checkpoint'}; or say {FINAL} or {BEST}"
        )
    raise ConfigError.single("--checkpoint", message, checkpoint)


def _stored(run: str, store: RunStore) -> Path:
    matches = [stored for stored in store.runs() if stored.digest.startswith(run)]
    if len(matches) == 1:
        return matches[0].folder
    found = f"{len(matches)} runs of that digest" if matches else "no such folder, file or digest"
    message = (
        f"{found}; give a run folder below results/, a checkpoint, or a digest that "
        "`heteromark store ls` lists as completed"
    )
    raise ConfigError.single("RUN", message, run)


def evaluate_run(request: EvaluationRequest) -> list[RenderableType]:
    """Evaluate, write what was asked for, and return what tells the figures.

    Returns:
        Lines of text, and for teams of language-model agents also what rich can print.

    Raises:
        ConfigError: no such run, options that do not fit it, or a file that must not be written.
        EvaluationError: the checkpoint is corrupt, of another version, or does not fit its
            environment; the device is not there; the options do not fit the environment, or it
            cannot draw itself; or the policy's returns are not finite.
    """
    path = find_checkpoint(request.run, request.checkpoint)
    if request.gif is not None:
        check_gif_path(request.gif)
    from heteromark.training.components import kind_of
    from heteromark.training.device import resolve_device
    from heteromark.training.saved_policy import read_saved

    with _told_of(path):
        device = resolve_device(request.device)
        saved = read_saved(path)
        kind = kind_of(saved.config)
        if faults := list(kind.refused(request, saved.config)):
            raise ConfigError(faults)
        pictures = []
        if request.gif is not None:  # first, because it tells soon whether it can be done
            from heteromark.training.loaded_policy import policy_of

            settings = kind.evaluation(request, saved.config)
            pictures = record_episode(policy_of(saved, device), settings, request.seed)
        report, lines = kind.evaluate(saved, request, device)
        if request.gif is not None:  # before the figures: interrupted, nothing is written
            write_gif(pictures, request.gif, request.fps or FPS)
            lines.append(f"{request.gif}: one episode, {len(pictures)} pictures")
    if request.output is not None:
        write_text_atomic(request.output, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return lines


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Report whatever goes wrong within as a fault of this checkpoint."""
    try:
        yield
    except (ConfigError, EvaluationError):
        raise
    except Exception as error:  # a user's environment may raise anything
        told = f"{type(error).__name__}: {error}".rstrip(": ")
        raise EvaluationError(f"{path} cannot be evaluated: {told}") from error
