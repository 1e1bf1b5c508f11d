"""Calls a function that somebody wrote. Runs in the sandbox, standard library only.

Reads from stdin a JSON object: `program`, the function's `name` and the arguments of `calls`.
Writes to stdout the line `defined`, then a line for each call that returned: its number and what it
returned, as JSON. What the program itself prints goes to stderr.

The program shares this process and may undo all of this; whoever reads the lines must trust none.
"""

import json
import math
import os
import sys


def _plain(value, depth=8):
    """The value if it is exactly of the types that JSON tells apart, at every depth."""
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is str:
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is list and depth:
        return [_plain(one, depth - 1) for one in value]
    raise TypeError(f"{kind.__name__} is not compared")


def _main():
    job = json.load(sys.stdin)
    results = os.dup(1)
    os.dup2(2, 1)
    write, dumps = os.write, json.dumps
    names = {"__name__": "program"}
    exec(compile(job["program"], "program", "exec", dont_inherit=True), names)
    function = names[job["name"]]
    write(results, b"defined\n")
    for number, arguments in enumerate(job["calls"]):
        try:
            line = f"{number} {dumps(_plain(function(*arguments)))}\n"
        # a program that wants to exit fails this call and no other
        except BaseException:
            continue
        write(results, line.encode())


if __name__ == "__main__":
    _main()
