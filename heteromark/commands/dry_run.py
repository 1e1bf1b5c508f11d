"""Describe a run without training it: groups, networks, frames, updates."""

from __future__ import annotations

from collections.abc import Iterator

from heteromark.commands.launch import RunFailed
from heteromark.commands.request import rounding_lines
from heteromark.config.errors import ConfigError
from heteromark.config.models.run import RunConfig
from heteromark.runs.digest import run_digest
from heteromark.runs.record import RunRecord
from heteromark.runs.store import RunStore


def plan_lines(config: RunConfig) -> Iterator[str]:
    """Build the run's components, without worker processes, and describe them.

    Raises:
        ConfigError: the config does not fit the machine or the groups of its environment.
        RunFailed: the run would fail at its start for a different reason.
    """
    digest = run_digest(config)
    yield f"run {digest}: {_in_store(RunStore(), digest)}"
    yield from _component_lines(config)
    yield from rounding_lines(config)
    frames, iterations = config.collector.frames_per_batch, config.num_iterations
    yield f"frames: {iterations * frames:,} in {iterations:,} iterations of {frames:,}"
    epochs = config.training.num_epochs
    minibatches = frames // config.replay_buffer.minibatch_size
    updates = iterations * epochs * minibatches
    yield (
        f"updates per network: {updates:,} ({iterations:,} iterations x {epochs} epochs x "
        f"{minibatches} minibatches)"
    )


def _component_lines(config: RunConfig) -> Iterator[str]:
    from heteromark.training.components import ComponentFactory, kind_of

    kind = kind_of(config)
    config = kind.quick_to_build(config)
    try:
        components = ComponentFactory(config).create()
    except ConfigError:
        raise
    except Exception as error:  # a user's environment may raise anything
        raise RunFailed(f"the run would fail: {type(error).__name__}: {error}") from error
    try:
        yield f"device: {components.device}"
        yield from kind.plan(config, components)
    finally:
        components.close()


def _in_store(store: RunStore, digest: str) -> str:
    if record := store.lookup(digest):
        return f"{record.status}, found in the run store"
    try:
        record = RunRecord.read(store.folder(digest))
    except (OSError, ValueError):
        return "not in the run store, would be trained"
    if any((store.folder(digest) / "checkpoints").glob("*.pt")):
        return f"{record.status}, would resume from its last checkpoint"
    return f"{record.status} without a checkpoint, would be trained from scratch"
