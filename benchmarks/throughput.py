"""Measure the speed of training, compared with the bare environments and with BenchMARL.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --setup-peer ../benchmarl-venv
    python benchmarks/throughput.py --peer-python ../benchmarl-venv/bin/python

MAPPO on simple_spread with three agents and discrete actions, in the sizes of HARL's MPE runs: 20
copies of 200 steps make a batch of 4,000 frames; layers [128, 128]; 5 epochs of 1 minibatch. A
frame is one step of one copy, whatever the number of agents. Measured, in frames per second:

    raw         copies stepped in turn with random actions, in plain Python, in one process and in
                several at the same time: the maximum speed of the environments
    collection  our collector alone: policy, copies and the batch
    loop        our whole training: collection, update, metrics
    BenchMARL   its whole training, in a separate virtual environment, because it needs another
                TorchRL; without that environment, it is not measured and null in the results

Each figure is measured in a new process after a warm-up. Every round measures each figure once, and
ratios compare figures of the same round, so that changes in the machine's speed affect both sides.
Do not use the machine meanwhile; a round takes about a minute.

Prints a table with the median and the range over the rounds and writes
benchmarks/results/throughput.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from common import ROOT, commit, write_report

PEER = ROOT / "benchmarks" / "peers" / "benchmarl"
VERSIONED = ("torch", "torchrl", "tensordict", "numpy", "pettingzoo", "mpe2")

ENVIRONMENT = "simple_spread"
COPIES, FRAMES, EPOCHS, HIDDEN = 20, 4000, 5, [128, 128]
PEER_NAME = "BenchMARL loop"
# Minimum ratios: to the raw environments in equally many processes, and to BenchMARL's loop.
COLLECTION_TARGET, LOOP_TARGET = 0.6, 4.0

Overrides = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """One figure of one round. Only whole loops have a `collection_share`."""

    frames_per_second: float
    collection_share: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A ratio of two figures, and its target, a minimum."""

    figure: str
    base: str
    target: float | None = None

    @property
    def name(self) -> str:
        return f"{self.figure} / {self.base}"


def main() -> None:
    arguments = parse_arguments()
    restrict_to(arguments.cores)
    peer = arguments.peer_python
    if arguments.setup_peer is not None:
        peer = set_up_peer(arguments.setup_peer)
    if peer is None:
        log("BenchMARL is not measured: give --setup-peer or --peer-python, see --help")
    else:
        check_peer(peer)
    figures, ratios = plan(arguments, peer)
    load = os.getloadavg()[0]  # mean number of runnable processes over the last minute
    if load > 0.5:
        log(f"the machine is busy (load {load:.1f}): figures will be too low, with wide ranges")
    rounds: list[dict[str, Timing]] = []
    for number in range(1, arguments.rounds + 1):
        measured = {}
        for name, measure in figures.items():
            measured[name] = measure()
            rate = measured[name].frames_per_second
            log(f"round {number} of {arguments.rounds}: {name:<40} {rate:8.0f} frames/s")
        rounds.append(measured)
    report = summarise(rounds, ratios)
    show(report)
    settings = {
        "environment": ENVIRONMENT,
        "copies": COPIES,
        "frames_per_batch": FRAMES,
        "epochs": EPOCHS,
        "minibatch_size": FRAMES,
        "hidden_sizes": HIDDEN,
        "cores": arguments.cores,
        "threads": arguments.threads,
        "processes": arguments.processes,
        "rounds": arguments.rounds,
        "batches_per_round": arguments.batches,
        "load_before": round(load, 2),
    }
    peer_versions = None if peer is None else run_peer(peer, "--versions")
    report = {"commit": commit(), "settings": settings, "peer_versions": peer_versions, **report}
    write_report("throughput", "benchmarks/throughput.py", VERSIONED, report)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    count = functools.partial(parser.add_argument, type=int)
    count("--rounds", default=5, help="measurements per figure (5)")
    count("--batches", default=3, help="batches per figure and round, after one to warm up (3)")
    count("--cores", default=2, help="CPU cores to use, where the system can restrict it (2)")
    count("--threads", default=2, help="threads of torch, ours and BenchMARL's (2)")
    count("--processes", default=2, help="number of processes in parts with several (2)")
    peer = parser.add_mutually_exclusive_group()
    peer.add_argument(
        "--peer-python",
        type=Path,
        metavar="PATH",
        help="Python of a virtual environment with the packages of "
        "benchmarks/peers/benchmarl/requirements.txt",
    )
    peer.add_argument(
        "--setup-peer",
        type=Path,
        metavar="FOLDER",
        help="create that virtual environment first; on Linux, configure pip to find torch's CPU "
        "build, see requirements.txt",
    )
    return parser.parse_args()


def plan(
    arguments: argparse.Namespace, peer: Path | None
) -> tuple[dict[str, Callable[[], Timing]], list[Ratio]]:
    """Return the figures that a round measures, in order, and the ratios."""
    several = arguments.processes
    raw_one, raw_several = "raw, 1 process", f"raw, {several} processes"
    ways: dict[str, Overrides] = {
        "1 process": {},
        f"{several} environment workers": {"environment": {"num_workers": several}},
        f"{several} collectors": {
            "collector_type": "multi_sync",
            "collector": {"num_collectors": several},
        },
    }
    figures: dict[str, Callable[[], Timing]] = {
        raw_one: functools.partial(measure_raw, 1),
        raw_several: functools.partial(measure_raw, several),
    }
    ratios = []
    for way, overrides in ways.items():
        name = f"collection, {way}"
        figures[name] = functools.partial(isolated, measure_collection, arguments, overrides)
        if overrides:
            ratios.append(Ratio(name, raw_several, COLLECTION_TARGET))
        else:
            ratios.append(Ratio(name, raw_one))
    for way, overrides in ways.items():
        name = f"loop, {way}"
        figures[name] = functools.partial(isolated, measure_loop, arguments, overrides)
        ratios.append(Ratio(name, PEER_NAME, LOOP_TARGET if overrides else None))
    if peer is not None:
        figures[PEER_NAME] = functools.partial(measure_peer, peer, arguments)
    return figures, ratios


# --- the figures ---------------------------------------------------------------------------------


def measure_raw(num_processes: int, seconds: float = 3.0) -> Timing:
    """Step copies in plain loops, split over processes that run at the same time."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(num_processes), context.Queue()
    processes = [
        context.Process(target=step_copies, args=(COPIES // num_processes, seconds, ready, rates))
        for _ in range(num_processes)
    ]
    for process in processes:
        process.start()
    total = sum(rates.get(timeout=60 + 2 * seconds) for _ in processes)
    for process in processes:
        process.join()
    return Timing(total)


def step_copies(num_copies: int, seconds: float, ready: Any, rates: Any) -> None:
    """Put this process's frames per second into `rates`.

    Actions are drawn beforehand, because choosing them is not part of the environment's cost.
    """
    from heteromark.import_paths import Task

    environment = make_config(1, {}).environment
    copies = [Task(environment.task, environment.kwargs)() for _ in range(num_copies)]
    for seed, copy in enumerate(copies):
        copy.reset(seed=seed)
    sizes = {agent: copies[0].action_space(agent).n for agent in copies[0].possible_agents}
    draw = random.Random(0).randrange
    actions = [{agent: draw(size) for agent, size in sizes.items()} for _ in range(1000)]
    frames = 0

    def run(seconds: float) -> float:
        nonlocal frames
        started, frames = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            for copy in copies:
                copy.step(actions[frames % len(actions)])
                frames += 1
                if not copy.agents:
                    copy.reset()
        return frames / elapsed

    run(seconds / 10)
    ready.wait()
    rates.put(run(seconds))


def measure_collection(arguments: argparse.Namespace, overrides: Overrides) -> Timing:
    """Measure our collector with a fixed actor."""
    from heteromark.training.components import ComponentFactory

    components = ComponentFactory(make_config(arguments.threads, overrides)).create()
    components.collector.restart(0, "training", 0)
    took = []
    for _ in range(1 + arguments.batches):
        started = time.perf_counter()
        components.collector.collect()
        took.append(time.perf_counter() - started)
    components.collector.close()
    components.environment.close()
    return Timing(FRAMES / statistics.mean(took[1:]))


def measure_loop(arguments: argparse.Namespace, overrides: Overrides) -> Timing:
    """Measure our training loop, without checkpoints and evaluation."""
    from heteromark.modules.collector import CollectorFactory
    from heteromark.training.loop import train

    collecting: list[float] = []
    ended: list[float] = []

    def create_timed(*values: Any) -> Any:
        collector = create(*values)
        collect = collector.collect

        def timed() -> Any:
            started = time.perf_counter()
            batch = collect()
            collecting.append(time.perf_counter() - started)
            return batch

        collector.collect = timed
        return collector

    config = make_config(arguments.threads, overrides, iterations=1 + arguments.batches)
    create = CollectorFactory.create
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(CollectorFactory, "create", create_timed),
    ):
        train(config, Path(folder), on_progress=lambda *_: ended.append(time.perf_counter()))
    whole = ended[-1] - ended[0]
    return Timing(FRAMES * arguments.batches / whole, sum(collecting[1:]) / whole)


def measure_peer(python: Path, arguments: argparse.Namespace) -> Timing:
    """Measure BenchMARL's training with the same sizes, without evaluation and checkpoints."""
    iterations = run_peer(
        python,
        *("--iterations", arguments.batches, "--threads", arguments.threads),
        *("--envs", COPIES, "--frames", FRAMES, "--minibatch", FRAMES, "--epochs", EPOCHS),
        *("--hidden", *HIDDEN),
    )
    whole = sum(iteration["iteration"] for iteration in iterations)
    collecting = sum(iteration["collection"] for iteration in iterations)
    return Timing(FRAMES * len(iterations) / whole, collecting / whole)


def isolated(function: Callable[..., Timing], *values: Any) -> Timing:
    """Call a function in a new process, which may start further processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *values).result()


def make_config(threads: int, overrides: Overrides, iterations: int = 1) -> Any:
    """Return the config of the measured run."""
    from heteromark.config.compose.composition import compose_run, load_params
    from heteromark.config.models.agent import AgentConfig

    agent = AgentConfig(
        agent_id="throughput",
        algorithm="MAPPO",
        n_steps=FRAMES,
        batch_size=FRAMES,
        n_epochs=EPOCHS,
        network={"net_arch": HIDDEN},
    )
    values = {
        "device": "cpu",
        "num_parallel_envs": COPIES,
        "num_threads": threads,
        "checkpoint_interval": iterations + 1,
        "sweep": {"environment": ENVIRONMENT},
        "smoke": {"total_frames": iterations * FRAMES, "eval_episodes": 1},
    }
    return compose_run(agent, load_params(ROOT, values), "smoke", 0, ROOT, overrides)


# --- BenchMARL -----------------------------------------------------------------------------------


def set_up_peer(folder: Path) -> Path:
    """Create BenchMARL's virtual environment; return its Python."""
    log(f"installing BenchMARL into {folder}")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    requirements = PEER / "requirements.txt"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--requirement", requirements]
    subprocess.run([python, *install], check=True)
    return python


def check_peer(python: Path) -> None:
    """Exit with a message if BenchMARL cannot be run, before measuring anything."""
    try:
        run_peer(python, "--versions")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip()
        sys.exit(f"BenchMARL cannot be run with {python}:\n{reason}\nsee --setup-peer in --help")


def run_peer(python: Path, *options: Any) -> Any:
    """Run BenchMARL's script and return its last line of output, parsed as JSON."""
    # -I: ignore variables of this environment, such as PYTHONPATH
    command = [str(value) for value in (python, "-I", PEER / "run.py", *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


# --- reporting -----------------------------------------------------------------------------------


def summarise(rounds: Sequence[dict[str, Timing]], ratios: Sequence[Ratio]) -> dict[str, Any]:
    """Return median and range over the rounds; None for figures that were not measured."""
    names = [*rounds[0], *({PEER_NAME} - set(rounds[0]))]
    shares = {
        name: [timings[name].collection_share for timings in rounds]
        for name in rounds[0]
        if rounds[0][name].collection_share is not None
    }
    return {
        "frames_per_second": {
            name: spread([timings[name].frames_per_second for timings in rounds], digits=0)
            if name in rounds[0]
            else None
            for name in names
        },
        "collection_share": {name: spread(values, digits=3) for name, values in shares.items()},
        "ratios": {
            ratio.name: spread(
                [
                    timings[ratio.figure].frames_per_second / timings[ratio.base].frames_per_second
                    for timings in rounds
                ],
                digits=3,
            )
            if ratio.base in rounds[0]
            else None
            for ratio in ratios
        },
        "targets": {ratio.name: ratio.target for ratio in ratios if ratio.target is not None},
    }


def spread(values: Sequence[float], digits: int) -> dict[str, float]:
    summary = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in summary.items()}


def show(report: dict[str, Any]) -> None:
    """Print the figures, and the ratios with their targets."""

    def line(name: str, values: dict[str, float] | None, form: str, more: str = "") -> None:
        if values is None:
            print(f"{name:<58} not measured")
            return
        median, low, high = (format(values[key], form) for key in ("median", "min", "max"))
        print(f"{name:<58} {median:>7}   {low:>7} to {high:<7} {more}".rstrip())

    print(f"\n{'frames per second':<58} {'median':>7}   {'range':>7}")
    for name, values in report["frames_per_second"].items():
        share = report["collection_share"].get(name)
        more = f"{share['median']:.0%} of it collection" if share else ""
        line(name, values, ",.0f", more)
    print("\nratios")
    for name, values in report["ratios"].items():
        target = report["targets"].get(name)
        line(name, values, ".2f", "" if target is None else f"target {target:g}")


def restrict_to(cores: int) -> None:
    """Restrict this process and its children to a number of cores, if the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
