"""`heteromark evaluate`: evaluate a run, given by folder, file or digest, on new episodes."""

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
    """Find the policy file that an `EvaluationRequest` names.

    Raises:
        ConfigError: no file or run matches, or several runs match.
    """
    path = Path(run)
    if path.is_file():
        if checkpoint != FINAL:
            message = f"selects one of a run's files, but {run} is already a file"
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
        message = f"folder has no {CHECKPOINT_FILE}; the run has not finished"
        raise ConfigError.single("RUN", message, str(folder))
    if checkpoint == BEST:
        message = (
            f"{folder} has no {BEST_FILE}: only runs that are evaluated during training have one "
            "(evaluation.interval > 0)"
        )
    else:
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.pt"))
        message = (
            f"file does not exist, neither at this path nor in {folder}, which has "
            f"{', '.join(found) or 'no checkpoint'}; give one of these, {FINAL} or {BEST}"
        )
    raise ConfigError.single("--checkpoint", message, checkpoint)


def _stored(run: str, store: RunStore) -> Path:
    matches = [stored for stored in store.runs() if stored.digest.startswith(run)]
    if len(matches) == 1:
        return matches[0].folder
    found = f"{len(matches)} runs match" if matches else "no folder, file or digest matches"
    message = (
        f"{found}; give a run folder below results/, a checkpoint file, or the digest of a "
        "completed run from `heteromark store ls`"
    )
    raise ConfigError.single("RUN", message, run)


def evaluate_run(request: EvaluationRequest) -> list[RenderableType]:
    """Evaluate a run, write the requested files and return the printed report.

    Returns:
        Lines of text; for teams of language-model agents also objects that rich can print.

    Raises:
        ConfigError: the run does not exist, an option does not apply to it, or an output file must
            not be overwritten.
        EvaluationError: the checkpoint is corrupt, has a different version or does not fit its
            environment; the device is not available; an option does not fit the environment; the
            environment cannot render; or the policy's returns are not finite.
    """
    path = find_checkpoint(request.run, request.checkpoint)
    if request.gif is not None:
        check_gif_path(request.gif)
    from heteromark.training.components import kind_of
    from heteromark.training.device import resolve_device
    from heteromark.training.saved_policy import read_saved

    with _as_evaluation_error(path):
        device = resolve_device(request.device)
        saved = read_saved(path)
        kind = kind_of(saved.config)
        if faults := list(kind.refused(request, saved.config)):
            raise ConfigError(faults)
        pictures = []
        if request.gif is not None:  # first, because it fails early if rendering is impossible
            from heteromark.training.loaded_policy import policy_of

            settings = kind.evaluation(request, saved.config)
            pictures = record_episode(policy_of(saved, device), settings, request.seed)
        report, lines = kind.evaluate(saved, request, device)
        if request.gif is not None:  # only now, so that an interruption leaves no file behind
            write_gif(pictures, request.gif, request.fps or FPS)
            lines.append(f"{request.gif}: one episode, {len(pictures)} frames")
    if request.output is not None:
        write_text_atomic(request.output, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return lines


@contextmanager
def _as_evaluation_error(path: Path) -> Iterator[None]:
    """Turn any unexpected error into an EvaluationError that names the checkpoint."""
    try:
        yield
    except (ConfigError, EvaluationError):
        raise
    except Exception as error:  # a user's environment may raise anything
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise EvaluationError(f"{path} cannot be evaluated: {reason}") from error
