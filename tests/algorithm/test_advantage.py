"""GAE against a loop that anyone can check, and the statistics around it."""

from __future__ import annotations

import math

import pytest
import torch

from heteromark.algorithm.advantage import (
    estimate_advantage,
    explained_variance,
    normalize_per_agent,
)

GAMMA, LAMBDA = 0.9, 0.8


def by_hand(value, next_value, reward, done, terminated):
    """One sequence, as lists of numbers."""
    advantages, running = [], 0.0
    for v, after, r, d, t in reversed(
        list(zip(value, next_value, reward, done, terminated, strict=True))
    ):
        delta = r + (0.0 if t else GAMMA * after) - v
        running = delta + (0.0 if d else GAMMA * LAMBDA * running)
        advantages.insert(0, running)
    return advantages


@pytest.mark.parametrize("shape", [(3, 17, 1), (3, 17, 2, 1)], ids=["team", "agents"])
def test_it_equals_the_loop(shape):
    torch.manual_seed(0)
    value, next_value, reward = torch.randn(3, *shape)
    terminated = torch.rand(shape) < 0.15
    done = terminated | (torch.rand(shape) < 0.15)
    advantage, target = estimate_advantage(
        value, next_value, reward, done, terminated, gamma=GAMMA, gae_lambda=LAMBDA
    )
    assert advantage.shape == target.shape == shape
    torch.testing.assert_close(target, advantage + value)

    def sequences(tensor):
        return tensor.movedim(1, -1).flatten(0, -2).tolist()

    everything = zip(*map(sequences, (value, next_value, reward, done, terminated)), strict=True)
    expected = torch.tensor([by_hand(*sequence) for sequence in everything])
    actual = torch.tensor(sequences(advantage))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_truncation_is_worth_the_value_of_the_final_state():
    ones = torch.ones(1, 1, 1)
    flag = torch.ones(1, 1, 1, dtype=torch.bool)
    settings = {"gamma": GAMMA, "gae_lambda": LAMBDA}
    truncated, _ = estimate_advantage(0 * ones, 10 * ones, ones, flag, ~flag, **settings)
    terminated, _ = estimate_advantage(0 * ones, 10 * ones, ones, flag, flag, **settings)
    assert float(truncated) == pytest.approx(1 + GAMMA * 10)
    assert float(terminated) == pytest.approx(1)


def test_normalisation_counts_active_steps_of_each_agent():
    torch.manual_seed(0)
    active = torch.rand(4, 30, 3, 1) > 0.4
    advantage = torch.randn(4, 30, 3, 1) * torch.tensor([1.0, 5.0, 9.0])[:, None] + 3
    normal = normalize_per_agent(advantage, active)
    for k in range(3):
        mine = normal[:, :, k][active[:, :, k]]
        assert float(mine.mean()) == pytest.approx(0, abs=1e-5)
        assert float(mine.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert (normal[~active] == 0).all()
    garbage = torch.where(active, advantage, 1e6)
    assert (normalize_per_agent(garbage, active) == normal).all()


def test_an_agent_that_was_never_active_has_no_advantage():
    nobody = torch.zeros(2, 5, 1, 1, dtype=torch.bool)
    assert (normalize_per_agent(torch.randn(2, 5, 1, 1), nobody) == 0).all()


def test_explained_variance():
    target = torch.tensor([1.0, 2.0, 3.0, 100.0])
    counted = torch.tensor([True, True, True, False])
    assert explained_variance(target.clone(), target, counted) == pytest.approx(1)
    assert explained_variance(torch.zeros(4), target, counted) == pytest.approx(0)
    assert math.isnan(explained_variance(target, torch.ones(4), counted))
    assert math.isnan(explained_variance(target, target, ~counted & False))
