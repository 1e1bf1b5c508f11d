"""Measure what language-model agents learn on a CPU in five minutes of GRPO and AT-GRPO.

    python benchmarks/llm_learning.py               an hour on two cores
    python benchmarks/llm_learning.py --parts math

math: GRPO on a + b < 200; the sampled reward must rise by 0.25.
plan_path: AT-GRPO on 4x4 grids, two roles with one adapter each; the team's solve rate must double.
For comparison: chains instead of trees, one adapter for both roles, the trained roles exchanged,
and a single agent with the same number of rounds and candidates.

There are three seeds, which also seed the tiny model and its warm-up. Runs are judged on held-out
problems, with responses sampled as in training. The targets allow five minutes on two cores; runs
are trained one at a time on both cores, and their times are reported. The run store keeps the runs,
so a second call trains only missing ones. Writes benchmarks/results/llm_learning.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, commit, label_curves, svg_plots, write_report
from learning import curve, heteromark

VERSIONED = ("torch", "torchrl", "tensordict", "transformers", "peft")
SEEDS = (0, 1, 2)
PROBLEMS, PASSES = 300, 4
MINUTES = 5


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        agent: agent config.
        environment: file in config/environment/.
        frames: frames per run.
        options: `--set` options of the training.
        swap: whether to judge the trained roles exchanged, too.
    """

    agent: str
    environment: str
    frames: int
    options: tuple[str, ...] = ()
    swap: bool = False


MATH, TEAM, CHAIN, SHARED, ALONE = "GRPO", "AT-GRPO", "chain", "shared", "single agent"
PARTS = {
    "math": {MATH: Way("grpo_agent_v1", "math", 307_200)},
    "plan_path": {
        TEAM: Way("at_grpo_agent_v1", "plan_path", 81_920, swap=True),
        CHAIN: Way("at_grpo_agent_sweep_chain", "plan_path", 81_920),
        SHARED: Way("at_grpo_agent_sweep_shared", "plan_path", 81_920),
        ALONE: Way("at_grpo_agent_v1", "plan_path", 81_920, ("algorithm=GRPO",)),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--threads", type=int, default=2, help="torch threads per run")
    arguments = parser.parse_args()
    wanted = [
        (part, name, seed)
        for seed in arguments.seeds
        for part in arguments.parts
        for name in PARTS[part]
    ]
    with tempfile.TemporaryDirectory() as folder:
        done = [measure(*each, arguments.threads, Path(folder)) for each in wanted]
    results: dict[str, dict[str, Any]] = {part: {} for part in arguments.parts}
    for (part, name, _), run in zip(wanted, done, strict=True):
        way = PARTS[part][name]
        entry = {"agent": way.agent, "frames": way.frames, "options": list(way.options), "runs": []}
        results[part].setdefault(name, entry)["runs"].append(run)
    for part, ways in results.items():
        for name, way in ways.items():
            for run in way["runs"]:
                print(
                    f"{part:<10} {name:<13} seed {run['seed']}: {run['before']:.3f} -> "
                    f"{run['after']:.3f} in {run['minutes']:.1f} min"
                    + (f", roles exchanged {run['exchanged']:.3f}" if "exchanged" in run else "")
                )
    checks = judge(results)
    for name, check in checks.items():
        print(f"{name}: {check['values']} target {check['target']}: {check['met']}")
    write_report(
        "llm_learning",
        "benchmarks/llm_learning.py",
        VERSIONED,
        {
            "commit": commit(),
            "threads": arguments.threads,
            "problems": PROBLEMS,
            "passes": PASSES,
            "checks": checks,
            **results,
        },
    )
    draw(results, RESULTS / "llm_learning.svg")


def measure(part: str, name: str, seed: int, threads: int, scratch: Path) -> dict[str, Any]:
    """Train one run, or find it in the run store; judge it before and after training."""
    way = PARTS[part][name]
    folder = scratch / f"{part}-{name}-{seed}"
    untrained = scratch / f"{part}-{name}-{seed}-before"
    options = (*way.options, *of_seed(seed), f"num_threads={threads}")
    trained_for = {folder: way.frames, untrained: 1}
    for target, frames in trained_for.items():
        settings = options if target is folder else (*options, "llm.specialization=none")
        heteromark(
            *("train", "--agent-config", f"config/agents/{way.agent}.yaml"),
            *("--environment", way.environment, "--total-timesteps", str(frames)),
            *("--seed", str(seed), "--output", str(target)),
            *(argument for setting in settings for argument in ("--set", setting)),
        )
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    rows = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    elapsed = rows[0].split(",").index("time_elapsed")
    run: dict[str, Any] = {
        "seed": seed,
        "digest": record["digest"],
        "before": evaluate(untrained)["text"]["solve_rate"],
        "minutes": round(float(rows[-1].split(",")[elapsed]) / 60, 2),
        "curve": curve(folder / "metrics.csv", "pass_at_1"),
    }
    report = evaluate(folder, *(("--swap-roles",) if way.swap else ()))
    run["after"] = report["text"]["solve_rate"]
    run["standard_error"] = report["text"]["solve_rate_standard_error"]
    if way.swap:
        run["exchanged"] = next(
            row["solve_rate"] for row in report["role_swaps"] if "exchanged" in row["name"]
        )
    print(f"{part} {name} seed {seed}: {run['before']} -> {run['after']}", file=sys.stderr)
    return run


def of_seed(seed: int) -> tuple[str, ...]:
    """Return options that also seed the tiny model and its warm-up."""
    return (
        *(f"model.tiny.seed={seed}", f"model.warm_up.seed={1_000_000 * seed}"),
        *("evaluation.episodes=50", "evaluation.passes=1"),
    )


def evaluate(folder: Path, *options: str) -> dict[str, Any]:
    """Evaluate a run with `heteromark evaluate`, on problems that training did not evaluate."""
    output = folder / "judged.json"
    heteromark(
        *("evaluate", str(folder), "--episodes", str(PROBLEMS), "--passes", str(PASSES)),
        *("--preset", "sampled", "--output", str(output), *options),
    )
    return json.loads(output.read_text(encoding="utf-8"))


def judge(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the verdicts on the targets, which every seed must meet in time."""
    checks = {}
    if "math" in results:
        runs = results["math"][MATH]["runs"]
        checks["math: rise"] = verdict(runs, 0.25, [run["after"] - run["before"] for run in runs])
    if "plan_path" in results:
        runs = results["plan_path"][TEAM]["runs"]
        checks["plan_path: times as often"] = verdict(
            runs, 2.0, [run["after"] / run["before"] for run in runs]
        )
    return checks


def verdict(runs: list[dict[str, Any]], target: float, values: list[float]) -> dict[str, Any]:
    """Return whether all values reach the target within `MINUTES`."""
    in_time = all(run["minutes"] <= MINUTES for run in runs)
    met = in_time and all(value >= target for value in values)
    return {"target": target, "values": [round(value, 3) for value in values], "met": met}


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the solve rate of single attempts in training: one panel per way, one line per seed."""
    pyplot = svg_plots()
    panels = [(part, name, way) for part, ways in results.items() for name, way in ways.items()]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 2.8), squeeze=False, layout="constrained"
    )
    for axis, (part, name, way) in zip(axes.flat, panels, strict=True):
        for run in way["runs"]:
            thousands = [frames / 1e3 for frames, _ in run["curve"]]
            axis.plot(thousands, [value for _, value in run["curve"]], label=f"seed {run['seed']}")
        axis.set_ylim(0, 1)
        label_curves(axis, f"{part}: {name}", "solved by one attempt")
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
