"""Create run configs of language-model agents for tests: tiny models, few problems."""

from __future__ import annotations

from typing import Any

from heteromark.config.models.run import RunConfig
from heteromark.config.nested import merge, unflatten

TINY = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": 128}


def make_text_config(algorithm: str = "GRPO", **overrides: Any) -> RunConfig:
    """Create the config of a run with two iterations on the math task.

    Args:
        algorithm: GRPO or AT-GRPO.
        overrides: values by key; double underscores separate sections, as in
            `model__policies="role"`.
    """
    data: dict[str, Any] = {
        "agent": {
            "agent_id": "test",
            "algorithm": algorithm,
            "network": {"policy": "TextPolicy"},
            "n_steps": 16,
            "batch_size": 16,
        },
        "mode": "smoke",
        "seed": 0,
        "device": "cpu",
        "env_type": "text",
        "policy_type": "text",
        "loss_type": "grpo" if algorithm == "GRPO" else "at_grpo",
        "environment": {
            "name": "math",
            "num_parallel_envs": 3,
            "text": {"task": "math", "math": {"max_operand": 9}},
        },
        "policy": {},
        "loss": {},
        "optimizer": {"learning_rate": 1e-2},
        "collector": {"frames_per_batch": 16},
        "replay_buffer": {"minibatch_size": 16},
        "training": {"total_frames": 32, "num_epochs": 1, "checkpoint_interval": 1},
        "evaluation": {"episodes": 5},
        "model": {"tiny": TINY},
        "generation": {"max_prompt_length": 96, "max_response_length": 6},
        "grpo": {"num_generations": 4},
    }
    flat = {key.replace("__", "."): value for key, value in overrides.items()}
    return RunConfig.model_validate(merge(data, unflatten(flat)))
