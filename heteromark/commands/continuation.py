"""Continue from a shorter run, so that no iteration is trained twice.

If two configs differ only in their length, both runs start with the same iterations, bit for bit
(see `runs.digest.trajectory_digest`). So a longer run starts from the last checkpoint of a shorter
one, as if it had written the checkpoint itself.
"""

from __future__ import annotations

import logging
from pathlib import Path

from heteromark.config.models.run import RunConfig
from heteromark.runs.checkpoints import CheckpointFile, checkpoint_files, checkpoint_path
from heteromark.runs.digest import trajectory_digest
from heteromark.runs.files import atomic_path
from heteromark.runs.record import ContinuedRun, RunRecord
from heteromark.runs.store import RunStore

log = logging.getLogger("heteromark")


def continue_shorter_run(config: RunConfig, folder: Path, store: RunStore) -> ContinuedRun | None:
    """Copy the best checkpoint of a shorter run to the run's folder, unless it has checkpoints.

    Args:
        config: the run.
        folder: the run's folder; the caller holds its lock.

    Returns:
        The shorter run. None: the run starts from scratch, or from its own checkpoint.
    """
    if checkpoint_files(folder):
        return None
    for record, checkpoint in _candidates(config, store):
        content = checkpoint.path.read_bytes()
        if not checkpoint.is_whole(content) or store.lookup(record.digest) is None:
            log.warning("run %s is damaged; not continuing from it", record.digest)
            continue
        with atomic_path(checkpoint_path(folder, checkpoint.iteration, content)) as temporary:
            temporary.write_bytes(content)
        return ContinuedRun(digest=record.digest, iteration=checkpoint.iteration)
    return None


def _candidates(config: RunConfig, store: RunStore) -> list[tuple[RunRecord, CheckpointFile]]:
    """Return usable checkpoints of other runs, those with most iterations first."""
    trajectory = trajectory_digest(config)
    found = [
        (record, checkpoint)
        for record in store.finished()
        if record.trajectory == trajectory
        for checkpoint in checkpoint_files(store.folder(record.digest))
        if checkpoint.iteration < config.num_iterations
        and _has_same_evaluations(checkpoint.iteration, record.summary.iterations, config)
    ]
    return sorted(found, key=lambda pair: (-pair[1].iteration, pair[0].digest))


def _has_same_evaluations(iteration: int, their_end: int, config: RunConfig) -> bool:
    """Return whether both runs have the same evaluations up to an iteration.

    They differ if only the other run ends here, because every run evaluates its last iteration.
    """
    interval = config.evaluation.interval
    if not interval or iteration % interval == 0:
        return True
    return iteration < their_end
