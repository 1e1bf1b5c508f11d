"""Limits on command-line overrides that would crash Hydra's parser or run forever.

Importing this module imports Hydra.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from heteromark.config.files import MAX_DEPTH, MAX_DIGITS

MAX_JOBS = 10_000  # per multirun
_MAX_LENGTH = 4_000  # characters per override
_MAX_KEY_LENGTH = 200


def unparsable(line: str) -> str:
    """Return why an override exceeds a limit; empty if Hydra's parser can take it."""
    depth = deepest = 0
    for character in line:
        depth += (character in "[{(") - (character in "]})")
        deepest = max(deepest, depth)
    for limit, found, unit in (
        (_MAX_LENGTH, len(line), "characters; put the value in a file in config/"),
        (_MAX_KEY_LENGTH, len(line.partition("=")[0]), "characters before the ="),
        (MAX_DEPTH, deepest, "levels of nested brackets"),
        (MAX_DIGITS, max(map(len, re.findall(r"\d+", line)), default=0), "digits in a number"),
    ):
        if found > limit:
            return f"has more than {limit:,} {unit}"
    return ""


def unusable_sweep(override: Override) -> str:
    """Return why a multirun cannot enumerate the values of an override; empty if it can."""
    value = override.value() if override.is_sweep_override() else None
    if isinstance(value, RangeSweep) and value.step == 0:
        return "has a step of 0"
    if isinstance(value, IntervalSweep):
        return "is a continuous interval; list its values, or write range(start,stop,step)"
    return ""


def number_of_jobs(overrides: Iterable[Override]) -> int:
    """Return the number of jobs: all combinations of the swept lists and ranges."""
    return math.prod(_number_of_values(override) for override in overrides)


def _number_of_values(override: Override) -> int:
    value = override.value() if override.is_sweep_override() else None
    if isinstance(value, RangeSweep):
        # Hydra's parser sets all three.
        assert value.start is not None
        assert value.stop is not None
        assert value.step is not None
        return max(0, math.ceil((value.stop - value.start) / value.step))
    return len(getattr(value, "list", [None]))
