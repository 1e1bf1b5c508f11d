"""Runs a program's function on inputs, in the sandbox, and brings back what it returned.

What it should have returned never enters the sandbox. So there is nothing to be read from the
process, its frames or its files, and nothing is gained by forging results: whoever can forge the
right ones has worked them out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heteromark.llm.sandbox import Finished, run_program

_HARNESS = Path(__file__).with_name("code_harness.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Judged:
    """What a program's function returned.

    Attributes:
        results: by number of the call; calls that failed are missing.
        reason: why there are none or not all, in a few words; empty where all calls returned.
    """

    results: dict[int, Any]
    reason: str


def call_in_sandbox(
    program: str, name: str, calls: Sequence[Sequence[Any]], *, timeout: float, memory_mib: int
) -> Judged:
    """Call a program's function with the arguments of each call; see `run_program` for limits."""
    finished = run_program(
        _HARNESS,
        stdin=json.dumps({"program": program, "name": name, "calls": calls}),
        timeout=timeout,
        memory_mib=memory_mib,
    )
    return _read(finished, len(calls))


def _read(finished: Finished, calls: int) -> Judged:
    """Read the harness's lines, any of which may come from the program instead."""
    lines = finished.stdout.splitlines()
    numbers = {str(number): number for number in range(calls)}
    results: dict[int, Any] = {}
    for line in lines[1:]:
        number, _, text = line.partition(" ")
        if number not in numbers or numbers[number] in results:
            return Judged({}, "its results were tampered with")
        try:
            results[numbers[number]] = json.loads(text)
        except (ValueError, RecursionError):
            # the end of what was written before it was cut short
            break
    if finished.reason:
        return Judged(results, finished.reason)
    if not lines or lines[0] != "defined":
        return Judged({}, "it ended early")
    return Judged(results, "" if len(results) == calls else "some calls failed")
