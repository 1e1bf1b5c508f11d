"""Write run folders with real files but without training, for the tests of the tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from heteromark.runs.record import AgentIdentity, RunRecord, RunSummary, Status
from heteromark.workflow.plan import Candidate

HYPERPARAMETERS = {
    "algorithm": "HAPPO",
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "n_steps": 1000,
    "batch_size": 64,
    "n_epochs": 10,
}
RISING = tuple(float(value) for value in range(-100, -60, 2))


def make_candidate(root: Path, name: str, seeds: Sequence[int] = (0, 1, 2), **changes) -> Candidate:
    """Return a candidate whose run folders do not exist yet."""
    digest = f"{sum(map(ord, name)):08x}"
    return Candidate(
        names=(name,),
        config_digest=digest,
        config_path=f"config/agents/{name}.yaml",
        agent_id="happo_agent",
        environment="speaker_listener",
        hyperparameters=HYPERPARAMETERS | changes,
        frames=20_000,
        folders={seed: root / f"{name}-{digest}" / f"seed_{seed}" for seed in seeds},
    )


def write_run(
    candidate: Candidate,
    seed: int,
    evaluation_return: float | None = None,
    curve: Sequence[float | None] = RISING,
    status: Status = Status.COMPLETED,
    reason: str | None = None,
    win_rate: float | None = None,
    frames_per_second: float = 5000.0,
    frames_per_iteration: int = 1000,
) -> Path:
    """Write `run.json`, `metrics.csv` and `evaluation.json` of one run; return its folder."""
    folder = candidate.folders[seed]
    folder.mkdir(parents=True, exist_ok=True)
    frames = [frames_per_iteration * (index + 1) for index in range(len(curve))]
    RunRecord(
        digest=f"{candidate.config_digest}{seed:02x}",
        config_digest=candidate.config_digest,
        agent=AgentIdentity(
            agent_id="happo_agent",
            name=candidate.name,
            short_name=candidate.name,
            algorithm=candidate.hyperparameters["algorithm"],
            version=1,
            sweep_variant=None,
            config_path=candidate.config_path,
        ),
        environment="speaker_listener",
        mode="smoke",
        seed=seed,
        status=status,
        reason=reason,
        started="2026-01-01T00:00:00+00:00",
        duration_seconds=12.5,
        host="host",
        summary=RunSummary(
            final_return=curve[-1] if curve else None,
            evaluation_return=evaluation_return,
            evaluation_win_rate=win_rate,
            frames=frames[-1] if frames else 0,
            iterations=len(frames),
            frames_per_second=frames_per_second,
        ),
    ).write(folder)
    pd.DataFrame(
        {
            "iteration": range(1, len(curve) + 1),
            "frames": frames,
            "episodes": 1,
            "episode_return": list(curve),
            "episode_length": 25.0,
            "win_rate": None,
            "loss_objective/speaker": -0.1,
            "time_elapsed": [frame / frames_per_second for frame in frames],
            "frames_per_second": frames_per_second,
        }
    ).to_csv(folder / "metrics.csv", index=False)
    returns = [] if evaluation_return is None else [evaluation_return]
    (folder / "evaluation.json").write_text(
        json.dumps({"episodes": len(returns), "returns": returns, "return_mean": evaluation_return})
    )
    return folder


def make_config(root: Path, name: str, returns: Sequence[float | None], **run) -> Candidate:
    """Return a candidate with one completed run per evaluation return, with seeds from 0."""
    candidate = make_candidate(root, name, seeds=range(len(returns)))
    for seed, evaluation_return in enumerate(returns):
        write_run(candidate, seed, evaluation_return, **run)
    return candidate
