"""Skirmish: battles of small teams as in SMACv2, in plain torch, without StarCraft II."""

import importlib

# Imported on first access, so that a run's code includes only the interface it uses.
_MODULES = {"SkirmishEnv": "env", "SkirmishParallelEnv": "parallel", "SkirmishSMAC": "smac_api"}

__all__ = list(_MODULES)


def __getattr__(name: str) -> type:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
