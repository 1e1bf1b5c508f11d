"""Language-model agents use the same workflow as all other agents."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from projects import Project, copy_project

pytestmark = pytest.mark.slow


@pytest.fixture
def texts(tmp_path) -> Project:
    """A committed project with very small language models."""
    project = copy_project(tmp_path / "project", tmp_path / "store")
    project.set_params(
        n_steps=32,
        batch_size=32,
        grpo={"num_generations": 4},
        llm={"lora_rank": 2},
        smoke={"total_frames": 64, "seeds": [0, 1], "eval_episodes": 3},
        full={"total_frames": 128, "seeds": [0], "eval_episodes": 4},
    )
    for path, section in (
        ("config/model/tiny.yaml", {"tiny": {"hidden_size": 16, "num_layers": 1, "num_heads": 2}}),
        ("config/environment/plan_path.yaml", {"environment": {"text": {"warm_up_steps": 5}}}),
    ):
        lines = project.read(path).splitlines()
        heading = [line for line in lines if line.startswith("# @package")]
        data = yaml.safe_load("\n".join(lines))
        merge_in(data, section)
        project.write(path, "\n".join([*heading, yaml.safe_dump(data)]))
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.email", "tester@example.com")
    project.run("git", "config", "user.name", "Tester")
    project.commit("project")
    return project


def merge_in(data: dict, section: dict) -> None:
    for key, value in section.items():
        if isinstance(value, dict):
            merge_in(data[key], value)
        else:
            data[key] = value


def test_a_sweep_of_teams_publishes_a_model_and_is_not_run_again(texts):
    experiment = (
        *("dvc", "exp", "run", "-S", "sweep.agents=config/agents/at_grpo_agent_*.yaml"),
        *("-S", "sweep.environment=plan_path"),
    )
    texts.run(*experiment)
    runs = pd.read_csv(texts.folder / "results/tables/runs.csv")
    assert sorted(set(runs["config"])) == [
        "at_grpo_agent_chain",
        "at_grpo_agent_shared",
        "at_grpo_agent_v1",
    ]
    assert set(runs["status"]) == {"completed"}
    assert runs["win_rate"].notna().all()
    selection = json.loads(texts.read("results/selected/selection.json"))
    assert len(selection["candidates"]) == 3
    assert (texts.folder / "results/model/checkpoint.pt").is_file()
    curves = pd.read_csv(texts.folder / "results/tables/curves.csv")
    assert set(curves["config"]) == set(runs["config"])
    records = {path: path.read_text() for path in texts.store.glob("runs/*/run.json")}
    assert len(records) == 3 * 2 + 1
    assert len(list((texts.store / "models").glob("*.pt"))) == 1  # one model, warmed up once
    texts.run(*experiment)
    assert {path: path.read_text() for path in texts.store.glob("runs/*/run.json")} == records
    result = texts.run(
        "snakemake",
        "--cores",
        "1",
        "-n",
        "--config",
        *(['sweep={"agents": "config/agents/at_grpo_agent_*.yaml", "environment": "plan_path"}']),
    )
    assert "Nothing to be done" in result.stdout + result.stderr
