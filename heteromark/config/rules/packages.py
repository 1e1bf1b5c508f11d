"""Check that the optional packages that a config needs are installed, without importing them."""

from __future__ import annotations

import importlib.util

from heteromark.config.errors import Fault
from heteromark.config.models.components import LoggerConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.kinds import rules_of


def package_faults(config: RunConfig) -> list[Fault]:
    """Return a fault for missing language-model packages, and one per missing logging back end."""
    needed = rules_of(config.kind).packages
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    faults = backend_faults(config.logger)
    if missing:
        file = f"config/environment/{config.environment.name}.yaml"
        message = (
            f"language-model agents need {' and '.join(missing)}; install with "
            "`pip install 'heteromark[llm]'`"
        )
        faults.insert(0, Fault(file, message, "env_type", config.env_type))
    return faults


def backend_faults(config: LoggerConfig) -> list[Fault]:
    """Return a fault for each back end in `logger.backends` whose package is missing."""
    return [
        Fault(
            "config/logger",
            f"{backend} is not installed; run `pip install 'heteromark[{backend}]'`, or remove it",
            "logger.backends",
            config.backends,
        )
        for backend in config.backends
        if importlib.util.find_spec(backend) is None
    ]
