"""Composition: from agent config and params.yaml to the typed config of a run."""

import json
from pathlib import Path

import pytest
import yaml

from heteromark.config.compose.composition import compose_run, environment_names
from heteromark.config.errors import ConfigError
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.json_schema import FOLDER, MODELS, schema_text
from heteromark.config.models.params import ProjectParams

ROOT = Path(__file__).parents[2]


def compose(agent=None, params=None, mode="smoke", **overrides):
    return compose_run(
        AgentConfig.model_validate({"agent_id": "demo", **(agent or {})}),
        ProjectParams.model_validate(params or {}),
        mode,
        seed=3,
        root=ROOT,
        overrides=overrides,
    )


def test_agent_hyperparameters_reach_the_components():
    config = compose(
        {
            "learning_rate": 2e-3,
            "gamma": 0.9,
            "n_steps": 128,
            "batch_size": 32,
            "n_epochs": 3,
            "network": {"net_arch": [32], "activation_fn": "relu"},
            "ppo": {"clip_range": 0.3, "ent_coef": 0.02, "vf_coef": 0.7, "max_grad_norm": 2.0},
        }
    )
    assert config.optimizer.learning_rate == 2e-3
    assert config.loss.gamma == 0.9
    assert config.collector.frames_per_batch == 128
    assert config.replay_buffer.minibatch_size == 32
    assert config.training.num_epochs == 3
    assert config.policy.hidden_sizes == [32]
    assert config.policy.activation == "relu"
    assert config.loss.clip_epsilon == 0.3
    assert config.loss.entropy_coef == 0.02
    assert config.loss.critic_coef == 0.7
    assert config.training.max_grad_norm == 2.0
    assert config.seed == 3


@pytest.mark.parametrize(
    ("algorithm", "loss"),
    [("HAPPO", "happo"), ("MAPPO", "mappo"), ("IPPO", "ippo"), ("MaskablePPO", "ppo")],
)
def test_the_algorithm_chooses_the_loss(algorithm, loss):
    assert compose({"algorithm": algorithm}).loss_type == loss


def test_a_component_override_wins_over_the_agent():
    assert compose(optimizer={"learning_rate": 0.5}).optimizer.learning_rate == 0.5


def test_modes_have_their_own_budgets():
    params = {"smoke": {"total_frames": 100, "seeds": [0, 1], "eval_episodes": 3}}
    smoke, full = compose(params=params), compose(params=params, mode="full")
    assert (smoke.training.total_frames, smoke.evaluation.episodes) == (100, 3)
    assert full.training.total_frames == ProjectParams().full.total_frames


def test_frames_are_rounded_up_to_whole_iterations():
    assert (
        compose({"n_steps": 128, "batch_size": 64}, training={"total_frames": 129}).num_iterations
        == 2
    )


@pytest.mark.parametrize(
    ("params", "overrides", "expected"),
    [
        ({"sweep": {"environment": "speaker_listner"}}, {}, "Did you mean speaker_listener?"),
        ({"num_parallel_envs": 100}, {}, "must divide collector.frames_per_batch"),
        ({}, {"policy": {"hiden_sizes": [1]}}, "Did you mean policy.hidden_sizes?"),
        ({}, {"policy": {"groups": {"marine": {"hidden_sizes": []}}}}, "policy.groups"),
        ({}, {"environment": {"reward": "shared"}}, "config/environment/skirmish.yaml"),
    ],
)
def test_faults_name_file_key_and_remedy(params, overrides, expected):
    with pytest.raises(ConfigError) as caught:
        compose(params=params, **overrides)
    assert expected in str(caught.value)


def test_text_is_no_interpolation():
    assert compose({"description": "costs ${nothing}"}).agent.description == "costs ${nothing}"


def test_run_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        compose().training.total_frames = 1


def test_environments_are_the_files_of_their_group():
    assert "speaker_listener" in environment_names(ROOT)


@pytest.mark.parametrize("name", environment_names(ROOT))
def test_every_environment_composes(name):
    environment = yaml.safe_load((ROOT / f"config/environment/{name}.yaml").read_text())
    agent = {"algorithm": "MaskablePPO"}
    if environment["env_type"] == "text":
        agent = {"algorithm": "GRPO", "network": {"policy": "TextPolicy"}}
    composed = compose(agent, {"sweep": {"environment": name}})
    assert composed.environment.name == name


@pytest.mark.parametrize("name", MODELS)
def test_json_schemas_have_not_drifted_from_the_models(name):
    written = (ROOT / FOLDER / name).read_text(encoding="utf-8")
    assert written == schema_text(MODELS[name]), "run `make generated` and commit the result"


def test_json_schema_tells_an_editor_what_is_allowed():
    schema = json.loads((ROOT / FOLDER / "agent.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["algorithm"]["anyOf"][0]["enum"] == [
        "HAPPO",
        "HATRPO",
        "HAA2C",
        "MAPPO",
        "IPPO",
        "MaskablePPO",
        "GRPO",
        "AT-GRPO",
    ]
    assert schema["properties"]["learning_rate"]["exclusiveMinimum"] == 0
    assert schema["additionalProperties"] is False
