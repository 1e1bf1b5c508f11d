"""Whether the logging back ends that a config names are installed, without importing them."""

from __future__ import annotations

import importlib.util

from heteromark.config.components import LoggerConfig
from heteromark.config.errors import Fault


def backend_faults(config: LoggerConfig) -> list[Fault]:
    """One fault for every back end in `logger.backends` whose package is missing."""
    return [
        Fault(
            "config/logger",
            f"{backend} is not installed: `pip install 'heteromark[{backend}]'`, or leave it out",
            "logger.backends",
            config.backends,
        )
        for backend in config.backends
        if importlib.util.find_spec(backend) is None
    ]
