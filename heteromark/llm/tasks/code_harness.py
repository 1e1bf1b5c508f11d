"""Call a function of an untrusted program. Runs in the sandbox, standard library only.

Reads a JSON object from stdin: `program`, the function's `name` and the arguments of `calls`.
Writes the line `defined` to stdout, then one line per successful call: its number and its result
as JSON. The program's own output goes to stderr.

The program shares this process and can tamper with all of this. Readers must not trust the output.
"""

import json
import math
import os
import sys


def _plain(value: object, depth: int = 8) -> object:
    """Return the value if its types are exactly those that JSON preserves, at every depth."""
    # not isinstance: subclasses can override any method
    if value is None or type(value) is bool or type(value) is int or type(value) is str:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is list and depth:
        return [_plain(one, depth - 1) for one in value]
    raise TypeError(f"results of type {type(value).__name__} are not supported")


def _main() -> None:
    job = json.load(sys.stdin)
    results = os.dup(1)
    os.dup2(2, 1)
    write, dumps = os.write, json.dumps
    names: dict[str, object] = {"__name__": "program"}
    exec(compile(job["program"], "program", "exec", dont_inherit=True), names)
    function = names[job["name"]]
    if not callable(function):
        raise TypeError(f"{job['name']} is not a function")
    write(results, b"defined\n")
    for number, arguments in enumerate(job["calls"]):
        try:
            line = f"{number} {dumps(_plain(function(*arguments)))}\n"
        # even SystemExit fails only this call
        except BaseException:
            continue
        write(results, line.encode())


if __name__ == "__main__":
    _main()
