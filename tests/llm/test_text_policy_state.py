"""Test the saved states of text policies, and into which policies they can be loaded."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from scripted import make_request
from tensordict import TensorDict

from heteromark.llm.loss import GroupRelativeLoss
from heteromark.llm.policies.backbone import (
    Backbone,
    character_tokenizer,
    tiny_backbone,
)
from heteromark.llm.policies.base import TextPolicy, text_policies
from heteromark.llm.policies.language_model import (
    AdapterPolicy,
    FrozenPolicy,
    LanguageModelPolicy,
    Lora,
    adapter_policies,
)
from heteromark.llm.policies.network import NetworkPolicy
from heteromark.training.checkpoint import shape_misfit

ROLES = ("tool", "planner")


def base(seed: int = 0) -> Backbone:
    return tiny_backbone(hidden_size=32, num_layers=2, seed=seed)


def adapters(backbone: Backbone | None = None, rank: int = 2, **lora) -> dict[str, AdapterPolicy]:
    return dict(adapter_policies(backbone or base(), ROLES, Lora(rank=rank, **lora)))


def network() -> TextPolicy:
    return NetworkPolicy([16], max_prompt_length=16, max_response_length=6, with_reference=True)


MAKERS: dict[str, Callable[[], TextPolicy]] = {
    "adapter": lambda: adapters()["planner"],
    "whole": lambda: LanguageModelPolicy(base(), with_reference=True),
    "network": network,
}


def responses(policy: TextPolicy) -> TensorDict:
    batch, *_ = policy.respond(
        ["12+34=", "7"],
        make_request(
            samples=3,
            max_prompt_length=16,
            max_response_length=6,
            generator=torch.Generator().manual_seed(0),
        ),
    )
    return batch


def improve(policy: TextPolicy) -> TensorDict:
    """Train a few steps towards some responses; return the responses."""
    batch = responses(policy)
    optimizer = torch.optim.AdamW(policy.trained_parameters().values(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (-policy(batch).sum()).backward()
        optimizer.step()
    return batch


def through_a_file(policy: TextPolicy) -> tuple[dict[str, torch.Tensor], int]:
    """Save and load a policy's state; return it with the file size in bytes."""
    file = io.BytesIO()
    torch.save(policy.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True), file.getbuffer().nbytes


@torch.no_grad()
def log_probs(policy: TextPolicy, batch: TensorDict) -> torch.Tensor:
    return policy(batch)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_policy_is_restored_exactly_from_a_file(maker):
    trained, fresh = MAKERS[maker](), MAKERS[maker]()
    batch = improve(trained)
    reference = fresh.reference_log_probs(batch)
    assert not torch.equal(log_probs(fresh, batch), log_probs(trained, batch))
    state, _ = through_a_file(trained)
    assert shape_misfit(fresh.state_dict(), state) is None
    fresh.load_state_dict(state)
    assert torch.equal(log_probs(fresh, batch), log_probs(trained, batch))
    assert torch.equal(responses(fresh)["action"], responses(trained)["action"])
    assert torch.equal(fresh.reference_log_probs(batch), reference)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_state_inside_a_loss_is_the_policys(maker):
    policy = MAKERS[maker]()
    whole = GroupRelativeLoss(policy).state_dict()
    assert {f"policy.{name}" for name in policy.state_dict()} == set(whole)


def test_adapters_have_small_states():
    policies = adapters(rank=1)
    weights = base().model.num_parameters()
    for policy in policies.values():
        state, size = through_a_file(policy)
        assert set(state) == {*policy.trained_parameters(), "base_sha256"}
        assert state["base_sha256"].shape == (32,)
        assert state["base_sha256"].dtype == torch.uint8
        assert sum(each.numel() for each in state.values()) - 32 < weights / 5
        assert size < weights * 4  # 4 bytes per weight


def test_a_frozen_policys_state_only_identifies_its_model():
    policy = FrozenPolicy(base())
    state, _ = through_a_file(policy)
    assert set(state) == {"base_sha256"}
    FrozenPolicy(base()).load_state_dict(state)
    with pytest.raises(ValueError, match="belong to another base"):
        FrozenPolicy(base(seed=1)).load_state_dict(state)


def test_loading_an_adapter_does_not_change_the_others():
    trained, fresh = adapters(), adapters()
    batch = improve(trained["tool"])
    improve(fresh["planner"])
    before = log_probs(fresh["planner"], batch)
    fresh["tool"].load_state_dict(through_a_file(trained["tool"])[0])
    assert torch.equal(log_probs(fresh["planner"], batch), before)
    assert torch.equal(log_probs(fresh["tool"], batch), log_probs(trained["tool"], batch))


def test_a_fingerprint_does_not_depend_on_adapters():
    backbone = base()
    plain = backbone.fingerprint
    assert torch.equal(plain, base().fingerprint)
    assert not torch.equal(plain, base(seed=1).fingerprint)
    for lora in ({}, {"rank": 4}, {"modules": r".*\.q_proj"}):
        for policy in adapters(**lora).values():
            improve(policy)
            assert torch.equal(policy.backbone.fingerprint, plain)


def test_a_fingerprint_is_computed_once_on_first_access():
    policies = adapters()
    backbone = policies["tool"].backbone
    assert "fingerprint" not in vars(backbone)
    first, other = (policy.state_dict()["base_sha256"] for policy in policies.values())
    assert first is other is backbone.fingerprint


def test_half_precision_has_a_fingerprint():
    backbone = base()
    backbone.model.bfloat16()
    assert not torch.equal(backbone.fingerprint, base().fingerprint)


def test_an_adapter_of_another_base_is_rejected_without_changes():
    state = adapters(base(seed=1))["tool"].state_dict()
    policy = adapters()["tool"]
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    assert shape_misfit(policy.state_dict(), state) is None  # only the fingerprint differs
    with pytest.raises(ValueError, match=r"belong to another base model: .*Load the base model"):
        policy.load_state_dict(state)
    assert all(torch.equal(policy.state_dict()[name], weight) for name, weight in before.items())


def test_an_adapter_of_another_vocabulary_is_rejected():
    backbone = base()
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<more>"])
    other = Backbone(backbone.model, tokenizer, backbone.max_length)
    state = adapters(other)["tool"].state_dict()
    with pytest.raises(ValueError, match="belong to another base"):
        adapters()["tool"].load_state_dict(state)


def test_an_adapter_without_a_base_fingerprint_is_rejected():
    policy = adapters()["tool"]
    state = policy.state_dict()
    del state["base_sha256"]
    with pytest.raises(ValueError, match="their base_sha256 is missing"):
        policy.load_state_dict(state)


def test_an_adapter_of_another_role_is_rejected():
    policies = adapters()
    with pytest.raises(ValueError, match=r"belong to another policy: they lack .*\.lora_.*"):
        policies["tool"].load_state_dict(policies["planner"].state_dict())


@pytest.mark.parametrize("options", [{"strict": False}, {"assign": True}])
def test_states_are_only_loaded_strictly_and_by_copying(options):
    policy = adapters()["tool"]
    with pytest.raises(ValueError, match="only strict=True and assign=False"):
        policy.load_state_dict(policy.state_dict(), **options)


def test_actors_of_language_models_must_be_text_policies():
    policy = network()
    assert text_policies({"tool": policy}) == {"tool": policy}
    with pytest.raises(TypeError, match="actor planner must be a TextPolicy, not a Linear"):
        text_policies({"tool": policy, "planner": torch.nn.Linear(1, 1)})


def test_an_adapter_of_another_rank_is_rejected():
    state = adapters(rank=4)["tool"].state_dict()
    policy = adapters(rank=2)["tool"]
    assert "has shape [4, 32], expected [2, 32]" in shape_misfit(policy.state_dict(), state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        policy.load_state_dict(state)
