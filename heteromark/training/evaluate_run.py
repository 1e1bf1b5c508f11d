"""`heteromark evaluate`: a trained run, found by folder, file or digest, on fresh episodes."""

from __future__ import annotations

import json
from pathlib import Path

from heteromark.config.errors import ConfigError
from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import CHECKPOINT_FILE
from heteromark.runs.store import RunStore


class EvaluationError(Exception):
    """The run cannot be evaluated; the message says why."""


def find_checkpoint(run: str, store: RunStore | None = None) -> Path:
    """The checkpoint that a run folder, a checkpoint file, or (the start of) a digest names.

    Raises:
        ConfigError: nothing of that name, or several runs.
    """
    path = Path(run)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / CHECKPOINT_FILE).is_file():
            return path / CHECKPOINT_FILE
        raise ConfigError.single(
            "RUN", f"this folder has no {CHECKPOINT_FILE}; its run has not finished", run
        )
    store = store or RunStore()
    matches = [stored for stored in store.runs() if stored.digest.startswith(run)]
    if len(matches) == 1 and (matches[0].folder / CHECKPOINT_FILE).is_file():
        return matches[0].folder / CHECKPOINT_FILE
    found = f"{len(matches)} runs of that digest" if matches else "no such folder, file or digest"
    raise ConfigError.single(
        "RUN",
        f"{found}; give a run folder below results/, a checkpoint, or a digest that "
        "`heteromark store ls` lists as completed",
        run,
    )


def evaluate_run(
    run: str,
    episodes: int,
    seed: int,
    deterministic: bool,
    device: str,
    output: Path | None = None,
) -> list[str]:
    """Evaluate and return lines that tell the figures; `output` receives all of them as JSON.

    Raises:
        ConfigError: no such run.
        EvaluationError: the checkpoint is corrupt, of another version, or does not fit its
            environment; the device is not there; or the policy's returns are not finite.
    """
    path = find_checkpoint(run)
    from heteromark.training.components import resolve_device
    from heteromark.training.evaluate import evaluate, load_policy

    try:
        config, actors = load_policy(path, resolve_device(device))
        report = evaluate(config, actors, episodes, seed, deterministic)
    except (ValueError, ModuleNotFoundError) as error:
        raise EvaluationError(f"{path} cannot be evaluated: {error}") from error
    if report["return_mean"] is None:
        raise EvaluationError(f"{path} cannot be evaluated: its returns are not finite")
    if output is not None:
        write_text_atomic(output, json.dumps(report, indent=2, allow_nan=False) + "\n")
    lines = [
        f"{config.agent.short_name}, seed {config.seed}, on {config.environment.name}: "
        f"{report['episodes']} episodes, {'most likely' if deterministic else 'sampled'} actions",
        f"return per agent: {report['return_mean']:.2f} ± {report['return_std']:.2f} (std)",
        f"episode length:   {report['length_mean']:.1f} frames",
    ]
    if report["win_rate"] is not None:
        lines.append(f"win rate:         {report['win_rate']:.1%}")
    return lines
