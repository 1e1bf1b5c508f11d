"""Measure how reliably the default sweep finds the best config, by seeds and frames of its runs.

    python benchmarks/sweep.py --seeds 100 --frames 122880

Trains every config of the default sweep with many seeds and evaluates the policy every 20,480
frames, as the sweep would after a shorter run. From these runs it forms sweeps of fresh seeds: ten
for each number of seeds and frames. It counts how often they name the same winner, and how often
that winner is best by the seeds that none of them saw.

Runs are trained in cohorts, one process per core. Interrupt it at will: it goes on with the runs
that benchmarks/results/sweep.json lacks.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from common import RESULTS, commit, write_report

CONFIGS = {
    "happo_agent_v1": "v1",
    "happo_agent_sweep_lr_high": "lr_high",
    "happo_agent_sweep_lr_low": "lr_low",
    "happo_agent_sweep_gamma_high": "gamma_high",
}
INTERVAL = 10  # iterations between evaluations
SWEEPS = 10
FIRST_SEED = 1000
VERSIONED = ("torch", "torchrl", "tensordict")
Scores = dict[str, dict[str, dict[str, float]]]  # by config, seed and frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="per config")
    parser.add_argument("--frames", type=int, default=122_880, help="per run")
    parser.add_argument("--cohort", type=int, default=20, help="runs per process")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    scores = known()
    due = [
        (config, seed)
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds)
        for config in CONFIGS
        if str(options.frames) not in scores.get(config, {}).get(str(seed), {})
    ]
    chunks = [due[first : first + options.cohort] for first in range(0, len(due), options.cohort)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, spawn, max_tasks_per_child=1) as pool:
        futures = [pool.submit(train, chunk, options.frames) for chunk in chunks]
        for number, future in enumerate(as_completed(futures), start=1):
            for (config, seed), found in future.result():
                scores.setdefault(config, {}).setdefault(str(seed), {}).update(found)
            report(scores)
            print(f"{number} of {len(chunks)} cohorts", flush=True)
    report(scores)


def known() -> Scores:
    path = RESULTS / "sweep.json"
    return json.loads(path.read_text())["scores"] if path.exists() else {}


def train(
    runs: Sequence[tuple[str, int]], frames: int
) -> list[tuple[tuple[str, int], dict[str, float]]]:
    """Train runs in one process; return the evaluation's return by frames of each."""
    import torch

    from heteromark.commands.launch import interleave
    from heteromark.commands.request import TrainRequest, resolve_request
    from heteromark.training.cohort import Cohort

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        cohort, attempts = Cohort(), []
        folders = [Path(place) / str(number) for number in range(len(runs))]
        for (name, seed), folder in zip(runs, folders, strict=True):
            request = TrainRequest(
                Path("config/agents") / f"{name}.yaml",
                seed=seed,
                total_frames=frames,
                device="cpu",
                assignments=(f"evaluation.interval={INTERVAL}",),
            )
            folder.mkdir()
            attempts.append(cohort.steps(resolve_request(request)[0], folder))
        for outcome in interleave(attempts):
            if isinstance(outcome, Exception):
                raise outcome
        return [(run, evaluations(folder)) for run, folder in zip(runs, folders, strict=True)]


def evaluations(folder: Path) -> dict[str, float]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [(row["frames"], row["evaluation_return"]) for row in csv.DictReader(file)]
    return {frames: round(float(value), 4) for frames, value in rows if value}


def report(scores: Scores) -> None:
    seeds = sorted(set.intersection(*(set(scores.get(config, {})) for config in CONFIGS)), key=int)
    table = []
    lengths = sorted(
        {int(f) for by_seed in scores.values() for each in by_seed.values() for f in each}
    )
    for frames in lengths:
        for size in (3, 4, 5, 6, 8):
            if SWEEPS * size < len(seeds):
                table.append(reliability(scores, seeds, size, str(frames)))
    for row in table:
        print(
            f"{row['frames']:>7} frames, {row['seeds']} seeds: {row['same_winner']} of {SWEEPS} "
            f"sweeps name {row['winner']}; {row['best']} of {SWEEPS} name the best by other seeds, "
            f"{row['best_by_others']}"
        )
    measured = {"commit": commit(), "reliability": table, "scores": scores}
    write_report("sweep", "benchmarks/sweep.py", VERSIONED, measured)


def reliability(scores: Scores, seeds: Sequence[str], size: int, frames: str) -> dict[str, Any]:
    """Return the winners of ten sweeps, and the best config by the seeds they did not see."""
    sweeps = [seeds[number * size : (number + 1) * size] for number in range(SWEEPS)]
    unseen = seeds[SWEEPS * size :]
    winners = [winner(scores, chosen, frames) for chosen in sweeps]
    (name, count), *_ = Counter(winners).most_common()
    best = winner(scores, unseen, frames)
    means = {
        label: round(statistics.mean(scores[config][seed][frames] for seed in unseen), 3)
        for config, label in CONFIGS.items()
    }
    return {
        "frames": int(frames),
        "seeds": size,
        "winners": winners,
        "winner": name,
        "same_winner": count,
        "best_by_others": best,
        "best": winners.count(best),
        "means_of_others": means,
        "other_seeds": len(unseen),
    }


def winner(scores: Scores, seeds: Sequence[str], frames: str) -> str:
    """Return the config with the highest interquartile mean."""
    found = {
        label: interquartile_mean([scores[config][seed][frames] for seed in seeds])
        for config, label in CONFIGS.items()
    }
    return max(found, key=lambda label: found[label])


def interquartile_mean(values: Sequence[float]) -> float:
    from scipy.stats import trim_mean

    return float(trim_mean(values, 0.25))


if __name__ == "__main__":
    main()
