"""The checklist of `heteromark validate`: a mark per item, and the remedy for each failed one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heteromark.cli import app
from heteromark.config.errors import ConfigError
from heteromark.training.factory_train import main

pytestmark = pytest.mark.usefixtures("in_project")

MATH = "--config-name=math_L2_model"


def validate(*words: str) -> tuple[int, dict[str, str], str]:
    """Return the exit status, the mark of each item, and the output."""
    result = CliRunner().invoke(app, ["validate", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    lines = [line for line in result.output.splitlines() if line and not line.startswith(" ")]
    return result.exit_code, {line[2:].partition(":")[0]: line[0] for line in lines}, result.output


def wrong(*words: str) -> tuple[list[str], str]:
    """Return the items with a cross; there must be at least one."""
    status, signs, output = validate(*words)
    assert status == 1
    return [item for item, sign in signs.items() if sign == "✗"], output


def test_the_checklist_of_a_valid_config():
    status, signs, output = validate("--config-name=math_L2_model")
    assert status == 0, output
    assert set(signs.values()) == {"✓"}
    assert len(signs) == 11


AGENT = "agent_policy_configs.agent_configs.agent_0"
ITEMS = {
    "the environment is registered": ("env.name=other", "env.name = 'other': is not registered"),
    "the agents are registered": (f"{AGENT}.role=cook", f"{AGENT}.role = 'cook': is not a role"),
    "every name in turn_order is an agent, and every agent is in it": (
        "multi_agent_interaction.turn_order=[tool_generator]",
        "must contain every agent in agent_configs; missing: reasoning_generator",
    ),
    "num_agents matches": ("agent_policy_configs.num_agents=3", "must be 2"),
    "every policy name is the name of a model": (
        f"{AGENT}.policy_name=tool_model",
        "is not a name in base_models. Did you mean tool_generator_model?",
    ),
    "model paths exist": (
        "base_models.policy_1.path=./nowhere",
        "base_models.policy_1.path = './nowhere': does not exist; set a folder",
    ),
    "GPUs and tensor-parallel size fit": (
        "models.model_0.ppo_trainer_config.actor_rollout_ref.rollout.tensor_model_parallel_size=4",
        "tensor_model_parallel_size = 4: must be 0, 1 or null",
    ),
    "prompt and response fit into the model's length": (
        "training.max_prompt_length=600",
        "must be at least 616",
    ),
    "val_freq is below the number of steps": ("training.val_freq=100", "must be below"),
    "the checkpoint folder is writable": (
        "training.model_checkpoints_dir=elsewhere",
        "must be checkpoints",
    ),
    "the rest of the configuration is valid": ("training.num_epochs=0", "must be greater than 0"),
}


@pytest.mark.parametrize("item", ITEMS)
def test_each_failed_item_has_a_cross_and_the_remedy(item):
    override, reason = ITEMS[item]
    found, output = wrong(MATH, override)
    assert item in found
    assert reason in output


def test_items_that_cannot_be_checked_yet_are_not_ticked():
    _, signs, _ = validate(MATH, "training.num_epochs=0")
    assert set(signs.values()) == {"✗", "?"}
    _, signs, _ = validate(MATH, "env.name=other")
    assert signs["num_agents matches"] == "✓"
    assert signs["the agents are registered"] == "?"


def test_a_missing_gpu(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for override in ("resource.n_gpus_per_node=1", "training.device=cuda"):
        found, output = wrong(MATH, override)
        assert found == ["GPUs and tensor-parallel size fit"]
        assert override.partition("=")[0] in output
        assert "set training.device to auto or cpu and resource.n_gpus_per_node to null" in output


def test_an_unwritable_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("HETEROMARK_STORE", str(blocked / "store"))
    found, output = wrong(MATH)
    assert found == ["the checkpoint folder is writable"]
    assert "set HETEROMARK_STORE to another folder" in output


def test_models_in_folders_and_on_the_hub(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    paths = [f"base_models.policy_{number}.path={folder}" for number in (0, 1)]
    found, output = wrong(MATH, *paths)
    assert found == ["model paths exist"]
    assert "has no config.json" in output
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 100}))
    found, output = wrong(MATH, *paths)
    assert found == ["prompt and response fit into the model's length"]
    assert "training.max_prompt_length = 96" in output
    assert "is 112 tokens" in output
    (folder / "config.json").write_text(
        json.dumps({"text_config": {"max_position_embeddings": 200}})
    )
    status, _, output = validate(MATH, *paths)
    assert status == 0
    assert "96 + 16 of 200 tokens" in output
    status, _, output = validate(MATH, *(path.partition("=")[0] + "=org/model" for path in paths))
    assert status == 0
    assert "org/model (hub name: downloaded unless cached)" in output


def test_missing_models_stop_a_run_before_it_starts(capsys: pytest.CaptureFixture):
    with pytest.raises(ConfigError, match=r"base_models\.policy_0\.path = './nowhere'"):
        main([MATH, "base_models.policy_0.path=./nowhere", "--dry-run"])


def test_the_checklist_of_an_agent_config_in_an_environment():
    team = ("--agent-config", "config/agents/at_grpo_agent_v1.yaml", "--environment", "plan_path")
    status, signs, output = validate(*team)
    assert (status, len(signs)) == (0, 11), output
    found, output = wrong(*team, "--set", "environment.text.turn_order=[cook]")
    assert found == ["every name in turn_order is an agent, and every agent is in it"]
    assert "task plan_path has no such role. Its roles: tool, planner" in output
    found, output = wrong(*team, "--set", "model.path=./nowhere")
    assert found == ["model paths exist"]
    found, output = wrong(*team, "--set", "evaluation.interval=100000")
    assert found == ["val_freq is below the number of steps"]
    status, signs, _ = validate("--agent-config", "config/agents/ppo_agent_v1.yaml")
    assert status == 0
    assert "model paths exist" not in signs


def test_conflicting_options():
    for words in (
        [MATH, "--agent-config", "config/agents/ppo_agent_v1.yaml"],
        ["--environment", "math"],
        ["--agent-config", "config/agents/ppo_agent_v1.yaml", "another"],
    ):
        with pytest.raises(ConfigError):
            validate(*words)
