"""Check that the engine learns: every task with three seeds, learning curves and targets.

    python benchmarks/learning.py                  all tasks, about half an hour on two cores
    python benchmarks/learning.py --tasks tic_tac_toe connect_four
    python benchmarks/learning.py --list

`heteromark train` trains the runs and keeps them in the run store, so a second call, or a call
after an interruption, trains only missing runs. Prints every figure with its target. Writes
benchmarks/results/learning.json and the curves to benchmarks/results/learning.svg.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, commit, label_curves, svg_plots, write_report

VERSIONED = ("torch", "torchrl", "tensordict", "pettingzoo", "mpe2")
EPISODES = 200
POINTS = 50  # per curve in the report


@dataclass(frozen=True)
class Task:
    """One task to learn.

    Attributes:
        agent: agent config.
        environment: file in config/environment/.
        frames: frames per run.
        options: `--set` options of the training.
        checks: figure -> its target, a minimum.
        games: whether it is a turn-based game, judged against a random player from both seats.
    """

    agent: str
    environment: str
    frames: int
    options: tuple[str, ...] = ()
    checks: dict[str, float] = field(default_factory=dict)
    games: bool = False


# Random play returns -27.4 per agent in simple_spread, -26.2 in its continuous version.
ABOVE_RANDOM = {"return": -22.0, "rise": 0.0}
GAMES = ("learning_rate=1e-3", "network.net_arch=[128,128]", "environment.opponent.kind=random")
TASKS = {
    "speaker_listener_happo": Task(
        "happo_agent_v1", "speaker_listener", 1_000_000, checks={"return": -15.0}
    ),
    "speaker_listener_mappo": Task(
        "happo_agent_v1",
        "speaker_listener",
        1_000_000,
        ("algorithm=MAPPO",),
        checks={"return": -15.0},
    ),
    # One actor per agent: with a shared actor, HAPPO is the same as MAPPO.
    "simple_spread_happo": Task(
        "happo_agent_v1",
        "simple_spread",
        400_000,
        ("policy.share_policy_params=false",),
        checks=ABOVE_RANDOM,
    ),
    "simple_spread_mappo": Task(
        "happo_agent_v1",
        "simple_spread",
        400_000,
        ("algorithm=MAPPO",),
        checks=ABOVE_RANDOM,
    ),
    "simple_spread_continuous_happo": Task(
        "happo_agent_v1",
        "simple_spread_continuous",
        400_000,
        checks=ABOVE_RANDOM,
    ),
    "tic_tac_toe": Task(
        "ppo_agent_v1",
        "tic_tac_toe",
        300_000,
        GAMES,
        checks={"first: won": 0.85, "second: not lost": 0.90},
        games=True,
    ),
    "connect_four": Task(
        "ppo_agent_v1",
        "connect_four",
        400_000,
        GAMES,
        checks={"first: won": 0.85, "second: won": 0.85},
        games=True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--list", action="store_true", help="only list the tasks")
    arguments = parser.parse_args()
    if arguments.list:
        for name, task in TASKS.items():
            print(f"{name:<32} {task.frames:>10,} frames   {task.checks}")
        return
    wanted = [(name, seed) for name in arguments.tasks for seed in arguments.seeds]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        done = list(pool.map(lambda each: measure(*each, Path(folder)), wanted))
    results: dict[str, Any] = {}
    for name in arguments.tasks:
        runs = [run for (task, _), run in zip(wanted, done, strict=True) if task == name]
        results[name] = judge(TASKS[name], runs)
        for check, verdict in results[name]["checks"].items():
            values = ", ".join(f"{value:.3g}" for value in verdict["values"])
            print(
                f"{name:<32} {check:<18} {values:<28} target {verdict['target']:g}: "
                f"{'met' if verdict['met'] else 'MISSED'}"
            )
    measured = {"commit": commit(), "tasks": results}
    write_report("learning", "benchmarks/learning.py", VERSIONED, measured)
    draw(results, RESULTS / "learning.svg")


def measure(name: str, seed: int, scratch: Path) -> dict[str, Any]:
    """Train one run, or find it in the run store, and return its figures."""
    task = TASKS[name]
    folder = scratch / f"{name}-{seed}"
    settings = [f"evaluation.episodes={EPISODES}", *task.options]
    heteromark(
        "train",
        "--agent-config",
        f"config/agents/{task.agent}.yaml",
        "--environment",
        task.environment,
        "--total-timesteps",
        str(task.frames),
        "--seed",
        str(seed),
        "--output",
        str(folder),
        *(argument for setting in settings for argument in ("--set", setting)),
    )
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run: dict[str, Any] = {
        "seed": seed,
        "digest": record["digest"],
        "frames_per_second": record["summary"]["frames_per_second"],
        "curve": curve(folder / "metrics.csv"),
        "figures": {"return": record["summary"]["evaluation_return"]},
    }
    returns = [value for _, value in run["curve"]]
    tenth = max(1, len(returns) // 10)
    run["figures"]["rise"] = sum(returns[-tenth:]) / tenth - sum(returns[:tenth]) / tenth
    if task.games:
        for seat in ("first", "second"):
            report = scratch / f"{name}-{seed}-{seat}.json"
            heteromark(
                *("evaluate", str(folder), "--opponent", "random", "--seat", seat),
                *("--episodes", "500", "--output", str(report)),
            )
            outcome = json.loads(report.read_text(encoding="utf-8"))
            run["figures"][f"{seat}: won"] = outcome["win_rate"]
            run["figures"][f"{seat}: not lost"] = outcome["not_lost_rate"]
    print(f"{name} seed {seed}: {run['figures']}", file=sys.stderr, flush=True)
    return run


def heteromark(*arguments: str) -> None:
    """Run a command of this project; exit with its output if it fails."""
    command = [sys.executable, "-m", "heteromark", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def curve(metrics: Path, column: str = "episode_return") -> list[tuple[int, float]]:
    """Return (frames, mean of a column) for `POINTS` equal parts of a run."""
    with metrics.open(encoding="utf-8", newline="") as file:
        rows = [
            (int(row["frames"]), float(row[column])) for row in csv.DictReader(file) if row[column]
        ]
    size = math.ceil(len(rows) / POINTS)
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [(part[-1][0], round(sum(r for _, r in part) / len(part), 4)) for part in parts]


def judge(task: Task, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the runs of a task with a verdict on each target, which every seed must meet."""
    checks = {}
    for name, target in task.checks.items():
        values = [round(run["figures"][name], 4) for run in runs]
        checks[name] = {
            "target": target,
            "values": values,
            "met": all(value >= target for value in values),
        }
    return {
        "agent": task.agent,
        "environment": task.environment,
        "frames": task.frames,
        "options": list(task.options),
        "checks": checks,
        "runs": runs,
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw all curves, with one panel per task and one line per seed."""
    pyplot = svg_plots()
    columns = min(3, len(results))
    rows = math.ceil(len(results) / columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 2.8 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(results) :]:
        axis.remove()
    for axis, (name, result) in zip(axes.flat, results.items(), strict=False):
        for run in result["runs"]:
            thousands = [frames / 1e3 for frames, _ in run["curve"]]
            returns = [value for _, value in run["curve"]]
            axis.plot(thousands, returns, label=f"seed {run['seed']}", linewidth=1.2)
        label_curves(axis, name.replace("_", " "), "return per agent")
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
