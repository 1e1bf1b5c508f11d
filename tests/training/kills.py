"""Kill trainings at random moments; the results must be those of a run without checkpoints.

    make kills N=100

Prints a line per training with its number of kills, and exits with 1 if any result differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import warm
from attempts import rows
from engine_config import TIC_TAC_TOE, make_config
from text_config import make_text_config

from heteromark.training.loop import train

PAST = {"kind": "past_self", "pool_size": 3, "snapshot_interval": 2}
NETWORKS = {
    "Skirmish": {
        "env_type": "skirmish",
        "environment__task": None,
        "environment__skirmish": {"scenario": "10gen_terran"},
        "environment__num_parallel_envs": 8,
        "collector__frames_per_batch": 256,
        "frames": 60 * 256,
    },
    "speaker_listener, 2 workers": {
        "environment__kwargs": {"max_cycles": 1000},
        "environment__num_parallel_envs": 8,
        "environment__num_workers": 2,
        "collector__frames_per_batch": 512,
        "frames": 60 * 512,
    },
    "tic-tac-toe, self-play": {
        **TIC_TAC_TOE,
        "environment__opponent": PAST,
        "environment__num_parallel_envs": 8,
        "collector__frames_per_batch": 256,
        "frames": 60 * 256,
    },
    "GRU": {
        "policy_type": "gru",
        "environment__kwargs": {"max_cycles": 300},
        "environment__num_parallel_envs": 8,
        "collector__frames_per_batch": 256,
        "frames": 60 * 256,
    },
}
TEXT = "math, AT-GRPO"


def config_of(name: str, interval: int):
    if name == TEXT:
        return make_text_config(
            "AT-GRPO", training__total_frames=16 * 80, training__checkpoint_interval=interval
        )
    settings = dict(NETWORKS[name])
    frames = settings.pop("frames")
    return make_config(
        **settings,
        training__total_frames=frames,
        training__checkpoint_interval=interval,
        replay_buffer__minibatch_size=64,
    )


def result(folder: Path) -> tuple:
    """Return metrics and weights; the config differs in the checkpoint interval."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    weights = [
        tensor.tolist()
        for part in ("actors", "critics", "value_norms")
        for state in content[part].values()
        for tensor in state.values()
        if isinstance(tensor, torch.Tensor)
    ]
    return rows(folder), weights, (folder / "evaluation.json").read_text()


def killed_until_done(name: str, folder: Path, seconds: float, draw: random.Random) -> int:
    """Train in processes that are killed; return the number of kills."""
    kills = 0
    while not (folder / "checkpoint.pt").exists():
        command = [warm.programs() / "python", __file__, "--train", name, "--folder", str(folder)]
        with subprocess.Popen(command, start_new_session=True) as process:
            try:
                process.wait(draw.uniform(1.0, seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                continue
        assert process.returncode == 0, f"{name} failed"
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(config_of(options.train, 1), options.folder)
        return
    draw = random.Random(options.seed)
    names, total, differ = [*NETWORKS, TEXT], 0, 0
    with tempfile.TemporaryDirectory() as place:
        wholes = {}
        for name in names:
            folder = Path(place, name.replace(" ", "_"))
            began = time.monotonic()
            train(config_of(name, 10_000), folder)
            wholes[name] = result(folder), time.monotonic() - began
        number = 0
        while total < options.kills:
            name = names[number % len(names)]
            folder = Path(place, f"killed_{number}")
            expected, seconds = wholes[name]
            kills = killed_until_done(name, folder, seconds + 6, draw)
            same = result(folder) == expected
            total, differ, number = total + kills, differ + (not same), number + 1
            verdict = "the same" if same else "DIFFERENT"
            print(f"{name}: {kills} kills, {verdict}; {total} kills in all", flush=True)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
