"""Measure the speed of Skirmish by batch size, eager and compiled, compared with SMAX.

    python benchmarks/skirmish.py
    python benchmarks/skirmish.py --peer-python ../smax-venv/bin/python

Measures environment steps per second with random legal actions, five units against five:
10gen_terran against `nearest`, and SMAX's smacv2_5_units against its heuristic. This includes
observations, state, masks and resets, as TorchRL's `step_and_maybe_reset` returns them. Compilation
is reported separately. The growth of the cost is reported over batch sizes, and over teams of 5, 10
and 20 units against the same number. SMAX needs a separate virtual environment with the packages of
benchmarks/peers/smax/requirements.txt; without --peer-python it is not measured.

Each figure is measured in a new process. Every round measures each figure once, and ratios compare
figures of the same round. Further rounds measure only the figures of the ratios, because other load
on a virtual machine can halve a single figure. Prints a table with the median and the range over
the rounds and writes benchmarks/results/skirmish.json.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import ROOT, commit, write_report

PEER = ROOT / "benchmarks" / "peers" / "smax" / "run.py"
SCENARIO = "10gen_terran"
# Minimum ratio to SMAX's speed at this batch size.
COMPARED_AT, TARGETS = 1024, {"compiled": 5.0, "eager": 1.0}
# The cost may grow at most with this power of the size.
TEAMS, TEAMS_AT = (5, 10, 20), 256
GROWTH = {"batch": 1.0, "units": 2.0}
Figure = dict[str, float]


def main() -> None:
    arguments = parse_arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    rounds: list[dict[str, Figure]] = []
    for number in range(1, max(arguments.rounds, arguments.ratio_rounds) + 1):
        measured: dict[str, Figure] = {}
        is_whole = number <= arguments.rounds
        for batch in arguments.batches if is_whole else [COMPARED_AT]:
            for way in arguments.ways:
                if way == "SMAX" and arguments.peer_python is None:
                    continue
                name = f"{way}, {batch}"
                measured[name] = measure(way, batch, arguments)
                rate = measured[name]["env_steps_per_second"]
                print(f"round {number}: {name:<16} {rate:12,.0f} env-steps/s", flush=True)
        for units in TEAMS if is_whole else ():
            name = f"eager, {TEAMS_AT}, {units} units"
            measured[name] = measure("eager", TEAMS_AT, arguments, units)
            rate = measured[name]["env_steps_per_second"]
            print(f"round {number}: {name} {rate:12,.0f} env-steps/s", flush=True)
        rounds.append(measured)
    report = summarise(rounds)
    show(report)
    peer = arguments.peer_python
    settings = {
        "scenario": SCENARIO,
        "threads": arguments.threads,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
        "ratio_rounds": len(rounds),
    }
    versions = None if peer is None else run_peer(peer, "--versions")
    report = {"commit": commit(), "settings": settings, "peer_versions": versions, **report}
    write_report("skirmish", "benchmarks/skirmish.py", ("torch", "torchrl", "tensordict"), report)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256, 1024, 4096])
    parser.add_argument(
        "--ways", nargs="+", default=["eager", "compiled", "SMAX"], help="eager compiled SMAX"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--ratio-rounds", type=int, default=7, help=f"total rounds at batch {COMPARED_AT} (7)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="seconds per figure and round (3)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads and cores (2)")
    parser.add_argument("--peer-python", type=Path, metavar="PATH", help="Python with SMAX")
    return parser.parse_args()


def measure(way: str, batch: int, arguments: argparse.Namespace, units: int = 5) -> Figure:
    if way == "SMAX":
        options = (
            *("--batch", batch, "--seconds", arguments.seconds),
            *("--threads", arguments.threads),
        )
        return run_peer(arguments.peer_python, *options)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        values = (batch, units, way == "compiled", arguments.threads, arguments.seconds)
        return executor.submit(measure_skirmish, *values).result()


def measure_skirmish(
    batch: int, units: int, compiled: bool, threads: int, seconds: float
) -> Figure:
    import torch

    from heteromark.environment.skirmish import SkirmishEnv

    torch.set_num_threads(threads)
    settings = {"n_units": units, "units": "slot", "compile": compiled}
    env = SkirmishEnv(SCENARIO, num_envs=batch, seed=0, **settings)
    now = env.reset()

    def run(steps: int) -> float:
        nonlocal now
        started = time.perf_counter()
        for _ in range(steps):
            _, now = env.step_and_maybe_reset(env.rand_action(now))
        return time.perf_counter() - started

    started = time.perf_counter()
    while not bool(run(1) and now["step_count"].eq(0).any()) and time.perf_counter() - started < 60:
        pass  # until a battle ends, so that the reset is compiled, too
    compiling = time.perf_counter() - started
    each = run(20) / 20
    steps = max(20, int(seconds / each))
    rate = batch * steps / run(steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"env_steps_per_second": rate, "compile_seconds": compiling, "peak_mib": peak}


def run_peer(python: Path, *options: Any) -> Any:
    """Run SMAX's script and return its last line of output, parsed as JSON."""
    command = [str(value) for value in (python, "-I", PEER, *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"SMAX cannot be run with {python}:\n{done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summarise(rounds: list[dict[str, Figure]]) -> dict[str, Any]:
    figures = {
        name: {
            key: spread(
                [measured[name][key] for measured in rounds if name in measured],
                0 if key != "compile_seconds" else 1,
            )
            for key in rounds[0][name]
        }
        for name in rounds[0]
    }
    ratios = {}
    for way, target in TARGETS.items():
        ours, theirs = f"{way}, {COMPARED_AT}", f"SMAX, {COMPARED_AT}"
        if ours in rounds[0] and theirs in rounds[0]:
            values = [
                measured[ours]["env_steps_per_second"] / measured[theirs]["env_steps_per_second"]
                for measured in rounds
            ]
            ratios[f"{ours} / {theirs}"] = {**spread(values, 2), "target": target}
    return {"figures": figures, "ratios": ratios, "growth": growth(figures)}


def growth(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the exponent with which the cost of a step grows with the size.

    It is computed from the smallest and the largest size. Batches below 64 are left out, because
    their cost is dominated by the overhead of calls.
    """
    costs: dict[str, list[tuple[int, float]]] = {}
    for name, figure in figures.items():
        way, batch, *team = name.split(", ")
        cost = int(batch) / figure["env_steps_per_second"]["median"]
        if team:
            costs.setdefault("units", []).append((int(team[0].split()[0]), cost))
        elif int(batch) >= 64:
            costs.setdefault(f"batch, {way}", []).append((int(batch), cost))
    powers = {}
    for name, points in costs.items():
        (small, cheap), (large, dear) = points[0], points[-1]
        if large > small:
            power = math.log(dear / cheap) / math.log(large / small)
            powers[name] = {"power": round(power, 2), "target": GROWTH[name.split(", ")[0]]}
    return powers


def spread(values: list[float], digits: int) -> dict[str, float]:
    summary = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in summary.items()}


def show(report: dict[str, Any]) -> None:
    print(f"\n{'':<16} {'env-steps/s':>12}   {'range':>25}   {'first':>8}   {'peak':>9}")
    for name, figure in report["figures"].items():
        rate, first, peak = (
            figure[key] for key in ("env_steps_per_second", "compile_seconds", "peak_mib")
        )
        span = f"{rate['min']:,.0f} to {rate['max']:,.0f}"
        print(
            f"{name:<16} {rate['median']:>12,.0f}   {span:>25}   {first['median']:>6.1f} s   "
            f"{peak['median']:>5.0f} MiB"
        )
    for name, ratio in report["ratios"].items():
        span = f"{ratio['min']} to {ratio['max']}"
        print(f"{name}: {ratio['median']} ({span}), target {ratio['target']}")
    for name, grown in report["growth"].items():
        print(f"cost grows with {name} to the power {grown['power']}, at most {grown['target']}")


if __name__ == "__main__":
    main()
