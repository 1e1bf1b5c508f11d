"""Find what continuous control needs: change one setting of a config at a time.

    python benchmarks/ablation.py                       all variants, three seeds: 2 hours on a core
    python benchmarks/ablation.py shared_std_1 no_norm  these

HalfCheetah 2x3 for 300,000 frames with the agent config `mujoco_agent_v1`, whose settings each
variant changes; at the end, the greedy policy plays ten episodes. Needs the extra `mamujoco`.

Runs are kept in benchmarks/results/ablation.json; a second call trains only what is missing there.
Also draws benchmarks/results/ablation.svg and prints a table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, commit, label_curves, svg_plots, write_report
from published import TASKS, our_command, our_curves, run_and_time, thinned

VERSIONED = ("torch", "torchrl", "tensordict", "gymnasium", "gymnasium-robotics", "mujoco", "numpy")
KEPT = RESULTS / "ablation.json"
FRAMES = 300_000
# No normalisation, and a standard deviation by observation that starts at 1, before tanh: the
# defaults before this was measured, except for the other sizes.
EARLIER = (
    "network.observation_norm=false",
    "network.gaussian={bounds: tanh, std: by_observation, initial_std: 1.0}",
)
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {  # what it changes; its settings
    "base": ("nothing", ()),
    "tanh": ("actions squashed by tanh, not clipped", ("network.gaussian.bounds=tanh",)),
    "std_by_observation": ("deviation by observation", ("network.gaussian.std=by_observation",)),
    "std_1": ("deviation starts at 1, not 0.37", ("network.gaussian.initial_std=1.0",)),
    "std_0.2": ("deviation starts at 0.2", ("network.gaussian.initial_std=0.2",)),
    "no_norm": ("observations not normalised", ("network.observation_norm=false",)),
    "layer_norm": (
        "layer normalisation of the input and of each layer instead, as HARL's",
        (
            "network.observation_norm=false",
            "network.feature_norm=true",
            "network.layer_norm=true",
        ),
    ),
    "xavier": ("initial weights by Xavier", ("network.initialization=xavier",)),
    "gain_1": ("gain of the last layer 1, not 0.01", ("network.output_gain=1.0",)),
    "relu": ("relu, not tanh", ("network.activation_fn=relu",)),
    "one_minibatch": ("4,000 frames per minibatch, not 1,000", ("batch_size=4000",)),
    "earlier": ("observations not normalised, deviation by observation from 1, tanh", EARLIER),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args()
    if unknown := set(arguments.variants) - set(VARIANTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(VARIANTS)}")
    kept = {} if not KEPT.exists() else json.loads(KEPT.read_text(encoding="utf-8"))["runs"]
    names = arguments.variants or list(VARIANTS)
    wanted = [(name, seed) for name in names for seed in arguments.seeds]

    def measure(name: str, seed: int) -> None:
        key = f"{name} {seed}"
        if key in kept:
            return
        kept[key] = train(name, seed)
        print(f"{key}: {kept[key]['evaluation']:.0f}", file=sys.stderr, flush=True)
        runs = {key: kept[key] for key in sorted(kept)}
        write_report("ablation", "benchmarks/ablation.py", VERSIONED, {"runs": runs})

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda each: measure(*each), wanted))
    show(kept)
    draw(kept, RESULTS / "ablation.svg")


def train(name: str, seed: int) -> dict[str, Any]:
    """Train one run in a process of its own."""
    task = replace(TASKS["halfcheetah_2x3"], frames=FRAMES, every=0, options=VARIANTS[name][1])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "run"
        _, seconds = run_and_time(our_command(task, "mujoco_agent_v1", seed, target), {})
        curves = our_curves(target)
    return {
        "commit": commit(),
        "cpu_seconds": round(seconds, 1),
        "evaluation": round(curves["evaluations"][-1][1], 1),
        "curve": thinned(curves["curve"]),
    }


def runs_of(kept: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [run for key, run in kept.items() if key.rpartition(" ")[0] == name]


def show(kept: dict[str, Any]) -> None:
    """Print the table, best mean first."""
    rows = []
    for name, (what, _) in VARIANTS.items():
        values = [run["evaluation"] for run in runs_of(kept, name)]
        if values:
            listed = ", ".join(f"{value:,.0f}" for value in sorted(values, reverse=True))
            rows.append((statistics.fmean(values), f"| {what} | {listed} |"))
    for mean, row in sorted(rows, reverse=True):
        print(f"{row} {mean:,.0f} |")


def draw(kept: dict[str, Any], path: Path) -> None:
    """Draw each variant's training return, the mean of its seeds, with the range."""
    pyplot = svg_plots()
    colours = pyplot.get_cmap("tab20").colors
    figure, axis = pyplot.subplots(figsize=(9.5, 4.5), layout="constrained")
    drawn = []
    for number, (name, (what, _)) in enumerate(VARIANTS.items()):
        curves = [run["curve"] for run in runs_of(kept, name)]
        if not curves:
            continue
        length = min(map(len, curves))
        thousands = [curves[0][i][0] / 1e3 for i in range(length)]
        values = [[curve[i][1] for curve in curves] for i in range(length)]
        means = [statistics.fmean(at) for at in values]
        style = {"color": colours[number], "linewidth": 2.2 if name == "base" else 1.2}
        (line,) = axis.plot(thousands, means, label=what.replace("nothing", "as it is"), **style)
        axis.fill_between(
            thousands, [*map(min, values)], [*map(max, values)], alpha=0.12, color=line.get_color()
        )
        drawn.append((means[-1], line))
    label_curves(axis, "HalfCheetah 2x3: one change of mujoco_agent_v1", "return while training")
    lines = [line for _, line in sorted(drawn, key=lambda each: -each[0])]
    axis.legend(handles=lines, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
