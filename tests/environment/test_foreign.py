"""Environments of other packages train. `make compat` installs the packages."""

from __future__ import annotations

import json

import pytest
import yaml
from projects import ROOT

from heteromark.commands.launch import train_run
from heteromark.commands.request import TrainRequest, resolve_request
from heteromark.commands.trial import try_environment

pytestmark = pytest.mark.compat

FOLDER = ROOT / "config" / "environment"
OWN = ("skirmish", "mpe2", "smac", "smacv2", "heteromark.environment.skirmish")
FOREIGN = sorted(
    path.stem
    for path in FOLDER.glob("*.yaml")
    if path.stem.startswith("vmas_")
    or (
        ((task := yaml.safe_load(path.read_text())["environment"].get("task")) is not None)
        and not task.startswith(OWN)
    )
)


@pytest.mark.parametrize("environment", FOREIGN)
def test_a_foreign_environment_trains(environment, tmp_path):
    pictures = environment in ("pistonball", "cooperative_pong")
    frames, batch = (64, 32) if pictures else (256, 128)
    request = TrainRequest(
        ROOT / "config/agents/ppo_agent_v1.yaml",
        total_frames=frames,
        environment=environment,
        device="cpu",
        num_envs=4,
        assignments=(
            *(f"n_steps={batch}", "batch_size=32", "n_epochs=1", "smoke.eval_episodes=1"),
            *("network.net_arch=[16]", "evaluation.max_steps=50"),
            *(["network.policy=CnnPolicy"] if pictures else []),
        ),
    )
    config, _ = resolve_request(request, ROOT)
    try_environment(config)
    train_run(config, target=tmp_path / "run")
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["episodes"] == 1
    last = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1]
    assert last.split(",")[1] == str(frames)


def test_most_environments_of_the_repository_are_foreign():
    assert len(FOREIGN) >= 22, FOREIGN
