"""Compare successive halving with a grid: do they find the same winner, with how many frames?

    python benchmarks/halving.py                     about an hour on two cores
    python benchmarks/halving.py --repetitions 2
    python benchmarks/halving.py --eta 3             writes benchmarks/results/halving_eta_3.*

Sixteen configs of HAPPO (four learning rates, two discounts, two numbers of epochs) on the default
battle, with three seeds each. The workflow itself trains them: `snakemake selected`, once with
sweep.strategy halving and once with grid. Each repetition uses different seeds. The report has the
frames that both trained, whether they chose the same config, and the rank of halving's choice in
the grid and its loss in score. Both are also judged with seeds that neither saw: how often each
chose the config that is best in the grids of the other repetitions.

With --store, a second call trains only missing runs. Writes benchmarks/results/halving.json and
.svg after each repetition.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from common import RESULTS, ROOT, commit, svg_plots, write_report

sys.path.insert(0, str(ROOT / "tests"))

from projects import Project, copy_project

VERSIONED = ("torch", "torchrl", "tensordict", "snakemake")
LEARNING_RATES = {"tiny": 1e-4, "small": 5e-4, "base": 2e-3, "large": 8e-3}
GAMMAS = {"near": 0.9, "far": 0.99}
EPOCHS = {"few": 2, "many": 10}
SEEDS = 3
ETA = 2
MIN_FRAMES = 2000
FRAMES = 20_000  # per run of the last rung
BATCH = 1024  # frames per iteration
TARGET = 2.5  # factor by which halving needs fewer frames than the grid


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--eta", type=int, default=ETA, help=f"eta of halving (default: {ETA})")
    parser.add_argument("--store", type=Path, help="run store (default: temporary)")
    arguments = parser.parse_args()
    repetitions = []
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or Path(folder) / "store"
        for number in range(arguments.repetitions):
            project = make_project(Path(folder) / str(number), store.resolve(), arguments.eta)
            repetitions.append(repeat(number, project))
            result = {key: repetitions[-1][key] for key in ("same_winner", "rank", "times_fewer")}
            print(f"repetition {number}: {result}", file=sys.stderr, flush=True)
            report(repetitions, arguments.eta)


def report(repetitions: list[dict[str, Any]], eta: int) -> None:
    """Print and write the results of the repetitions so far."""
    summary = {
        "same_winner": sum(each["same_winner"] for each in repetitions),
        "repetitions": len(repetitions),
        "times_fewer_frames": repetitions[0]["times_fewer"],
        "target": TARGET,
        "ranks_in_the_grid": sorted(each["rank"] for each in repetitions),
        "largest_loss_of_score": max(each["loss"] for each in repetitions),
        "mean_loss_of_score": round(fmean(each["loss"] for each in repetitions), 3),
    }
    if len(repetitions) > 1:
        best = best_elsewhere(repetitions)
        summary["chose_the_best_by_other_seeds"] = {
            strategy: sum(
                each[strategy] == name for each, name in zip(repetitions, best, strict=True)
            )
            for strategy in ("grid", "halving")
        }
    print(json.dumps(summary, indent=2))
    halving = {"eta": eta, "min_frames": MIN_FRAMES}
    settings = {"configs": 16, "seeds": SEEDS, "frames": FRAMES, "halving": halving}
    content = {"commit": commit(), "settings": settings, **summary, "each": repetitions}
    name = "halving" if eta == ETA else f"halving_eta_{eta}"
    write_report(name, "benchmarks/halving.py", VERSIONED, content)
    draw(repetitions, RESULTS / f"{name}.svg")


def best_elsewhere(repetitions: list[dict[str, Any]]) -> list[str]:
    """Return, per repetition, the config with the best mean score in the grids of the others."""
    best = []
    for here in repetitions:
        others = [each["scores"] for each in repetitions if each is not here]
        best.append(max(here["scores"], key=lambda name: fmean(one[name] for one in others)))
    return best


def repeat(number: int, project: Project) -> dict[str, Any]:
    """Run halving and the grid with the same configs and seeds; compare their winners."""
    seeds = list(range(SEEDS * number, SEEDS * (number + 1)))
    found = {}
    for strategy in ("halving", "grid"):
        project.set_params(smoke={"seeds": seeds}, sweep={"strategy": strategy})
        project.run("snakemake", "--cores", "2", "--quiet", "all", "--", "selected")
        found[strategy] = json.loads(project.read("results/selected/selection.json"))
        if strategy == "halving":
            rungs = [*map(candidates_of, sorted((project.folder / RUNGS).glob("*.json")))]
    rungs.append([c for c in found["halving"]["candidates"] if c["rung"] == len(rungs) + 1])
    choice, winner = (found[strategy]["winner"] for strategy in ("halving", "grid"))
    grid = {candidate["names"][0]: candidate for candidate in found["grid"]["candidates"]}
    chosen = grid[choice["name"]]
    frames = {"halving": frames_of(rungs), "grid": frames_of([list(grid.values())])}
    return {
        "seeds": seeds,
        "halving": choice["name"],
        "grid": winner["name"],
        "same_winner": choice["name"] == winner["name"],
        "rank": chosen["rank"],
        "loss": round(winner["score"] - chosen["score"], 3),
        "intervals_overlap": overlap(chosen["interval"], grid[winner["name"]]["interval"]),
        "frames": frames,
        "times_fewer": round(frames["grid"] / frames["halving"], 2),
        "scores": {name: round(candidate["score"], 3) for name, candidate in grid.items()},
    }


RUNGS = "results/tables/rungs"


def candidates_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["candidates"]


def frames_of(rungs: list[list[dict[str, Any]]]) -> int:
    """Return the frames that these rungs trained; later rungs train only additional frames."""
    total, before = 0, 0
    for candidates in rungs:
        longest = max(candidate["frames"] for candidate in candidates)
        total += sum((c["frames"] - before) * c["seeds"] for c in candidates)
        before = longest
    return total


def overlap(first: list[float], second: list[float]) -> bool:
    return first[0] <= second[1] and second[0] <= first[1]


def make_project(folder: Path, store: Path, eta: int) -> Project:
    """Make a project with the sixteen configs."""
    project = copy_project(folder, store)
    project.timeout = 7200
    agents = project.folder / "config" / "agents"
    for path in agents.glob("*.yaml"):
        if path.stem != "happo_agent_v1":
            path.unlink()
    base = agents / "happo_agent_v1.yaml"
    text = base.read_text(encoding="utf-8")
    base.write_text(text.replace("n_steps: 2048", f"n_steps: {BATCH}"), encoding="utf-8")
    for rate, gamma, epochs in itertools.product(LEARNING_RATES, GAMMAS, EPOCHS):
        variant = {
            "defaults": ["happo_agent_v1"],
            "sweep_variant": f"{rate}_{gamma}_{epochs}",
            "learning_rate": LEARNING_RATES[rate],
            "gamma": GAMMAS[gamma],
            "n_epochs": EPOCHS[epochs],
        }
        path = agents / f"happo_agent_sweep_{variant['sweep_variant']}.yaml"
        path.write_text(yaml.safe_dump(variant), encoding="utf-8")
    project.set_params(
        smoke={"total_frames": FRAMES, "eval_episodes": 50},
        sweep={
            "agents": "config/agents/happo_agent_sweep_*.yaml",
            "halving": {"eta": eta, "min_frames": MIN_FRAMES, "max_frames": None},
        },
    )
    return project


def draw(repetitions: list[dict[str, Any]], path: Path) -> None:
    """Draw the grid's scores of every repetition, with the winner and halving's choice marked."""
    pyplot = svg_plots()
    figure, axis = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    for number, each in enumerate(repetitions):
        scores = each["scores"]
        axis.plot([number] * len(scores), scores.values(), "_", color="#8A8A8A", markersize=9)
        axis.plot(
            number, scores[each["grid"]], "o", color="#0072B2", fillstyle="none", markersize=9
        )
        axis.plot(number, scores[each["halving"]], "*", color="#D55E00", markersize=9)
    axis.set_xticks(range(len(repetitions)))
    axis.set_xlabel("repetition (each with different seeds)", fontsize=8)
    axis.set_ylabel("grid's score (return)", fontsize=8)
    axis.set_title("circle: the grid's winner; star: halving's choice", fontsize=9)
    axis.tick_params(labelsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
