"""Measure the speed of the workflow itself: planning, doing nothing, finding a finished run.

    python benchmarks/workflow.py            planning and look-ups, about two minutes
    python benchmarks/workflow.py --full     also the whole default workflow, in an empty store

Prints the figures with their targets and writes them to benchmarks/results/workflow.json, with
machine and versions. Each figure is the wall-clock time of a whole command: the median of five
calls after one that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, write_report

sys.path.insert(0, str(ROOT / "tests"))

from projects import TINY, Project, copy_project

VERSIONED = ("torch", "torchrl", "tensordict", "snakemake", "dvc", "hydra-core", "pydantic")
REPETITIONS = 5
MANY_VARIANTS, SEEDS = 333, 3  # with the base config: 1,002 runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="also run the default workflow")
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        figures |= measure_small(Path(folder))
        figures |= measure_many(Path(folder))
        if arguments.full:
            figures |= measure_default(Path(folder))
    for name, (seconds, target) in figures.items():
        print(f"{name:<44} {seconds:8.2f} s   target {target:g} s")
    measured = {
        "seconds": {name: round(seconds, 3) for name, (seconds, _) in figures.items()},
        "targets": {name: target for name, (_, target) in figures.items()},
    }
    write_report("workflow", "benchmarks/workflow.py", VERSIONED, measured)


def measure_small(folder: Path) -> dict[str, tuple[float, float]]:
    """Measure commands with nothing to do, in a finished workflow of very short runs."""
    project = copy_project(folder / "small", folder / "store")
    project.set_params(**TINY)
    project.run("git", "init", "--quiet")
    project.run("snakemake", "--cores", "2")
    train = ("heteromark", "train", "--agent-config", "config/agents/happo_agent_v1.yaml")
    project.run(*train)
    figures = {
        "snakemake -n, nothing to do": (median(project, "snakemake", "-n"), 3),
        "store hit": (median(project, *train), 1),
        "heteromark validate": (median(project, "heteromark", "validate"), 1),
    }
    project.run("dvc", "repro")
    return figures | {"dvc repro, nothing to do": (median(project, "dvc", "repro"), 3)}


def measure_many(folder: Path) -> dict[str, tuple[float, float]]:
    """Measure the planning of about 1,000 missing runs."""
    project = copy_project(folder / "many", folder / "store")
    project.set_params(smoke={"seeds": list(range(SEEDS))})
    for path in (project.folder / "config" / "agents").glob("*_sweep_*.yaml"):
        path.unlink()
    for number in range(MANY_VARIANTS):
        project.write(
            f"config/agents/happo_agent_sweep_lr_{number:03}.yaml",
            f"defaults: [happo_agent_v1]\nlearning_rate: {1e-4 + 1e-6 * number}\n",
        )
    planned = project.run("snakemake", "-n").stdout
    runs = (MANY_VARIANTS + 1) * SEEDS
    assert f"smoke {runs}" in " ".join(planned.split()), f"the plan does not have {runs} runs"
    return {f"snakemake -n, {runs} runs to do": (median(project, "snakemake", "-n"), 20)}


def measure_default(folder: Path) -> dict[str, tuple[float, float]]:
    """Measure the workflow of `make run` once, from an empty store, without installation."""
    project = copy_project(folder / "default", folder / "empty store")
    return {
        "snakemake --cores 2, default, from nothing": (
            seconds(project, "snakemake", "--cores", "2"),
            360,
        )
    }


def median(project: Project, *command: str) -> float:
    """Return the median wall-clock time of a command in seconds; the first call is not counted."""
    project.run(*command, own_process=True)
    return statistics.median(seconds(project, *command) for _ in range(REPETITIONS))


def seconds(project: Project, *command: str) -> float:
    started = time.perf_counter()
    project.run(*command, own_process=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
