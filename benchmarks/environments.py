"""Measure the speed of training in environments of other packages.

    python benchmarks/environments.py                    all of them, about half an hour
    python benchmarks/environments.py lbf_8x8 chess      these

Each is trained twice with the agent config `ppo_agent_v1`, for 4,096 and for 12,288 frames (512 and
1,024 for pictures), in one process with one thread. The difference of the CPU times is that of the
additional frames alone, without start-up and evaluation.

Needs the packages of the extra `compat`. Prints the table of docs/environments.md, and writes
benchmarks/results/environments.json, where measurements of other environments stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from common import RESULTS, ROOT, write_report
from published import run_and_time

VERSIONED = (
    *("torch", "torchrl", "pettingzoo", "gymnasium", "gymnasium-robotics", "mujoco", "lbforaging"),
    *("rware", "magent2", "vmas", "numpy"),
)
FOLDER = ROOT / "config" / "environment"
OURS = ("skirmish", "skirmish_10gen_terran", "smac_mmm", "smacv2_terran_5v5")  # or with a game
TASKS_OF_MODELS = ("code", "math", "plan_path", "search", "sokoban", "sudoku")
PICTURES = ("pistonball", "cooperative_pong")
KEPT = RESULTS / "environments.json"


def main() -> None:
    known = sorted({path.stem for path in FOLDER.glob("*.yaml")} - {*OURS, *TASKS_OF_MODELS})
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environments", nargs="*", metavar="ENVIRONMENT", help="default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.environments) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    kept = {}
    if KEPT.exists():
        kept = json.loads(KEPT.read_text(encoding="utf-8"))["frames_per_cpu_second"]
    for name in arguments.environments or known:
        kept[name] = round(frames_per_cpu_second(name), 1)
        print(f"| `{name}` | {kept[name]:,.0f} |", flush=True)
        ordered = {name: kept[name] for name in sorted(kept)}
        measured = {"frames_per_cpu_second": ordered}
        write_report("environments", "benchmarks/environments.py", VERSIONED, measured)


def frames_per_cpu_second(name: str) -> float:
    """Train for a few and for more frames, and return the speed of those that are more."""
    few, many = (512, 1024) if name in PICTURES else (4096, 12_288)
    seconds = [train(name, few), train(name, many)]
    return (many - few) / (seconds[1] - seconds[0])


def train(name: str, frames: int) -> float:
    """Return the CPU seconds of a process that trains."""
    settings = ["num_threads=1", "device=cpu", "smoke.eval_episodes=1", "evaluation.max_steps=20"]
    if name in PICTURES:
        settings += ["network.policy=CnnPolicy", "n_steps=256", "batch_size=64", "n_epochs=2"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-W", "ignore", "-m", "heteromark", "train"),
            *("--agent-config", "config/agents/ppo_agent_v1.yaml", "--environment", name),
            *("--total-timesteps", str(frames), "--output", str(Path(folder) / "run")),
            *(word for setting in settings for word in ("--set", setting)),
        ]
        return run_and_time(command, {"HETEROMARK_STORE": f"{folder}/store"})[1]


if __name__ == "__main__":
    main()
