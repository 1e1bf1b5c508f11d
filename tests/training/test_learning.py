"""Training improves policies, with a small share of the frames of benchmarks/learning.py.

The bounds lie between random play and the benchmark's results, closer to the latter.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import ROOT

from heteromark.commands.evaluate_run import EvaluationRequest, evaluate_run
from heteromark.commands.launch import train_run
from heteromark.commands.request import TrainRequest, resolve_request


def trained(target: Path, frames: int, agent: str, environment: str, *assignments: str) -> Path:
    """Train an agent config of this repository for a short time; return the run's folder."""
    request = TrainRequest(
        ROOT / f"config/agents/{agent}.yaml",
        total_frames=frames,
        environment=environment,
        device="cpu",
        assignments=assignments,
    )
    config, _ = resolve_request(request, ROOT)
    train_run(config, target=target)
    return target


def evaluated(run: Path, **options) -> dict:
    """Return figures over 200 episodes that were not seen in training."""
    output = run.parent / "figures.json"
    evaluate_run(EvaluationRequest(str(run), episodes=200, device="cpu", output=output, **options))
    return json.loads(output.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "environment", "algorithm", "least"),
    [
        # random play: -41; benchmark: at least -15
        (28_000, "speaker_listener", "HAPPO", -22.0),
        (28_000, "speaker_listener", "MAPPO", -22.0),
        # random play: -26.2; three seeds: -19.8 to -20.6. At 40,000 frames, seeds differ by more than
        # they have learned.
        (160_000, "simple_spread_continuous", "HAPPO", -22.5),
    ],
)
def test_training_improves_a_team(tmp_path, frames, environment, algorithm, least):
    run = trained(tmp_path / "run", frames, "happo_agent_v1", environment, f"algorithm={algorithm}")
    assert evaluated(run)["return_mean"] > least


@pytest.mark.slow
def test_training_improves_a_game(tmp_path):
    """Learn both seats. With random players, the first one wins 58 % of the games."""
    run = trained(
        tmp_path / "run",
        40_000,
        "ppo_agent_v1",
        "tic_tac_toe",
        *("learning_rate=1e-3", "network.net_arch=[128,128]", "environment.opponent.kind=random"),
    )
    first, second = (evaluated(run, opponent="random", seat=seat) for seat in ("first", "second"))
    assert first["win_rate"] > 0.85
    assert second["not_lost_rate"] > 0.7
