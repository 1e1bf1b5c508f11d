"""Skirmish: battles of small teams as in SMACv2, in plain torch, without StarCraft II."""

import importlib

# Loaded when they are asked for: a run in one of these views holds no code of the others.
_MODULES = {"SkirmishEnv": "env", "SkirmishParallelEnv": "parallel", "SkirmishSMAC": "smac_api"}

__all__ = list(_MODULES)


def __getattr__(name: str) -> type:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
