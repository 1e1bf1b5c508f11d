"""Run a program's function on inputs in the sandbox and return its results.

The expected results never enter the sandbox, so the program cannot read them from its process,
stack frames or files. Forging the output does not help either: a program that writes the correct
results must have computed them.
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
    """Call a program's function with the arguments of each call.

    Args:
        program: source code that defines the function.
        name: the function's name.
        calls: arguments of each call.
        timeout, memory_mib: see `run_program`.

    Returns:
        The results by number of the call, without calls that failed; empty if the program
        tampered with the results.
    """
    finished = run_program(
        _HARNESS,
        stdin=json.dumps({"program": program, "name": name, "calls": calls}),
        timeout=timeout,
        memory_mib=memory_mib,
    )
    # untrusted: any line may have been written by the program instead of the harness
    lines = finished.stdout.splitlines()
    if finished.ok and lines[:1] != ["defined"]:
        return {}  # the program exited early
    numbers = {str(number): number for number in range(len(calls))}
    results: dict[int, Any] = {}
    for line in lines[1:]:
        number, _, text = line.partition(" ")
        if number not in numbers or numbers[number] in results:
            return {}
        try:
            results[numbers[number]] = json.loads(text)
        except (ValueError, RecursionError):
            # the output was cut off in the middle of this line
            break
    return results
