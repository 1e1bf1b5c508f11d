"""Going on from a shorter run: no iteration is trained twice.

Two runs whose configs differ in nothing but when they end consist of the same iterations, bit for
bit, as far as the shorter goes (see `runs.digest.trajectory_digest`). So a longer run starts from
the last checkpoint of the shorter one, as if it had written that itself.
"""

from __future__ import annotations

import logging
from pathlib import Path

from heteromark.config.models.run import RunConfig
from heteromark.runs.checkpoints import CheckpointFile, checkpoint_files, checkpoint_path
from heteromark.runs.digest import trajectory_digest
from heteromark.runs.files import atomic_path, copy_atomic
from heteromark.runs.record import METRICS_FILE, ContinuedRun, RunRecord
from heteromark.runs.store import RunStore

log = logging.getLogger("heteromark")


def continue_shorter_run(config: RunConfig, folder: Path, store: RunStore) -> ContinuedRun | None:
    """Put what a run can go on from into its folder, if the store has it and the folder nothing.

    Args:
        config: of the run.
        folder: of the run, whose lock is held.

    Returns:
        What the run goes on from; None: it starts from the beginning, or goes on from its own.
    """
    if checkpoint_files(folder):
        return None
    for record, checkpoint in _candidates(config, store):
        content = checkpoint.path.read_bytes()
        if not checkpoint.is_whole(content) or store.lookup(record.digest) is None:
            log.warning("run %s is damaged; it is not gone on from", record.digest)
            continue
        copy_atomic(store.folder(record.digest) / METRICS_FILE, folder / METRICS_FILE)
        with atomic_path(checkpoint_path(folder, checkpoint.iteration, content)) as temporary:
            temporary.write_bytes(content)
        return ContinuedRun(digest=record.digest, iteration=checkpoint.iteration)
    return None


def _candidates(config: RunConfig, store: RunStore) -> list[tuple[RunRecord, CheckpointFile]]:
    """Checkpoints of other runs that this one comes by, those that are furthest first."""
    trajectory = trajectory_digest(config)
    found = [
        (record, checkpoint)
        for record in store.finished()
        if record.trajectory == trajectory
        for checkpoint in checkpoint_files(store.folder(record.digest))
        if checkpoint.iteration < config.num_iterations
        and _is_evaluated_alike(checkpoint.iteration, record.summary.iterations, config)
    ]
    return sorted(found, key=lambda pair: (-pair[1].iteration, pair[0].digest))


def _is_evaluated_alike(iteration: int, their_end: int, config: RunConfig) -> bool:
    """Whether both runs evaluated the same up to here: a run's last iteration is always judged."""
    interval = config.evaluation.interval
    if not interval or iteration % interval == 0:
        return True
    return iteration < their_end
