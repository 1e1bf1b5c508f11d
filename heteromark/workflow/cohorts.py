"""Which smoke runs of a sweep are trained together in one process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heteromark.workflow.plan import Plan

# Runs of a cohort unless params.yaml says otherwise: each needs memory and open files.
LARGEST_COHORT = 64


def cohorts(plan: Plan, rung: int, processes: int) -> dict[str, list[Path]]:
    """Return the cohorts of a rung: the folders of their runs, by the cohort's name.

    Runs that need a process of their own are not among them. Earlier decisions must exist.

    Args:
        plan: the sweep.
        rung: counted from 1.
        processes: that run at the same time; `smoke.cohort: auto` gives each an equal share.
    """
    by_key: dict[Any, list[Path]] = {}
    for candidate in plan.entrants(rung):
        if candidate.reason_for_own_process is None:
            by_key.setdefault(candidate.cohort_key, []).extend(candidate.folders.values())
    chosen, found = plan.params.smoke.cohort, []
    for folders in by_key.values():
        size = -(-len(folders) // processes) if chosen == "auto" else chosen
        if chosen == "auto":
            size = min(size, LARGEST_COHORT)
        # dealt like cards, so that no process gets all runs of a slow config
        count = -(-len(folders) // size)
        found += [folders[first::count] for first in range(count)]
    return {_name(folders): folders for folders in found if len(folders) > 1}


def notice_of_separate_processes(plan: Plan) -> str | None:
    """Say which smoke runs are trained in a process of their own although cohorts are on."""
    candidates = plan.candidates("smoke")
    alone = [each for each in candidates if each.reason_for_own_process is not None]
    if not alone or plan.params.smoke.cohort == 1:
        return None
    which = "all smoke runs" if alone == candidates else f"smoke runs of {alone[0].name}"
    if 1 < len(alone) < len(candidates):
        which += f" and {len(alone) - 1} other configs"
    return (
        f"{which} are trained in processes of their own, because {alone[0].reason_for_own_process}"
    )


def _name(folders: Sequence[Path]) -> str:
    text = "\n".join(sorted(folder.as_posix() for folder in folders))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
