"""Sizes that must divide each other: the message names the nearest valid ones."""

from __future__ import annotations

import pytest
from engine_config import make_config
from pydantic import ValidationError

from heteromark.config.errors import faults_of
from heteromark.config.models.run import RunConfig

GRU = {"policy_type": "gru"}


@pytest.mark.parametrize(
    ("sizes", "key", "message"),
    [
        (
            {"environment__num_parallel_envs": 12},
            "environment.num_parallel_envs",
            "must divide collector.frames_per_batch (agent.n_steps), which is 64. Nearest valid: 8 "
            "or 16; or set agent.n_steps to 60 or 72",
        ),
        (
            {"environment__num_parallel_envs": 100},
            "environment.num_parallel_envs",
            "must divide collector.frames_per_batch (agent.n_steps), which is 64. Nearest valid: "
            "64; or set agent.n_steps to 100",
        ),
        (
            {"replay_buffer__minibatch_size": 24},
            "replay_buffer.minibatch_size",
            "must divide collector.frames_per_batch, which is 64. Nearest valid: 16 or 32; or "
            "set collector.frames_per_batch to 48 or 72",
        ),
        (
            {"replay_buffer__minibatch_size": 100},
            "replay_buffer.minibatch_size",
            "must be at most collector.frames_per_batch, which is 64. Nearest valid: 64; or set "
            "collector.frames_per_batch to 100",
        ),
        (
            {**GRU, "policy__gru": {"chunk_length": 5}},
            "policy.gru.chunk_length",
            "must divide the 32 steps that each of the 2 environments takes per batch of 64 "
            "frames. Nearest valid: 4 or 8; or change the batch",
        ),
        (
            {**GRU, "policy__gru": {"chunk_length": 16}, "replay_buffer__minibatch_size": 8},
            "policy.gru.chunk_length",
            "must divide replay_buffer.minibatch_size, which is 8, because minibatches consist of "
            "whole chunks. Nearest valid: 8; or change the minibatch size",
        ),
    ],
)
def test_invalid_sizes_are_reported_with_the_nearest_valid_ones(sizes, key, message):
    with pytest.raises(ValidationError) as caught:
        make_config(**sizes)
    (fault,) = faults_of(caught.value, RunConfig, "config")
    assert fault.key == key
    assert fault.message.startswith(message)
