"""Perceptrons as policies over text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from heteromark.llm.policies.network import NetworkPolicy, network_sizes
from heteromark.modules.networks import make_mlp

HEAD_GAIN = 0.01  # so that all characters are about equally likely to begin with


def network_policy(
    hidden_sizes: Sequence[int],
    activation: str,
    *,
    max_prompt_length: int,
    max_response_length: int,
    temperature: float = 1.0,
    with_reference: bool = False,
    seed: int = 0,
) -> NetworkPolicy:
    """A perceptron over characters, on the CPU; torch's global generator is left as it was.

    Args:
        hidden_sizes, activation: see `make_mlp`.
        max_prompt_length, max_response_length, temperature, with_reference: see `NetworkPolicy`.
        seed: of the weights.
    """
    sizes = network_sizes(max_prompt_length, max_response_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_mlp(*sizes, hidden_sizes, activation, head_gain=HEAD_GAIN)
    return NetworkPolicy(
        network,
        max_prompt_length=max_prompt_length,
        max_response_length=max_response_length,
        temperature=temperature,
        with_reference=with_reference,
    )
