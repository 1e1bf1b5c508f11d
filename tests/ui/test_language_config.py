"""The config card of language-model agents."""

from __future__ import annotations

import pytest
from text_config import make_text_config

from heteromark.config.nested import flatten
from heteromark.ui.data.llm_config import language_fields, roles_of


def flat(algorithm: str = "GRPO", **overrides) -> dict:
    return flatten(make_text_config(algorithm, **overrides).model_dump(mode="json"))


def test_most_important_settings():
    fields = language_fields(
        flat("AT-GRPO", model__specialization="lora", model__policies="role", grpo__beta=0.04)
    )
    assert (
        fields
        | {
            "Task": "math",
            "Roles in order": "tool → reasoner",
            "Rounds": "1",
            "Warm-up": "none",
            "Model": "tiny llama, 1 layer of 16",
            "Specialization": "lora: adapters, rank 32, alpha 32.0",
            "Policies": "one per role",
            "Responses per prompt (K)": "4",
            "Sampling": "tree",
            "Team weight (alpha)": "1.0",
            "KL weight (beta)": "0.04",
            "Temperature": "1.0",
            "Max response length": "6 tokens",
            "Frames per update": "16 (4 problems)",
            "Task settings": "source arithmetic, operators +, max_operand 9, num_operands 2, tags false",
        }
        == fields
    )
    assert not {"Network", "Hidden layers", "Discount (gamma)"} & set(fields)


@pytest.mark.parametrize("algorithm", ["GRPO", "AT-GRPO"])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"environment__text": {"task": "plan_path", "plan_path": {"size": 3}}},
        {"environment__text__turn_order": ["reasoner", "tool", "reasoner"]},
    ],
)
def test_roles_and_policies_are_those_of_the_run(algorithm, overrides):
    config = make_text_config(algorithm, **overrides)
    assert tuple(roles_of(flat(algorithm, **overrides))) == config.turn_order


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"algorithm": "GRPO"}, "one"),
        ({"algorithm": "AT-GRPO"}, "one, shared by all roles"),
        (
            {"algorithm": "AT-GRPO", "model__roles": {"tool": "small", "reasoner": "large"}},
            "tool: small, reasoner: large",
        ),
    ],
)
def test_policies_show_how_weights_are_shared(overrides, expected):
    assert language_fields(flat(**overrides))["Policies"] == expected


def test_policy_overrides_are_listed():
    small = {"tool": {"kind": "mlp", "hidden_sizes": [8, 8]}}
    config = flat("AT-GRPO", model__policies="role", model__by_policy=small)
    assert language_fields(config)["Policy overrides"] == "tool.kind mlp, tool.hidden_sizes 8 8"


def test_pretrained_model_is_shown_by_name():
    config = flat() | {"model.path": "google/gemma-3-270m-it", "model.dtype": "bfloat16"}
    assert language_fields(config)["Model"] == "google/gemma-3-270m-it, bfloat16"


def test_custom_task():
    config = {
        "agent.algorithm": "AT-GRPO",
        "environment.text.task": "mine:Riddles",
        "environment.kwargs.level": 3,
    }
    fields = language_fields(config)
    assert fields == {
        "Task": "mine:Riddles",
        "Roles in order": "defined by the task",
        "Task settings": "level 3",
    }


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"agent": 1},
        {"environment.text.task": None, "model": "x", "model.tiny": 1},
        {"environment.text.turn_order": 3, "grpo.num_generations": "many", "grpo.alpha": [1]},
        {"model.path": "tiny", "model.specialization": "other", "model.policies": 7},
        {"collector.frames_per_batch": 16, "grpo.num_generations": 0},
    ],
)
def test_missing_settings_of_a_damaged_config_are_skipped(damaged):
    assert all(isinstance(value, str) and value for value in language_fields(damaged).values())
