"""Compare the speed of GRPO on a tiny language model with TRL's GRPOTrainer, on the CPU.

    python benchmarks/llm_speed.py --peer-python ../trl-venv/bin/python

The model is the tiny Llama of config/model/tiny.yaml, warmed up like the agent `grpo_agent_v1` on
`math`. Both sample 16 responses to each of 64 sums, without truncation, and take one optimizer step
on them. The report has response tokens per second for sampling, for everything else
(log-probabilities, loss, gradients, optimizer), and for whole iterations. The two take turns, so
that other load on the machine affects both. The Python of --peer-python needs the packages of
benchmarks/peers/trl/requirements.txt; without the option, TRL is not measured. Writes
benchmarks/results/llm_speed.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, commit, write_report

PEER = ROOT / "benchmarks" / "peers" / "trl" / "run.py"
VERSIONED = ("torch", "torchrl", "tensordict", "transformers")
TEMPLATE = "{question}="
PROBLEMS, SAMPLES, MAX_LENGTH = 64, 16, 8
LEFT_OUT = 2  # first iterations that are not counted
PHASES = ("sampling", "training", "iteration")
TARGET = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=10, help="iterations per round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-python", type=Path, metavar="PATH", help="Python with TRL")
    arguments = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(Path(folder), arguments)
        for number in range(1, arguments.rounds + 1):
            measured = {"HeteroMARK": measure_ours(arguments)}
            if arguments.peer_python is not None:
                measured["TRL"] = measure_peer(arguments, *saved)
            rounds.append({name: rates(figures) for name, figures in measured.items()})
            print(f"round {number}: {json.dumps(rounds[-1])}", flush=True)
    report: dict[str, Any] = {
        "commit": commit(),
        "settings": {
            "problems": PROBLEMS,
            "samples": SAMPLES,
            "max_length": MAX_LENGTH,
            "threads": arguments.threads,
            "iterations": arguments.iterations,
        },
        "tokens_per_second": {
            name: {phase: spread([each[name][phase] for each in rounds]) for phase in PHASES}
            for name in rounds[0]
        },
    }
    if arguments.peer_python is not None:
        report["peer_versions"] = run_peer(arguments.peer_python, "--versions")
        report["ratios"] = {
            phase: spread([each["HeteroMARK"][phase] / each["TRL"][phase] for each in rounds])
            for phase in PHASES
        }
        report["target"] = TARGET
        for phase, ratio in report["ratios"].items():
            verdict = "met" if ratio["median"] >= TARGET else "MISSED"
            print(f"{phase}: {ratio} times TRL, target {TARGET}: {verdict}")
    write_report("llm_speed", "benchmarks/llm_speed.py", VERSIONED, report)


def run_config(arguments: argparse.Namespace):
    """Return the config of the measured run."""
    from heteromark.commands.request import TrainRequest, resolve_request

    config, _ = resolve_request(
        TrainRequest(
            Path("config/agents/grpo_agent_v1.yaml"),
            environment="math",
            assignments=(
                f"n_steps={PROBLEMS * SAMPLES}",
                f"batch_size={PROBLEMS * SAMPLES}",
                f"grpo.num_generations={SAMPLES}",
                f"generation.max_response_length={MAX_LENGTH}",
                f"num_threads={arguments.threads}",
                f"environment.text.templates.reasoner='{TEMPLATE}'",
            ),
        ),
        ROOT,
    )
    return config


def save_model(folder: Path, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Save the warmed-up model with its tokenizer and the sums; return folder and file."""
    from heteromark.training.components import ComponentFactory

    components = ComponentFactory(run_config(arguments)).create()
    [policy] = components.learner.actors.values()
    policy.model.save_pretrained(folder / "model")
    policy.tokenizer.save_pretrained(folder / "model")
    problems = [
        problem
        for iteration in range(arguments.iterations + LEFT_OUT)
        for problem in components.collector.problems(0, "training", iteration)
    ]
    sums = [
        (TEMPLATE.format_map(problem.fields("reasoner")), problem.demonstration("reasoner"))
        for problem in problems
    ]
    (folder / "sums.json").write_text(json.dumps(sums), encoding="utf-8")
    return folder / "model", folder / "sums.json"


def measure_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Time iterations of sampling and update, starting from the warmed-up model."""
    from heteromark.training.components import ComponentFactory

    components = ComponentFactory(run_config(arguments)).create()
    tokens, sampling, whole = 0, 0.0, 0.0
    for iteration in range(arguments.iterations + LEFT_OUT):
        began = time.perf_counter()
        rollout = components.collector.collect()
        sampled = time.perf_counter()
        components.algorithm.update(rollout, iteration)
        if iteration >= LEFT_OUT:
            whole += time.perf_counter() - began
            sampling += sampled - began
            tokens += sum(int(step.batch["response_mask"].sum()) for step in rollout.steps)
    return {"tokens": tokens, "seconds": whole, "sampling_seconds": sampling}


def measure_peer(arguments: argparse.Namespace, model: Path, sums: Path) -> dict[str, float]:
    """Time the same iterations with TRL."""
    return run_peer(
        arguments.peer_python,
        *("--model", model, "--sums", sums, "--problems", PROBLEMS, "--samples", SAMPLES),
        *("--max-length", MAX_LENGTH, "--iterations", arguments.iterations),
        *("--left-out", LEFT_OUT, "--threads", arguments.threads),
    )


def run_peer(python: Path, *options: Any) -> Any:
    """Run TRL's script and return its last line of output, parsed as JSON."""
    command = [str(value) for value in (python, "-I", PEER, *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"TRL cannot be run with {python}:\n{done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rates(figures: dict[str, float]) -> dict[str, float]:
    """Return tokens per second by phase."""
    tokens, whole, sampling = (figures[key] for key in ("tokens", "seconds", "sampling_seconds"))
    return {
        "sampling": round(tokens / sampling, 1),
        "training": round(tokens / (whole - sampling), 1),
        "iteration": round(tokens / whole, 1),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "lowest": round(min(values), 2),
        "highest": round(max(values), 2),
    }


if __name__ == "__main__":
    main()
