"""Sizes that have to fit each other: the message names the nearest that do."""

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
            "must divide collector.frames_per_batch (agent.n_steps), which is 64; the nearest that "
            "fit are 8 and 16, or set agent.n_steps to 60 or 72",
        ),
        (
            {"environment__num_parallel_envs": 100},
            "environment.num_parallel_envs",
            "must divide collector.frames_per_batch (agent.n_steps), which is 64; the nearest that "
            "fits is 64, or set agent.n_steps to 100",
        ),
        (
            {"replay_buffer__minibatch_size": 24},
            "replay_buffer.minibatch_size",
            "must divide collector.frames_per_batch, which is 64; the nearest that fit are 16 and "
            "32, or set collector.frames_per_batch to 48 or 72",
        ),
        (
            {"replay_buffer__minibatch_size": 100},
            "replay_buffer.minibatch_size",
            "must be at most collector.frames_per_batch, which collects only 64 frames; the nearest "
            "that fits is 64, or set collector.frames_per_batch to 100",
        ),
        (
            {**GRU, "policy__gru": {"chunk_length": 5}},
            "policy.gru.chunk_length",
            "must divide the 32 steps that each of the 2 environments takes in a batch of 64 "
            "frames; the nearest that fit are 4 and 8",
        ),
        (
            {**GRU, "policy__gru": {"chunk_length": 16}, "replay_buffer__minibatch_size": 8},
            "policy.gru.chunk_length",
            "must divide replay_buffer.minibatch_size, which is 8: minibatches are made of whole "
            "chunks; the nearest that fits is 8",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_told_with_the_nearest_that_do(sizes, key, message):
    with pytest.raises(ValidationError) as caught:
        make_config(**sizes)
    (fault,) = faults_of(caught.value, RunConfig, "config")
    assert fault.key == key
    assert fault.message.startswith(message)
