"""Test group-relative advantages."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heteromark.llm.advantage import EPSILON, group_advantage

REWARDS = st.lists(
    st.tuples(st.integers(0, 3), st.floats(-10, 10, allow_nan=False, width=32)), min_size=1
)


@given(REWARDS, st.booleans())
def test_every_group_is_judged_by_itself(rows, scale):
    group = torch.tensor([name for name, _ in rows])
    reward = torch.tensor([value for _, value in rows], dtype=torch.float64)
    advantage = group_advantage(reward, group, scale).advantage
    for name in set(group.tolist()):
        members = reward[group == name].tolist()
        mean, deviation = statistics.fmean(members), statistics.pstdev(members)
        for value, found in zip(members, advantage[group == name].tolist(), strict=True):
            expected = (value - mean) / (deviation + EPSILON) if scale else value - mean
            assert found == pytest.approx(expected, abs=1e-6)


def test_a_flat_group_has_no_advantage_and_is_reported():
    # in single precision the mean of three times 0.9 is not 0.9
    reward = torch.tensor([0.9, 0.9, 0.9, 1.0, 0.0])
    found = group_advantage(reward, torch.tensor([7, 7, 7, 2, 2]))
    assert found.advantage[:3].tolist() == [0.0, 0.0, 0.0]
    assert found.is_flat.tolist() == [True, True, True, False, False]
    assert found.flat_share == 0.5
    assert found.advantage[3] == -found.advantage[4] > 0.99


def test_a_group_of_one_is_flat():
    found = group_advantage(torch.tensor([5.0]), torch.tensor([0]))
    assert (found.advantage.tolist(), found.flat_share) == ([0.0], 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rewards_must_be_finite(value):
    with pytest.raises(ValueError, match="finite"):
        group_advantage(torch.tensor([0.0, value]), torch.tensor([0, 0]))


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r"\[2\], \[3\]"):
        group_advantage(torch.zeros(2), torch.zeros(3, dtype=torch.long))
