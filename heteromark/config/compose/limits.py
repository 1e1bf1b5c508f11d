"""Overrides of the Hydra entry that its parser would fail on, or never be done with.

Importing this imports Hydra.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from heteromark.config.files import MAX_DEPTH, MAX_DIGITS

MAX_JOBS = 10_000  # of one multirun
_MAX_LENGTH = 4_000  # characters of an override
_MAX_KEY_LENGTH = 200


def unparsable(line: str) -> str:
    """Why an override is not handed to Hydra's parser; empty if it is."""
    depth = deepest = 0
    for character in line:
        depth += (character in "[{(") - (character in "]})")
        deepest = max(deepest, depth)
    for limit, found, what in (
        (_MAX_LENGTH, len(line), "characters; put the value into a file of config/"),
        (_MAX_KEY_LENGTH, len(line.partition("=")[0]), "characters before the ="),
        (MAX_DEPTH, deepest, "brackets within each other"),
        (MAX_DIGITS, max(map(len, re.findall(r"\d+", line)), default=0), "digits in a number"),
    ):
        if found > limit:
            return f"has more than {limit:,} {what}"
    return ""


def unusable_sweep(override: Override) -> str:
    """Why the values of a multirun cannot be gone through; empty if they can."""
    value = override.value() if override.is_sweep_override() else None
    if isinstance(value, RangeSweep) and value.step == 0:
        return "has a step of 0"
    if isinstance(value, IntervalSweep):
        return "has no end of values; name them, or write range(start,stop,step)"
    return ""


def number_of_jobs(overrides: Iterable[Override]) -> int:
    """How many jobs all combinations of lists and ranges make."""
    return math.prod(_number_of_values(override) for override in overrides)


def _number_of_values(override: Override) -> int:
    value = override.value() if override.is_sweep_override() else None
    if isinstance(value, RangeSweep):
        return max(0, math.ceil((value.stop - value.start) / value.step))
    return len(getattr(value, "list", [None]))
