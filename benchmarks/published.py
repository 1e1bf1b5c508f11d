"""Train the field's own tasks, beside the libraries that published results for them.

    python benchmarks/published.py --list
    python benchmarks/published.py halfcheetah_2x3
    python benchmarks/published.py walker2d_2x3 --harl ../HARL --harl-python ../harl-venv/bin/python
    python benchmarks/published.py vmas_balance --benchmarl-python ../benchmarl-venv/bin/python

Ours and the peer train the same environment for the same frames with the same seeds, one thread
each, and play the same number of evaluation episodes with their greedy policies. The peer takes its
own published values. Without its Python, only ours is trained.

HARL needs a clone of github.com/PKU-MARL/HARL, for its tuned values, and a virtual environment with
torch, tensorboardX, setproctitle, absl-py and the packages of the environment. For BenchMARL's, see
benchmarks/peers/benchmarl/.

Runs are kept in benchmarks/results/published.json; a second call trains only what is missing there,
and `--again` everything. Also draws benchmarks/results/published.svg and prints a table.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from common import RESULTS, ROOT, commit, label_curves, svg_plots, write_report

PEERS = ROOT / "benchmarks" / "peers"
VERSIONED = ("torch", "torchrl", "tensordict", "pettingzoo", "gymnasium", "numpy")
KEPT = RESULTS / "published.json"
OURS = "HeteroMARK"
POINTS = 60  # per curve in the report

# Settings of BenchMARL's fine_tuned/vmas/conf/config.yaml, commit 179a956, but on the CPU.
BENCHMARL_VMAS = {
    "gamma": 0.9,
    "lr": 5e-5,
    "clip_grad_val": 5,
    "on_policy_collected_frames_per_batch": 60_000,
    "on_policy_n_envs_per_worker": 600,
    "on_policy_n_minibatch_iters": 45,
    "on_policy_minibatch_size": 4096,
}


@dataclass(frozen=True)
class Task:
    """A task of the field.

    Attributes:
        agents: agent configs of ours, by the name of the curve.
        environment: file in config/environment/.
        copies: of the environment.
        frames: per run.
        every: iterations between evaluations.
        iteration: frames of one.
        peer: "harl" or "benchmarl"; its name for the task is `peer_task`.
        published: frames -> return, read off the peer's own figure.
        targets: frames -> the least mean of our evaluations.
        options: `--set` options of ours.
    """

    agents: Mapping[str, str]
    environment: str
    copies: int
    frames: int
    every: int
    iteration: int
    peer: str
    peer_task: str
    episodes: int = 10
    published: dict[int, float] = field(default_factory=dict)
    targets: dict[int, float] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    @property
    def evaluate_at(self) -> list[int]:
        step = self.every * self.iteration
        return list(range(step, self.frames + 1, step))


def mamujoco(environment: str, frames: int, peer_task: str, **others: Any) -> Task:
    agents = {OURS: "mujoco_agent_v1", f"{OURS}, HARL's values": f"harl_{environment}"}
    sizes = {"copies": 20, "iteration": 4000, "every": 25, "frames": frames}
    return Task(agents, environment, peer="harl", peer_task=peer_task, **sizes, **others)


def vmas(environment: str, peer_task: str) -> Task:
    agents = {OURS: "benchmarl_vmas"}
    sizes = {"copies": 600, "iteration": 60_000, "every": 1, "frames": 300_000, "episodes": 200}
    return Task(agents, environment, peer="benchmarl", peer_task=peer_task, **sizes)


TASKS = {
    "halfcheetah_2x3": mamujoco(
        "halfcheetah_2x3",
        1_000_000,
        "mamujoco/HalfCheetah-v2-2x3",
        published={200_000: 900.0, 300_000: 1_080.0, 1_000_000: 2_860.0},
        targets={300_000: 1_500.0, 1_000_000: 3_500.0},
    ),
    "walker2d_2x3": mamujoco("walker2d_2x3", 300_000, "mamujoco/Walker2d-v2-2x3"),
    "simple_spread": Task(
        {OURS: "harl_simple_spread"},
        "simple_spread",
        copies=20,
        frames=200_000,
        every=10,
        iteration=4000,
        peer="harl",
        peer_task="pettingzoo_mpe/simple_spread_v2-discrete",
        episodes=200,
        targets={200_000: -21.5},
        options=("policy.share_policy_params=false",),
    ),
    "vmas_balance": vmas("vmas_balance", "BALANCE"),
    "vmas_sampling": vmas("vmas_sampling", "SAMPLING"),
    "vmas_navigation": vmas("vmas_navigation", "NAVIGATION"),
}


def main() -> None:
    arguments = parse_arguments()
    if arguments.list:
        for name, task in TASKS.items():
            print(f"{name:<30} {task.frames:>10,} frames   beside {task.peer}: {task.peer_task}")
        return
    kept = {} if not KEPT.exists() else json.loads(KEPT.read_text(encoding="utf-8"))["runs"]
    wanted = [
        (name, system, seed)
        for name in arguments.tasks
        for system in (*TASKS[name].agents, TASKS[name].peer)
        for seed in arguments.seeds
        if arguments.systems is None or system in arguments.systems
    ]
    pythons = {"harl": arguments.harl_python, "benchmarl": arguments.benchmarl_python}

    def measure(name: str, system: str, seed: int) -> None:
        key = f"{name} | {system} | {seed}"
        python = pythons.get(system, sys.executable)
        if python is None or (key in kept and not arguments.again):
            return
        try:
            run = train(TASKS[name], system, seed, python, arguments.harl)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{key} failed\n{error.stdout}\n{error.stderr}") from None
        kept[key] = run
        ends = ", ".join(f"{value:.4g} at {frames:,}" for frames, value in run["evaluations"][-1:])
        print(f"{key}: {ends}, {run['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True)
        write_report(
            "published",
            "benchmarks/published.py",
            VERSIONED,
            {"runs": {key: kept[key] for key in sorted(kept)}},
        )

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda each: measure(*each), wanted))
    shown = [name for name in TASKS if runs_of(kept, name)]
    for name in shown:
        show(name, runs_of(kept, name))
    draw({name: runs_of(kept, name) for name in shown}, RESULTS / "published.svg")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], metavar="TASK", default=[])
    parser.add_argument("--list", action="store_true", help="only list the tasks")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", help="train only these, such as harl")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--again", action="store_true", help="train also what is kept")
    parser.add_argument("--harl", type=Path, metavar="FOLDER", help="a clone of HARL")
    parser.add_argument("--harl-python", metavar="PATH", help="Python of HARL's environment")
    parser.add_argument(
        "--benchmarl-python", metavar="PATH", help="Python of BenchMARL's environment"
    )
    arguments = parser.parse_args()
    if (arguments.harl is None) != (arguments.harl_python is None):
        parser.error("--harl and --harl-python go together")
    return arguments


def train(task: Task, system: str, seed: int, python: str, harl: Path | None) -> dict[str, Any]:
    """Train one run in a process of its own, and return its curve, evaluations and CPU time."""
    with tempfile.TemporaryDirectory() as scratch:
        if system in task.agents:
            command = our_command(task, task.agents[system], seed, Path(scratch) / "run")
        else:
            request = {
                "frames": task.frames,
                "seed": seed,
                "evaluate_at": task.evaluate_at,
                "episodes": task.episodes,
                "threads": 1,
                **peer_request(task, harl),
            }
            (Path(scratch) / "request.json").write_text(json.dumps(request), encoding="utf-8")
            script = PEERS / system / "train.py"
            command = [python, "-W", "ignore", str(script), f"{scratch}/request.json"]
        output, seconds = run_and_time(command, {"PYTHONPATH": "" if harl is None else str(harl)})
        if system in task.agents:
            curves = our_curves(Path(scratch) / "run")
        else:
            curves = json.loads(output.splitlines()[-1])
    return {
        "commit": commit() if system in task.agents else None,
        "cpu_seconds": round(seconds, 1),
        "frames": task.frames,
        "curve": thinned(curves["curve"]),
        "evaluations": curves["evaluations"],
    }


def our_command(task: Task, agent: str, seed: int, folder: Path) -> list[str]:
    settings = [
        f"evaluation.episodes={task.episodes}",
        f"evaluation.interval={task.every}",  # 0: only at the end
        "num_threads=1",
        "device=cpu",
        "checkpoint_interval=1000",
        *task.options,
    ]
    return [
        *(sys.executable, "-m", "heteromark", "train"),
        *("--agent-config", f"config/agents/{agent}.yaml"),
        *("--environment", task.environment, "--num-envs", str(task.copies)),
        *("--total-timesteps", str(task.frames), "--seed", str(seed)),
        *("--output", str(folder)),
        *(argument for setting in settings for argument in ("--set", setting)),
    ]


def peer_request(task: Task, harl: Path | None) -> dict[str, Any]:
    if task.peer == "benchmarl":
        return {"task": task.peer_task, "values": BENCHMARL_VMAS}
    assert harl is not None
    path = harl / "tuned_configs" / task.peer_task / "happo" / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))["algo_args"]
    ours = ROOT / "config" / "environment" / f"{task.environment}.yaml"
    environment = yaml.safe_load(ours.read_text(encoding="utf-8"))["environment"]
    return {
        "environment": {"task": environment["task"], "kwargs": environment.get("kwargs") or {}},
        "values": values,
    }


def run_and_time(command: Sequence[str], environment: dict[str, str]) -> tuple[str, float]:
    """Run a command; return its output, and the CPU seconds of its process.

    Raises:
        CalledProcessError: it failed.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        output = out.read()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, output, err.read())
    return output, usage.ru_utime + usage.ru_stime


def our_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> list[tuple[int, float]]:
        found = [(int(row["frames"]), row.get(name)) for row in rows]
        return [(frames, float(value)) for frames, value in found if value]

    evaluations = column("evaluation_return")
    if not evaluations or evaluations[-1][0] < int(rows[-1]["frames"]):
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        evaluations.append((int(rows[-1]["frames"]), record["summary"]["evaluation_return"]))
    return {"curve": column("episode_return"), "evaluations": evaluations}


def thinned(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the means of `POINTS` equal parts of a curve."""
    size = max(1, math.ceil(len(curve) / POINTS))
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(part[-1][0], round(statistics.fmean(y for _, y in part), 3)) for part in parts]


def runs_of(kept: dict[str, Any], name: str) -> dict[str, list[dict[str, Any]]]:
    """Return the runs of a task by system, in the order of their seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, run in kept.items():
        task, system, _ = key.split(" | ")
        if task == name:
            found.setdefault(system, []).append(run)
    order = [*TASKS[name].agents, TASKS[name].peer]
    return {system: found[system] for system in order if system in found}


def show(name: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print the evaluations and the speed of a task."""
    task = TASKS[name]
    at = sorted({*task.targets, *task.published, task.frames})
    for system, own in runs.items():
        for frames in at:
            values = [value for run in own for x, value in run["evaluations"] if x == frames]
            if not values:
                continue
            text = ", ".join(f"{value:.4g}" for value in values)
            line = f"{name:<16} {system:<25} {frames:>9,} frames: {statistics.fmean(values):8.4g}"
            line += f" ({text})"
            if frames in task.published:
                line += f"; published {task.published[frames]:g}"
            if system == OURS and frames in task.targets:
                is_met = statistics.fmean(values) >= task.targets[frames]
                line += f"; target {task.targets[frames]:g}: {'met' if is_met else 'MISSED'}"
            print(line)
    speeds = {
        system: statistics.median(run["frames"] / run["cpu_seconds"] for run in own)
        for system, own in runs.items()
    }
    line = ", ".join(f"{system} {speed:,.0f}" for system, speed in speeds.items())
    if task.peer in speeds:
        ours = [each for each in task.agents if each in speeds]
        ratios = [f"{speeds[each] / speeds[task.peer]:.2f}" for each in ours]
        line += f": {', '.join(ratios)} times"
    print(f"{name:<16} frames per CPU second: {line}")


def draw(tasks: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Draw one panel per task: the mean of the evaluations over seeds, and the range."""
    pyplot = svg_plots()
    columns = min(3, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 3.0 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(tasks) :]:
        axis.remove()
    for axis, (name, systems) in zip(axes.flat, tasks.items(), strict=False):
        for system, runs in systems.items():
            points: dict[int, list[float]] = {}
            for run in runs:
                for frames, value in run["evaluations"]:
                    points.setdefault(frames, []).append(value)
            thousands = [frames / 1e3 for frames in points]
            means = [statistics.fmean(values) for values in points.values()]
            (line,) = axis.plot(thousands, means, label=f"{system}, {len(runs)} seeds", marker=".")
            axis.fill_between(
                thousands,
                [min(values) for values in points.values()],
                [max(values) for values in points.values()],
                alpha=0.2,
                color=line.get_color(),
            )
        published = TASKS[name].published
        if published:
            thousands = [frames / 1e3 for frames in published]
            axis.plot(
                thousands, [*published.values()], "k^", label=f"{TASKS[name].peer}, published"
            )
        label_curves(axis, name.replace("_", " "), "return of the greedy policy")
        axis.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
