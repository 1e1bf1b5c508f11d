"""GAE compared with simple loops, and statistics of advantages."""

from __future__ import annotations

import math

import pytest
import torch
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from heteromark.algorithm.advantage import (
    AgentSignals,
    estimate_advantage,
    estimate_agent_advantage,
    explained_variance,
    normalize_per_agent,
)

GAMMA, LAMBDA = 0.9, 0.8


def by_hand(value, next_value, reward, done, terminated):
    """Compute the advantages of one sequence; all arguments are lists."""
    advantages, running = [], 0.0
    for v, after, r, d, t in reversed(
        list(zip(value, next_value, reward, done, terminated, strict=True))
    ):
        delta = r + (0.0 if t else GAMMA * after) - v
        running = delta + (0.0 if d else GAMMA * LAMBDA * running)
        advantages.insert(0, running)
    return advantages


def by_transition(value, next_value, reward, active, still_there, done, wait):
    """Compute the advantages of one agent's transitions; all arguments are lists.

    None where no transition begins, or where its end is not in the batch.
    """
    steps, leaves = len(value), wait is None
    wait = 1.0 if leaves else wait
    advantages = [None] * steps
    for t in reversed(range(steps)):
        if not active[t]:
            continue
        gained, weight, follows, known, trace = 0.0, 1.0, 0.0, True, 0.0
        for s in range(t, steps):
            gained += weight * reward[s]
            if done[s] or (leaves and not still_there[s]):
                follows = next_value[s] if still_there[s] else 0.0
                break
            if s == steps - 1:
                known = still_there[s]
                follows = next_value[s]
                break
            if active[s + 1]:
                follows, trace = value[s + 1], advantages[s + 1] or 0.0
                break
            weight *= wait
        if known:
            delta = gained + GAMMA * weight * follows - value[t]
            advantages[t] = delta + GAMMA * LAMBDA * weight * trace
    return advantages


@pytest.mark.parametrize("wait", [None, 1.0, GAMMA], ids=["leaves", "by turns", "team"])
@pytest.mark.parametrize("presence", [1.0, 0.5])
def test_agents_equal_a_loop_over_transitions(wait, presence):
    torch.manual_seed(0)
    shape = (4, 23, 3, 1)
    value, next_value, reward = torch.randn(3, *shape)
    done = (torch.rand(4, 23, 1, 1) < 0.15).expand(shape)
    active = torch.rand(shape) < presence
    # Unless the episode ends, an agent that acts in the next step is still there.
    still_there = torch.rand(shape) < presence
    still_there[:, :-1] = torch.where(done[:, :-1], still_there[:, :-1], active[:, 1:])
    if presence == 1:
        still_there = still_there & ~(done & (torch.rand(shape) < 0.5))
    # Unless the episode ends, the value after a step is the value before the next one.
    next_value[:, :-1] = torch.where(done[:, :-1], next_value[:, :-1], value[:, 1:])
    signals = AgentSignals(reward, active, still_there, done)
    advantage, target, counts = estimate_agent_advantage(
        value, next_value, signals, gamma=GAMMA, gae_lambda=LAMBDA, waiting_discount=wait
    )
    everything = (value, next_value, reward, active, still_there, done)
    for i in range(4):
        for k in range(3):
            expected = by_transition(*(x[i, :, k, 0].tolist() for x in everything), wait)
            for t, by_loop in enumerate(expected):
                assert counts[i, t, k, 0] == (by_loop is not None)
                assert float(advantage[i, t, k, 0]) == pytest.approx(by_loop or 0.0, abs=1e-4)
    torch.testing.assert_close(target, torch.where(counts, advantage + value, 0.0))
    if presence == 1:
        terminated = done & ~still_there
        whole = [x.transpose(1, 2) for x in (value, next_value, reward, done, terminated)]
        plain, _ = vec_generalized_advantage_estimate(GAMMA, LAMBDA, *whole)
        torch.testing.assert_close(advantage, plain.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_values_of_absent_agents_have_no_effect():
    torch.manual_seed(0)
    shape = (2, 9, 2, 1)
    value, next_value = torch.randn(2, *shape)
    active = torch.rand(shape) < 0.6
    still_there = torch.cat([active[:, 1:], torch.rand(2, 1, 2, 1) < 0.6], dim=1)
    done = torch.zeros(shape, dtype=torch.bool)
    signals = AgentSignals(torch.randn(shape), active, still_there, done)
    settings = {"gamma": GAMMA, "gae_lambda": LAMBDA, "waiting_discount": 1.0}
    clean = estimate_agent_advantage(value, next_value, signals, **settings)
    value = torch.where(active, value, torch.nan)
    next_value = torch.where(still_there, next_value, torch.nan)
    for before, after in zip(
        clean, estimate_agent_advantage(value, next_value, signals, **settings), strict=True
    ):
        assert (before == after).all()


def test_a_team_equals_the_loop():
    torch.manual_seed(0)
    shape = (3, 17, 1)
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


def test_truncation_bootstraps_from_the_value_of_the_final_state():
    ones = torch.ones(1, 1, 1)
    flag = torch.ones(1, 1, 1, dtype=torch.bool)
    settings = {"gamma": GAMMA, "gae_lambda": LAMBDA}
    truncated, _ = estimate_advantage(0 * ones, 10 * ones, ones, flag, ~flag, **settings)
    terminated, _ = estimate_advantage(0 * ones, 10 * ones, ones, flag, flag, **settings)
    assert float(truncated) == pytest.approx(1 + GAMMA * 10)
    assert float(terminated) == pytest.approx(1)


def test_normalisation_uses_only_the_active_steps_of_each_agent():
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
