"""Compare value and gradient of the group-relative loss with TorchRL's GRPOLoss.

TorchRL uses the masking strategy "sft", which counts response tokens only, and temperature 1. Its
aggregation "token_mean" is our dapo and "prompt_mean" is our grpo. It has no dr_grpo, so its token
losses ("none") are added up here. Its KL penalty is also averaged over prompts and padding; the
comparison undoes that.
"""

from __future__ import annotations

import pytest
import torch
from scripted import make_request
from tensordict import TensorDict, TensorDictBase, lazy_stack
from torchrl.modules.llm import TransformersWrapper
from torchrl.objectives.llm import GRPOLoss

from heteromark.llm.loss import GroupRelativeLoss, token_weights
from heteromark.llm.policies.backbone import Backbone, tiny_backbone
from heteromark.llm.policies.language_model import LanguageModelPolicy

MAX_LENGTH = 24
CLIP = (0.2, 0.3)
AGGREGATIONS = {"dapo": "token_mean", "grpo": "prompt_mean", "dr_grpo": "none"}


@pytest.fixture(scope="module", params=["llama", "gemma3", "qwen3"])
def backbone(request) -> Backbone:
    return tiny_backbone(request.param, hidden_size=32, num_layers=2)


@pytest.fixture(scope="module")
def batch(backbone) -> TensorDict:
    """Return responses of different lengths, as if sampled by similar policies."""
    batch, *_ = LanguageModelPolicy(backbone).respond(
        ["1+1=", "a longer prompt"],
        make_request(
            samples=8,
            max_prompt_length=32,
            max_response_length=MAX_LENGTH,
            temperature=1.0,
            generator=torch.Generator().manual_seed(1),
        ),
    )
    generator = torch.Generator().manual_seed(2)
    mask = batch["response_mask"]
    for key in ("old", "reference_log_prob"):
        noise = 0.3 * torch.randn(mask.shape, generator=generator)
        batch[key] = (batch["log_prob"] + noise) * mask
    batch["log_prob"] = batch.pop("old")
    batch["advantage"] = torch.randn(len(batch), generator=generator)
    assert len(mask.sum(-1).unique()) > 1
    return batch


def for_torchrl(row: TensorDictBase) -> TensorDict:
    """Convert a row to TorchRL's format: no padding, log-probabilities 0 in the prompt."""
    prompt, response = row["prompt_ids"][row["prompt_mask"]], row["response_mask"]
    tokens = torch.cat([prompt, row["action"][response]])
    old, reference = (
        torch.cat([torch.zeros(len(prompt)), row[key][response]])
        for key in ("log_prob", "reference_log_prob")
    )
    return TensorDict(
        {
            "tokens": {"full": tokens, "prompt": prompt},
            "masks": {"all_attention_mask": torch.ones_like(tokens, dtype=torch.bool)},
            "log_probs": {"full": old},
            "next": {"ref_log_probs": {"full": reference}},
            "advantage": row["advantage"].reshape(1, 1),
        }
    )


def gradients(backbone: Backbone, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(backbone.model.parameters())))


def theirs(
    backbone: Backbone, batch: TensorDict, aggregation: str, kl_coef: float | None = None
) -> TensorDictBase:
    wrapper = TransformersWrapper(
        backbone.model, tokenizer=backbone.tokenizer, input_mode="tokens", generate=False
    )
    loss = GRPOLoss(
        wrapper,
        clip_epsilon=CLIP,
        aggregation=aggregation,
        entropy_bonus=False,
        masking_strategy="sft",
        kl_to_ref_coeff=kl_coef,
    )
    return loss(lazy_stack([for_torchrl(row) for row in batch]))


def ours(backbone: Backbone, batch: TensorDict, normalisation: str, kl_coef: float) -> TensorDict:
    weight = token_weights(batch["response_mask"], normalisation, MAX_LENGTH)
    loss = GroupRelativeLoss(LanguageModelPolicy(backbone), *CLIP, kl_coef)
    return loss(batch.copy().set("weight", weight))


def assert_equal(backbone: Backbone, found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    found, expected = gradients(backbone, found), gradients(backbone, expected)
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("normalisation", AGGREGATIONS)
def test_the_clipped_objective_equals_torchrls(backbone, batch, normalisation):
    expected = theirs(backbone, batch, AGGREGATIONS[normalisation]).loss_objective.sum()
    if normalisation == "dr_grpo":
        expected = expected / (len(batch) * MAX_LENGTH)
    result = ours(backbone, batch, normalisation, kl_coef=0.0)
    assert 0.1 < result["clip_fraction"] < 0.5
    assert_equal(backbone, result["loss_objective"], expected)


def test_the_kl_penalty_equals_torchrls_up_to_normalisation(backbone, batch):
    expected = theirs(backbone, batch, "token_mean", kl_coef=0.5).loss_kl_to_ref
    lengths = (batch["prompt_mask"].sum(-1) + batch["response_mask"].sum(-1)).tolist()
    expected = expected * len(batch) * max(lengths) / batch["response_mask"].sum()
    result = ours(backbone, batch, "dapo", kl_coef=0.5)
    assert_equal(backbone, result["loss_kl"], expected)
