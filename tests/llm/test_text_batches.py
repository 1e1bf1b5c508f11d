"""Test batches of prompts and responses of different lengths."""

from __future__ import annotations

import pytest
import torch
from scripted import make_request
from tensordict import TensorDict

from heteromark.llm.batches import concatenate, merged, micro_batches, trimmed
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.language_model import LanguageModelPolicy


@pytest.fixture(scope="module")
def policy() -> TextPolicy:
    return LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1))


def batch_of(policy: TextPolicy, prompts: list[str], length: int, seed: int = 0):
    batch, *_ = policy.respond(
        prompts,
        make_request(
            samples=3,
            max_prompt_length=64,
            max_response_length=length,
            generator=torch.Generator().manual_seed(seed),
        ),
    )
    return batch


@pytest.fixture(scope="module")
def batches(policy):
    return [
        batch_of(policy, ["1+1=", "12+34="], 5),
        batch_of(policy, ["a prompt that is longer"], 12, seed=1),
    ]


def test_concatenated_batches_have_the_same_log_probs(policy, batches):
    whole = concatenate(batches)
    assert whole.shape == (9,)
    with torch.no_grad():
        found = policy(whole)
        row = 0
        for batch in batches:
            length = batch["action"].shape[1]
            expected = policy(batch)
            torch.testing.assert_close(
                found[row : row + len(batch), :length], expected, atol=1e-5, rtol=0
            )
            row += len(batch)


def test_a_trimmed_batch_has_no_column_of_padding(policy, batches):
    short = trimmed(concatenate(batches)[:3])
    assert short["prompt_mask"].any(0).all()
    assert short["response_mask"].any(0).all()
    assert short["prompt_ids"].shape[1] == 4
    with torch.no_grad():
        expected = policy(batches[0][:3])[:, : short["action"].shape[1]]
        torch.testing.assert_close(policy(short), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rows", [1, 2, 4, 100])
def test_micro_batches_have_every_row_once(batches, rows):
    whole = concatenate(batches).set("row", torch.arange(9))
    parts = list(micro_batches(whole, rows))
    assert sorted(torch.cat([part["row"] for part in parts]).tolist()) == list(range(9))
    assert all(len(part) <= rows for part in parts)
    for part in parts:
        assert part["prompt_mask"].any(0).all()
        assert part["response_mask"].any(0).all()


def test_repeated_responses_are_merged_and_counted():
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1], [1, 1]]).bool()
    batch = TensorDict(
        {
            # Row 2 repeats row 0 and row 3 repeats row 1, up to padding. Row 4 belongs to another
            # group, and row 5 has another advantage.
            "action": torch.tensor([[7, 8], [7, 0], [7, 8], [7, 8], [7, 8], [7, 8]]),
            "response_mask": mask,
            "group_id": torch.tensor([0, 0, 0, 0, 1, 0]),
            "advantage": torch.tensor([0.5, -0.5, 0.5, -0.5, 0.5, 1.0]),
            "weight": mask * torch.tensor([0.25, 0.5, 0.25, 0.5, 0.25, 0.25]).unsqueeze(-1),
            "row": torch.arange(6),
        },
        [6],
    )
    found = merged(batch)
    assert found["row"].tolist() == [0, 1, 4, 5]
    assert found["count"].tolist() == [2, 2, 1, 1]
    assert found["weight"].tolist() == [[0.5, 0.5], [1.0, 0.0], [0.25, 0.25], [0.25, 0.25]]
    assert batch["weight"].sum() == found["weight"].sum()
