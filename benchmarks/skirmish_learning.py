"""Measure learning on Skirmish: win rates against `nearest`, compared with two lower bounds.

    python benchmarks/skirmish_learning.py            an hour and a half on two cores
    python benchmarks/skirmish_learning.py --scenarios mini_MMM

HAPPO has an actor per unit type, MAPPO one actor for all; each is trained with three seeds. The
lower bounds are random legal play and an open-loop policy, which is trained as long but observes
only the time step (benchmarks/open_loop.py). For comparison, the report has the win rates of the
scripts, which see the whole map. A second call, or a call after an interruption, trains only
missing runs. Writes benchmarks/results/skirmish_learning.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, commit, label_curves, svg_plots, write_report
from learning import curve, heteromark

VERSIONED = ("torch", "torchrl", "tensordict")
EPISODES = 500
SEEDS = (0, 1, 2)
OPEN_LOOP = ("env_type=custom", "environment.task=benchmarks.open_loop:make")


@dataclass(frozen=True)
class Scenario:
    """One scenario to train on.

    Attributes:
        environment: file in config/environment/.
        frames: frames per run.
        options: `--set` options of all its runs.
    """

    environment: str
    frames: int
    options: tuple[str, ...] = ()


SCENARIOS = {
    "mini_MMM": Scenario("skirmish", 300_000),
    "10gen_terran": Scenario(
        "skirmish_10gen_terran",
        1_000_000,
        (
            *("learning_rate=1e-3", "n_steps=8192", "batch_size=2048", "n_epochs=8"),
            *("network.net_arch=[128,128]", "network.activation_fn=relu", "ppo.ent_coef=0.003"),
        ),
    ),
}
HAPPO, MAPPO, OPEN = "HAPPO", "MAPPO", "open loop"
WAYS = {HAPPO: SEEDS, MAPPO: SEEDS, OPEN: SEEDS[:1]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (2)")
    arguments = parser.parse_args()
    wanted = [
        (scenario, way, seed)
        for scenario in arguments.scenarios
        for way, seeds in WAYS.items()
        for seed in seeds
    ]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        runs = list(pool.map(lambda each: measure(*each, Path(folder)), wanted))
    results = {}
    for scenario in arguments.scenarios:
        of_scenario = [
            {"way": way, **run}
            for (name, way, _), run in zip(wanted, runs, strict=True)
            if name == scenario
        ]
        results[scenario] = judge(scenario, of_scenario)
    show(results)
    report = {"commit": commit(), "episodes": EPISODES, "scenarios": results}
    write_report("skirmish_learning", "benchmarks/skirmish_learning.py", VERSIONED, report)
    draw(results, RESULTS / "skirmish_learning.svg")


def options_of(scenario: str, way: str) -> list[str]:
    """Return the `--set` options of a run."""
    units = "slot" if way == MAPPO else "type"
    if way == OPEN:
        kwargs = f"environment.kwargs={{scenario: {scenario}, units: {units}}}"
        return [*SCENARIOS[scenario].options, *OPEN_LOOP, kwargs]
    return [
        *SCENARIOS[scenario].options,
        f"algorithm={way}",
        f"environment.skirmish.units={units}",
    ]


def measure(scenario: str, way: str, seed: int, scratch: Path) -> dict[str, Any]:
    """Train one run, or find it in the run store, and return its figures."""
    task = SCENARIOS[scenario]
    folder = scratch / f"{scenario}-{way}-{seed}".replace(" ", "-")
    settings = [f"evaluation.episodes={EPISODES}", *options_of(scenario, way)]
    heteromark(
        *("train", "--agent-config", "config/agents/happo_agent_v1.yaml"),
        *("--environment", task.environment, "--total-timesteps", str(task.frames)),
        *("--seed", str(seed), "--output", str(folder)),
        *(argument for setting in settings for argument in ("--set", setting)),
    )
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    points = curve(folder / "metrics.csv", "win_rate")
    run = {
        "seed": seed,
        "digest": record["digest"],
        "win_rate": evaluation["win_rate"],
        "return": round(evaluation["return_mean"], 3),
        "minutes": round(record["duration_seconds"] / 60, 1),
        "frames_per_second": record["summary"]["frames_per_second"],
        "curve": points,
    }
    figures = {key: run[key] for key in ("win_rate", "return", "minutes")}
    print(f"{scenario} {way} seed {seed}: {figures}", file=sys.stderr, flush=True)
    return run


def judge(scenario: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the runs with the lower bounds, and whether every seed is above both."""
    from scripted_play import win_rates

    task = SCENARIOS[scenario]
    played = win_rates(scenario, EPISODES)
    floors = {
        "random": played.pop("random"),
        OPEN: max(run["win_rate"] for run in runs if run["way"] == OPEN),
    }
    learnt = [run["win_rate"] for run in runs if run["way"] != OPEN]
    return {
        "environment": task.environment,
        "frames": task.frames,
        "options": {way: options_of(scenario, way) for way in WAYS},
        "floors": floors,
        "scripts": played,
        "above_floors": min(learnt) > max(floors.values()),
        "runs": runs,
    }


def show(results: dict[str, Any]) -> None:
    print(f"{'scenario':<14} {'who':<12} {'won against nearest':<24} {'minutes':<18}")
    for scenario, result in results.items():
        for way in WAYS:
            runs = [run for run in result["runs"] if run["way"] == way]
            won = ", ".join(f"{run['win_rate']:.1%}" for run in runs)
            minutes = ", ".join(str(run["minutes"]) for run in runs)
            print(f"{scenario:<14} {way:<12} {won:<24} {minutes:<18}")
        for name, rate in {"random": result["floors"]["random"], **result["scripts"]}.items():
            print(f"{scenario:<14} {name:<12} {rate:.1%}")


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw win rates during training, with one panel per scenario and one line per seed."""
    pyplot = svg_plots()
    figure, axes = pyplot.subplots(
        1, len(results), figsize=(5 * len(results), 3.2), squeeze=False, layout="constrained"
    )
    # different line styles, to be distinct without colours
    looks = {HAPPO: ("#0072B2", "-"), MAPPO: ("#D55E00", "--"), OPEN: ("#555555", ":")}
    for axis, (scenario, result) in zip(axes.flat, results.items(), strict=True):
        for way, (colour, line) in looks.items():
            runs = [run for run in result["runs"] if run["way"] == way]
            for number, run in enumerate(runs):
                axis.plot(
                    [frames / 1e3 for frames, _ in run["curve"]],
                    [rate for _, rate in run["curve"]],
                    line,
                    color=colour,
                    linewidth=1.3,
                    label=way if number == 0 else None,
                )
        axis.axhline(result["floors"]["random"], color="#999999", linewidth=0.8, label="random")
        label_curves(axis, f"{scenario}, against nearest", "battles won while training")
        axis.set_ylim(-0.02, 1.02)
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
