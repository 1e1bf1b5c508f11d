"""How fast the workflow itself is: planning, doing nothing, finding a finished run.

    python benchmarks/workflow.py            planning and look-ups, about two minutes
    python benchmarks/workflow.py --full     also the whole default workflow, in an empty store

Prints the figures beside their targets and writes them to benchmarks/results/workflow.json, with
the machine and the versions. Each figure is the wall-clock time of a whole command; the median of
five, after one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from projects import TINY, Project, copy_project  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "workflow.json"
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
    report = {
        "command": " ".join(["python", "benchmarks/workflow.py", *sys.argv[1:]]),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {name: metadata.version(name) for name in VERSIONED},
        "seconds": {name: round(seconds, 3) for name, (seconds, _) in figures.items()},
        "targets": {name: target for name, (_, target) in figures.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure_small(folder: Path) -> dict[str, tuple[float, float]]:
    """Doing nothing and finding a run, in a finished workflow of very short runs."""
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
    """Planning about 1,000 runs that are all still to do."""
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
    assert f"smoke {runs}" in " ".join(planned.split()), "the plan has another number of runs"
    return {f"snakemake -n, {runs} runs to do": (median(project, "snakemake", "-n"), 20)}


def measure_default(folder: Path) -> dict[str, tuple[float, float]]:
    """The workflow as `make run` runs it, without installation, from an empty store, once."""
    project = copy_project(folder / "default", folder / "empty store")
    return {
        "snakemake --cores 2, default, from nothing": (
            seconds(project, "snakemake", "--cores", "2"),
            360,
        )
    }


def median(project: Project, *command: str) -> float:
    """Median wall-clock seconds of a command, after one run that is not counted."""
    project.run(*command)
    return statistics.median(seconds(project, *command) for _ in range(REPETITIONS))


def seconds(project: Project, *command: str) -> float:
    started = time.perf_counter()
    project.run(*command)
    return time.perf_counter() - started


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "Model name" in line]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
