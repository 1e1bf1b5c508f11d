"""Whether a run fits this machine and its environment, found out without training it.

A run finds all of this by itself when it starts; a job of the Hydra entry is asked beforehand, so
that nothing is written, and no other job of a multirun is trained, for one that cannot be.
"""

from __future__ import annotations

import json

from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.model_paths import model_faults
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
        wants_gpu, asks = config.device == "cuda", _asks_of_the_environment(config)
        models = model_faults(config)
        if not (wants_gpu or asks or models) or self._store.lookup(run_digest(config)):
            return []
        key = json.dumps([wants_gpu, asks and _asked(config)])
        if key not in self._known:
            self._known[key] = [
                *(device_faults(config) if wants_gpu else ()),
                *(_environment_faults(config) if asks else ()),
            ]
        return [*models, *self._known[key]]


def _asks_of_the_environment(config: RunConfig) -> bool:
    """Whether a config says something that only some environments can do."""
    if config.env_type == "text":
        return False
    evaluation = config.evaluation
    return bool(
        config.policy.groups
        or config.loss.groups
        or config.optimizer.groups
        or evaluation.opponent
        or evaluation.seat
        or config.environment.opponent.kind != "self"
    )


def _asked(config: RunConfig) -> list[object]:
    """What `_environment_faults` depends on."""
    sections = (config.policy, config.loss, config.optimizer)
    evaluation = config.evaluation
    return [
        config.env_type,
        config.environment.model_dump(mode="json"),
        config.policy.share_policy_params,
        config.critic,
        [sorted(section.groups) for section in sections],
        [evaluation.opponent, evaluation.seat],
    ]


def device_faults(config: RunConfig) -> list[Fault]:
    """The GPU that a run asks for and that torch does not see."""
    from heteromark.training.components import require_device

    try:
        require_device(config)
    except ConfigError as error:
        return error.faults
    return []


def _environment_faults(config: RunConfig) -> list[Fault]:
    from heteromark.modules.policy import require_groups
    from heteromark.training.environments import make_environment, require_evaluation

    try:
        environment = make_environment(config, num_envs=1)
        try:
            require_groups(config, environment.groups)
            require_evaluation(config, environment)
        finally:
            environment.close()
    except ConfigError as error:
        return error.faults
    except Exception as error:  # a user's environment may raise anything
        return [Fault("config", str(error), kind=type(error).__name__)]
    return []
