"""Check that a run has what it needs and fits this machine and its environment.

A run checks all of this again when it starts. Jobs of the Hydra entry are checked beforehand, so
that a faulty job writes nothing, and no job of a multirun starts if another one is faulty.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from heteromark.commands.trial import FAILED, PLAYED
from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.kinds import rules_of
from heteromark.config.rules.packages import package_faults
from heteromark.environment.errors import describe_exit
from heteromark.import_paths import how_to_install
from heteromark.runs.code import module_exists
from heteromark.runs.digest import chosen_trainer, environment_digest, run_digest
from heteromark.runs.files import make_folder
from heteromark.runs.record import STUB
from heteromark.runs.store import RunStore

_TRIAL_SECONDS = 60.0
log = logging.getLogger("heteromark")


class FitChecker:
    """Checks runs one after another, and creates each environment at most once.

    Skips runs that are in the store. Imports torch only for runs that request a GPU, group
    overrides or opponents, and creates an environment only for the latter two.
    """

    def __init__(self) -> None:
        self._store = RunStore()
        self._known: dict[str, list[Fault]] = {}

    def faults(self, config: RunConfig) -> list[Fault]:
        """Return everything that does not fit; the faults name no file."""
        rules = rules_of(config.kind)
        wants_gpu, settings = config.device == "cuda", rules.checked_by_environment(config)
        files = rules.files(config)
        if not (wants_gpu or settings or files) or self._store.lookup(run_digest(config)):
            return []
        key = json.dumps([wants_gpu, settings])
        if key not in self._known:
            faults = device_faults(config) if wants_gpu else []
            self._known[key] = [*faults, *(_environment_faults(config) if settings else [])]
        return [*files, *self._known[key]]


def device_faults(config: RunConfig) -> list[Fault]:
    """Return a fault if the run requests a GPU that torch does not see."""
    from heteromark.training.device import require_device

    try:
        require_device(config)
    except ConfigError as error:
        return error.faults
    return []


def _environment_faults(config: RunConfig) -> list[Fault]:
    from heteromark.training.components import kind_of

    return kind_of(config).faults(config)


def requirement_faults(config: RunConfig) -> list[Fault]:
    """Return a fault per missing module, missing Skirmish checkpoint and missing package.

    If there is none, the environment is tried, see `trial_faults`.
    """
    faults = []
    environment = f"config/environment/{config.environment.name}.yaml"
    for key, path in config.import_paths.items():
        module = path.partition(":")[0]
        if module_exists(module):
            continue
        of_environment = key.startswith("environment.")
        folder = "environments/" if of_environment else "extensions/"
        remedy = how_to_install(module) or f"install it, or put it into {folder}"
        message = f"module {module} not found; {remedy}"
        faults.append(Fault(environment if of_environment else "config", message, key, path))
    checkpoint = config.environment.skirmish.checkpoint
    if checkpoint is not None and not Path(checkpoint).is_file():
        message = (
            "file does not exist; give a run's checkpoint.pt or best.pt, e.g. "
            "results/model/checkpoint.pt"
        )
        faults.append(Fault(environment, message, "environment.skirmish.checkpoint", checkpoint))
    faults += package_faults(config)
    return faults or trial_faults(config)


def trial_faults(config: RunConfig) -> list[Fault]:
    """Try the environment in a separate process, once per content; return a fault if it fails.

    Success is remembered in the user's cache directory: it says something about this machine.
    """
    from platformdirs import user_cache_path

    environment = config.environment
    if (environment.task is None and config.env_type != "vmas") or chosen_trainer() == STUB:
        return []
    known = user_cache_path("heteromark") / "trials" / environment_digest(config)
    if known.exists():
        return []
    log.info("trying environment %s: two episodes of random play", environment.name)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "heteromark.commands.trial"],
            input=config.model_dump_json(include=set(RunConfig.model_fields)),
            capture_output=True,
            text=True,
            timeout=_TRIAL_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        status, printed, reason = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as stopped:
        status, printed = -1, (stopped.stdout or b"").decode()
        reason = f"it did not take a step within {_TRIAL_SECONDS:.0f} seconds"
    if status == 0 or (status == -1 and PLAYED in printed):
        with contextlib.suppress(OSError):
            make_folder(known.parent)
            known.touch()
        return []
    lines = [line for line in reason.strip().splitlines() if line.strip()]
    if status > 0 and status != FAILED:  # a traceback, or the end of the process
        lines = lines[-1:]
    if status < -1:
        lines = [f"its process {describe_exit(status)}"]
    message = f"two episodes of random play failed: {' '.join(lines)}"
    file = f"config/environment/{environment.name}.yaml"
    if environment.task is None:
        return [Fault(file, message, "environment.kwargs", environment.kwargs)]
    return [Fault(file, message, "environment.task", environment.task)]
