"""Test text policies: adapters that share a model, and full models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scripted import make_request
from tensordict import TensorDict

from heteromark.llm.loss import GroupRelativeLoss
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.language_model import LanguageModelPolicy, Lora, adapter_policies

PROMPTS = ("12+34=", "7")
ROLES = ("tool", "planner")


@pytest.fixture
def small():
    return tiny_backbone(hidden_size=32, num_layers=2)


@pytest.fixture
def adapters(small):
    return adapter_policies(small, ROLES, Lora(rank=4, alpha=8.0), temperature=0.8)


def responses(policy: TextPolicy, seed: int = 0) -> TensorDict:
    batch, *_ = policy.respond(
        PROMPTS,
        make_request(
            samples=3,
            max_prompt_length=16,
            max_response_length=8,
            generator=torch.Generator().manual_seed(seed),
        ),
    )
    return batch


def improve(policy: TextPolicy, batch: TensorDict) -> None:
    """Train a few steps towards the responses of a batch."""
    optimizer = torch.optim.AdamW(policy.trained_parameters().values(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        (-policy(batch).sum()).backward()
        optimizer.step()


def test_untrained_adapters_respond_like_the_model(small, adapters):
    batch = responses(adapters["tool"])
    with torch.no_grad():
        for policy in adapters.values():
            assert torch.equal(policy(batch), policy.reference_log_probs(batch))
            torch.testing.assert_close(policy(batch), batch["log_prob"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3"])
def test_a_trained_adapters_sampled_and_computed_log_probs_agree(architecture):
    backbone = tiny_backbone(architecture, hidden_size=32, num_layers=2)
    adapters = adapter_policies(backbone, ROLES, Lora(rank=4), temperature=0.8)
    for policy in adapters.values():
        improve(policy, responses(policy))
    batches = {name: responses(policy) for name, policy in adapters.items()}
    with torch.no_grad():
        for name, batch in batches.items():
            found = adapters[name](batch)
            torch.testing.assert_close(found, batch["log_prob"], atol=1e-5, rtol=0)
            other = adapters[ROLES[1 - ROLES.index(name)]]
            assert (other(batch) - found).abs().max() > 0.01
            assert (adapters[name].reference_log_probs(batch) - found).abs().max() > 0.01


def test_an_update_leaves_other_adapters_bit_identical(adapters):
    batch = responses(adapters["tool"])
    with torch.no_grad():
        before = {name: policy(batch) for name, policy in adapters.items()}
        reference = adapters["tool"].reference_log_probs(batch)
    others = responses(adapters["planner"])
    improve(adapters["tool"], batch)
    with torch.no_grad():
        after = {name: policy(batch) for name, policy in adapters.items()}
    assert after["tool"].sum() > before["tool"].sum() + 1
    assert torch.equal(after["planner"], before["planner"])
    assert torch.equal(adapters["planner"].reference_log_probs(batch), reference)
    again = responses(adapters["planner"])
    assert torch.equal(again["action"], others["action"])
    assert not torch.equal(responses(adapters["tool"])["action"], batch["action"])


def test_gradients_reach_one_adapter_only(adapters):
    batch = responses(adapters["tool"])
    adapters["planner"](batch).sum().backward()
    model = adapters["tool"].model
    touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert touched == set(adapters["planner"].trained_parameters())
    assert not touched & set(adapters["tool"].trained_parameters())


def test_adapters_can_have_the_names_of_modules(small):
    policies = adapter_policies(small, ("model", "layers"), Lora(rank=2))
    trained = [set(policy.trained_parameters()) for policy in policies.values()]
    assert not trained[0] & trained[1]
    assert all("lora_" in name for name in trained[0] | trained[1])
    assert len(trained[0]) == len(trained[1]) > 0


def test_each_adapter_can_be_trained_in_turn(adapters):
    for name in (*ROLES, *ROLES):
        batch = responses(adapters[name])
        with torch.no_grad():
            before = adapters[name](batch).sum()
        improve(adapters[name], batch)
        with torch.no_grad():
            assert adapters[name](batch).sum() > before


def test_a_full_models_reference_does_not_change(small):
    policy = LanguageModelPolicy(small, with_reference=True)
    batch = responses(policy)
    before = policy.reference_log_probs(batch)
    improve(policy, batch)
    assert torch.equal(policy.reference_log_probs(batch), before)
    assert policy(batch).sum() > before.sum()
    assert not any(weight.requires_grad for weight in policy.reference.parameters())


def test_a_missing_reference_is_reported(small):
    policy = LanguageModelPolicy(small)
    with pytest.raises(ValueError, match="has no reference model"):
        policy.reference_log_probs(responses(policy))


def test_a_response_as_text_ends_before_the_end_token(small):
    policy = LanguageModelPolicy(small)
    batch, texts, *_ = policy.respond(
        PROMPTS,
        make_request(samples=50, max_prompt_length=16, max_response_length=30, temperature=2.0),
    )
    lengths = batch["response_mask"].sum(-1)
    is_ended = batch["action"].eq(policy.tokenizer.eos_token_id).any(-1)
    assert is_ended.any()
    assert all("<end>" not in text and "<pad>" not in text for text in texts)
    for text, length in zip(texts, lengths, strict=True):
        assert len(text) <= length


def test_a_too_long_prompt_is_rejected(small):
    with pytest.raises(ValueError, match=r"has 6 tokens, more than .* \(5\): '12\+34='"):
        LanguageModelPolicy(small).encode(PROMPTS, 5)


def test_a_pattern_without_matching_modules_is_reported(small):
    with pytest.raises(ValueError, match="nothing_such"):
        adapter_policies(small, ROLES, Lora(modules="nothing_such"))


def test_modules_are_chosen_by_a_pattern(small):
    policies = adapter_policies(small, ["only"], Lora(rank=2, modules=r".*\.(q_proj|v_proj)"))
    trained = policies["only"].trained_parameters()
    assert trained
    assert all(".q_proj." in name or ".v_proj." in name for name in trained)


def test_autocast_keeps_the_first_ratio_at_one_and_log_probs_close():
    backbone = tiny_backbone(hidden_size=32, num_layers=2)
    plain, cast = (
        LanguageModelPolicy(backbone),
        LanguageModelPolicy(replace(backbone, autocast=True)),
    )
    batch, *_ = plain.respond(
        ["1+2=", "30+4="],
        make_request(
            samples=3,
            max_prompt_length=16,
            max_response_length=5,
            generator=torch.Generator().manual_seed(0),
        ),
    )
    exact, found = plain(batch), cast(batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)
    batch["advantage"] = torch.linspace(-1, 1, len(batch))
    batch["weight"] = batch["response_mask"].float()
    result = GroupRelativeLoss(cast)(batch.exclude("log_prob"))
    assert (result["ratio_max"], result["kl_approx"]) == (1, 0)
    result["loss_objective"].backward()
    gradients = [weight.grad for weight in cast.trained_parameters().values()]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
