"""Compare the group-relative loss with an implementation in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict

from heteromark.llm.batches import merged
from heteromark.llm.loss import GroupRelativeLoss, token_weights

NORMALISATIONS = ("grpo", "dapo", "dr_grpo")
LENGTHS = (5, 1, 3, 4)
MAX_LENGTH = 6


class Table(torch.nn.Module):
    """A policy whose log-probabilities are its parameters."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(values)

    def forward(self, batch: TensorDict) -> torch.Tensor:
        return self.values[batch["row"]]


@pytest.fixture
def batch() -> TensorDict:
    generator = torch.Generator().manual_seed(0)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = torch.arange(shape[1]) < torch.tensor(LENGTHS).unsqueeze(-1)
    old = -torch.rand(shape, generator=generator, dtype=torch.float64) * 3
    return TensorDict(
        {
            "row": torch.arange(shape[0]),
            "response_mask": mask,
            "log_prob": old,
            "reference_log_prob": old - 0.2,
            "current": old + 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64),
            "advantage": torch.tensor([1.0, -0.5, 2.0, -1.5], dtype=torch.float64),
        },
        [shape[0]],
    )


def weighted(batch: TensorDict, normalisation: str) -> TensorDict:
    weights = token_weights(batch["response_mask"], normalisation, MAX_LENGTH)
    return batch.clone().set("weight", weights.double())


def total_of(loss: GroupRelativeLoss, batch: TensorDict) -> torch.Tensor:
    result = loss(batch)
    return result["loss_objective"] + result.get("loss_kl", 0.0)


def plain(batch: TensorDict, normalisation: str, low: float, high: float, kl_coef: float) -> float:
    """Compute the loss by loops over responses and tokens."""
    terms, lengths = [], []
    for row, length in enumerate(LENGTHS):
        advantage = batch["advantage"][row].item()
        losses = []
        for token in range(length):
            old, new, reference = (
                batch[key][row, token].item()
                for key in ("log_prob", "current", "reference_log_prob")
            )
            ratio = math.exp(new - old)
            clipped = min(max(ratio, 1 - low), 1 + high)
            away = reference - new
            divergence = math.exp(away) - away - 1
            losses.append(-min(ratio * advantage, clipped * advantage) + kl_coef * divergence)
        terms.append(losses)
        lengths.append(length)
    if normalisation == "grpo":
        return sum(sum(losses) / len(losses) for losses in terms) / len(terms)
    total = sum(map(sum, terms))
    return total / (sum(lengths) if normalisation == "dapo" else len(terms) * MAX_LENGTH)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_the_loss_equals_that_of_loops(batch, normalisation, kl_coef):
    loss = GroupRelativeLoss(Table(batch["current"]), 0.2, 0.3, kl_coef)
    found = total_of(loss, weighted(batch, normalisation)).item()
    assert found == pytest.approx(plain(batch, normalisation, 0.2, 0.3, kl_coef), rel=1e-6)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_gradient_equals_that_of_loops(batch, normalisation):
    table = Table(batch["current"])
    total_of(GroupRelativeLoss(table, 0.2, 0.3, 0.3), weighted(batch, normalisation)).backward()
    step = 1e-6
    for row, length in enumerate(LENGTHS):
        for token in range(batch["log_prob"].shape[1]):
            moved = []
            for sign in (1, -1):
                changed = batch.clone()
                changed["current"][row, token] += sign * step
                moved.append(plain(changed, normalisation, 0.2, 0.3, 0.3))
            slope = (moved[0] - moved[1]) / (2 * step)
            assert table.values.grad[row, token].item() == pytest.approx(slope, abs=1e-6)
            if token >= length:
                assert slope == 0


def test_on_the_first_update_the_ratio_is_one(batch):
    result = GroupRelativeLoss(Table(batch["log_prob"]))(weighted(batch, "dapo"))
    assert (result["ratio_max"], result["clip_fraction"], result["kl_approx"]) == (1, 0, 0)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_padding_changes_nothing(batch, normalisation):
    padded = batch.clone()
    for key in ("response_mask", "log_prob", "reference_log_prob", "current"):
        beyond = 0 if key == "response_mask" else -torch.inf
        padded[key] = torch.nn.functional.pad(padded[key], (0, 3), value=beyond)
    found, gradients = [], []
    for each in (batch, padded):
        table = Table(each["current"])
        loss = total_of(GroupRelativeLoss(table, kl_coef=0.1), weighted(each, normalisation))
        loss.backward()
        found.append(loss.item())
        gradients.append(table.values.grad[:, : max(LENGTHS)])
    assert found[0] == pytest.approx(
        found[1], rel=1e-14
    )  # sums of different lengths round differently
    assert torch.equal(*gradients)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_micro_batches_add_up_to_their_batch(batch, normalisation):
    batch = weighted(batch, normalisation)
    whole, parts = Table(batch["current"]), Table(batch["current"].clone())
    total_of(GroupRelativeLoss(whole, kl_coef=0.1), batch).backward()
    for part in batch.split([1, 2, 1]):
        total_of(GroupRelativeLoss(parts, kl_coef=0.1), part).backward()
    torch.testing.assert_close(whole.values.grad, parts.values.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_merged_responses_count_once_per_occurrence(batch, normalisation):
    batch["action"] = torch.arange(batch["current"].numel()).view(batch["current"].shape)
    batch["group_id"] = torch.tensor([0, 0, 1, 1])
    batch = weighted(batch[torch.tensor([0, 2, 0, 1, 3, 2, 0])], normalisation)
    result, gradients = [], []
    for each in (batch, merged(batch)):
        table = Table(batch["current"])
        result.append(GroupRelativeLoss(table, kl_coef=0.1)(each))
        (result[-1]["loss_objective"] + result[-1]["loss_kl"]).backward()
        gradients.append(table.values.grad)
    assert len(merged(batch)) == len(LENGTHS)
    assert result[0]["clip_fraction"] > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=0)
    for name, value in result[0].items():
        assert result[1][name].item() == pytest.approx(value.item(), rel=1e-6), name


def test_the_clip_fraction_counts_only_clipped_tokens(batch):
    result = GroupRelativeLoss(Table(batch["current"]), 0.2, 0.3)(weighted(batch, "dapo"))
    ratio = (batch["current"] - batch["log_prob"]).exp()
    rises = batch["advantage"].unsqueeze(-1) > 0
    is_clipped = torch.where(rises, ratio > 1.3, ratio < 0.8) & batch["response_mask"]
    assert 0 < is_clipped.sum() < sum(LENGTHS)
    assert result["clip_fraction"].item() == pytest.approx(is_clipped.sum() / sum(LENGTHS))
