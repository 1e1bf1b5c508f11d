"""Whether a run fits this machine and its environment, found out without training it.

A run finds all of this by itself when it starts; a job of the Hydra entry is asked beforehand, so
that nothing is written, and no other job of a multirun is trained, for one that cannot be.
"""

from __future__ import annotations

import json

from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.kinds import rules_of
from heteromark.runs.digest import run_digest
from heteromark.runs.store import RunStore


class FitJudge:
    """Judges one run after another, and makes one copy of every environment that matters.

    Runs that the store has need nothing any more. torch is imported, and an environment made, only
    for runs that ask for a GPU, for overrides by group, or for opponents.
    """

    def __init__(self) -> None:
        self._store = RunStore()
        self._known: dict[str, list[Fault]] = {}

    def faults(self, config: RunConfig) -> list[Fault]:
        """What does not fit; of unknown file."""
        rules = rules_of(config.kind)
        wants_gpu, questions = config.device == "cuda", rules.questions(config)
        files = rules.files(config)
        if not (wants_gpu or questions or files) or self._store.lookup(run_digest(config)):
            return []
        key = json.dumps([wants_gpu, questions])
        if key not in self._known:
            self._known[key] = [
                *(device_faults(config) if wants_gpu else ()),
                *(_environment_faults(config) if questions else ()),
            ]
        return [*files, *self._known[key]]


def device_faults(config: RunConfig) -> list[Fault]:
    """The GPU that a run asks for and that torch does not see."""
    from heteromark.training.device import require_device

    try:
        require_device(config)
    except ConfigError as error:
        return error.faults
    return []


def _environment_faults(config: RunConfig) -> list[Fault]:
    from heteromark.training.components import kind_of

    return kind_of(config).faults(config)
