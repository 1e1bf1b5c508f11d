"""Run configs for the engine's tests, built from the config models without files."""

from __future__ import annotations

from typing import Any

from heteromark.config.fields import NETWORK_OF_POLICY_TYPE
from heteromark.config.models.algorithms import ROW_OF
from heteromark.config.models.run import RunConfig

SPEAKER_LISTENER = "mpe2.simple_speaker_listener_v4:parallel_env"

# Overrides for a turn-based game, which supports opponents.
TIC_TAC_TOE = {
    "algorithm": "IPPO",
    "environment__task": "pettingzoo.classic.tictactoe.tictactoe:env",
    "environment__reward": "individual",
}


def make_config(**overrides: Any) -> RunConfig:
    """Return a small run on speaker-listener.

    Args:
        overrides: values by key, including `algorithm` and `seed`. Use double underscores for
            nested sections, e.g. `training__total_frames=512`.
    """
    algorithm = overrides.pop("algorithm", "HAPPO")
    data: dict[str, Any] = {
        "agent": {"agent_id": "test", "algorithm": algorithm, "batch_size": 32, "n_steps": 64},
        "mode": "smoke",
        "seed": 0,
        "device": "cpu",
        "loss_type": ROW_OF[algorithm].loss,
        "environment": {"name": "test", "task": SPEAKER_LISTENER, "num_parallel_envs": 2},
        "policy": {"hidden_sizes": [8]},
        "loss": {},
        "optimizer": {},
        "collector": {"frames_per_batch": 64},
        "replay_buffer": {"minibatch_size": 32},
        "training": {"total_frames": 256, "num_epochs": 2, "checkpoint_interval": 2},
        "evaluation": {"episodes": 3},
    }
    for key, value in overrides.items():
        *sections, last = key.split("__")
        section = data
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    network = NETWORK_OF_POLICY_TYPE.get(data.get("policy_type"), "MlpPolicy")
    data["agent"].setdefault("network", {"policy": network})
    return RunConfig.model_validate(data)
