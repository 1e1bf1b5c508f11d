"""Runs a program's function on inputs, in the sandbox, and brings back what it returned.

What it should have returned never enters the sandbox. So there is nothing to be read from the
process, its frames or its files, and nothing is gained by forging results: whoever can forge the
right ones has worked them out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heteromark.llm.sandbox import run_program

_HARNESS = Path(__file__).with_name("code_harness.py").read_text(encoding="utf-8")


def call_in_sandbox(
    program: str, name: str, calls: Sequence[Sequence[Any]], *, timeout: float, memory_mib: int
) -> dict[int, Any]:
    """Call a program's function with the arguments of each call; see `run_program` for limits.

    Returns:
        what the function returned, by number of the call; calls that failed are missing, and all
        of them where the results were tampered with.
    """
    finished = run_program(
        _HARNESS,
        stdin=json.dumps({"program": program, "name": name, "calls": calls}),
        timeout=timeout,
        memory_mib=memory_mib,
    )
    # any of the harness's lines may come from the program instead
    lines = finished.stdout.splitlines()
    if finished.ok and lines[:1] != ["defined"]:
        return {}  # it ended early
    numbers = {str(number): number for number in range(len(calls))}
    results: dict[int, Any] = {}
    for line in lines[1:]:
        number, _, text = line.partition(" ")
        if number not in numbers or numbers[number] in results:
            return {}
        try:
            results[numbers[number]] = json.loads(text)
        except (ValueError, RecursionError):
            # the end of what was written before it was cut short
            break
    return results
