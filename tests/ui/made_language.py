"""Metrics and evaluation reports of synthetic language-model runs, in the format of real runs."""

from __future__ import annotations

import math
import random
from typing import Any

from heteromark.config.models.run import RunConfig
from heteromark.llm.evaluation import solve_statistics

FRAMES_PER_SECOND = 100.0


def language_rows(
    config: RunConfig, iterations: int, speed: float, rng: random.Random
) -> list[dict[str, float]]:
    """Return the rows of metrics.csv: the columns that training writes, in its order."""
    batch = config.collector.frames_per_batch
    rows = []
    for iteration in range(1, iterations + 1):
        progress = 1 - math.exp(-speed * 3 * iteration / config.num_iterations)
        row = {
            "iteration": iteration,
            "frames": iteration * batch,
            "episodes": config.problems_per_batch,
            "episode_return": 0.1 + 0.8 * progress + rng.gauss(0, 0.02),
            "episode_length": 2 - progress,
            "win_rate": min(1.0, max(0.0, 0.1 + 0.8 * progress + rng.gauss(0, 0.02))),
            "pass_at_1": min(1.0, max(0.0, 0.6 * progress + rng.gauss(0, 0.02))),
        }
        for role in config.turn_order:
            row |= {
                f"reward/{role}": 0.8 * progress + rng.gauss(0, 0.02),
                f"response_length/{role}": 6 + rng.gauss(0, 0.3),
                f"cut_off/{role}": 0.05,
                f"flat_share/{role}": 0.3 + 0.1 * progress + rng.gauss(0, 0.02),
            }
        for policy in config.policy_names:
            row |= {
                f"loss_objective/{policy}": rng.gauss(0, 0.02),
                f"kl_approx/{policy}": abs(rng.gauss(0.004, 0.001)),
                f"clip_fraction/{policy}": abs(rng.gauss(0.01, 0.003)),
                f"grad_norm/{policy}": abs(rng.gauss(0.2, 0.02)),
            }
            if config.grpo.beta:
                row |= {
                    f"loss_kl/{policy}": 0.001 * progress,
                    f"kl_reference/{policy}": 0.05 * progress,
                }
            row[f"ratio_max/{policy}"] = 1.2 + abs(rng.gauss(0, 0.1))
        row |= {
            "learning_rate": config.agent.learning_rate,
            "time_elapsed": iteration * batch / FRAMES_PER_SECOND,
            "frames_per_second": FRAMES_PER_SECOND + rng.gauss(0, 3),
        }
        rows.append(row)
    return rows


def language_report(config: RunConfig, share: float, rng: random.Random) -> dict[str, Any]:
    """Return an evaluation.json whose passes solve their problem with probability `share`.

    The transcripts alternate between solved and unsolved problems.
    """
    problems, passes = config.evaluation.episodes, config.evaluation.passes
    solved = [[rng.random() < share for _ in range(passes)] for _ in range(problems)]
    wins = [won for each in solved for won in each]
    returns = [1.0 if won else -0.1 for won in wins]
    mean = sum(returns) / len(returns)
    counts = [sum(each) for each in solved]
    return {
        "episodes": len(wins),
        "deterministic": True,
        "seed": config.seed,
        "max_steps": None,
        "opponent": None,
        "seat": None,
        "returns": returns,
        "lengths": [1] * len(wins),
        "wins": wins,
        "cut_off": 0,
        "return_mean": mean,
        "return_std": 0.5,
        "length_mean": 1.0,
        "win_rate": sum(wins) / len(wins),
        "outcomes": None,
        "not_lost_rate": None,
        "text": {
            "preset": config.evaluation.preset,
            "problems": problems,
            "passes": passes,
            "chunk_size": 64,
            "seed": config.seed,
            "generation": {"temperature": None, "top_k": None, "top_p": 1.0},
            **solve_statistics(counts, passes),
            "solved_passes": counts,
            "reward": mean,
            "turns": 1.0,
            "roles": {
                role: {"responses": len(wins), "response_length": 6.25, "cut_off": 0.0625}
                for role in config.turn_order
            },
            "judgement": {"exact": 0.62, "within_10_percent": 0.71, "format": 0.985},
            "transcripts": [
                _transcript(config, number, number % 2 == 0) for number in range(min(8, problems))
            ],
        },
    }


def _transcript(config: RunConfig, number: int, solved: bool) -> dict[str, Any]:
    question, right = f"{number}+{number}", str(2 * number)
    steps = [
        {
            "turn": 0,
            "role": role,
            "prompt": f"{question}\nAnswer (the number alone on the last line):\n",
            "response": right if solved else "I do not know",
            "reward": 1.0 if solved else -0.1,
            "team": float(solved),
            "local": 0.0 if solved else -0.1,
        }
        for role in config.turn_order
    ]
    reward = sum(step["reward"] for step in steps)
    return {"key": question, "solved": solved, "reward": reward, "steps": steps}
