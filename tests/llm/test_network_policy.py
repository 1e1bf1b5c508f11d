"""Test a feed-forward network as a text policy, alone and in a team with a language model."""

from __future__ import annotations

import pytest
import torch
from scripted import make_request
from tensordict import TensorDict
from torch.nn.functional import pad

from heteromark.config.models.llm import GroupRelativeConfig
from heteromark.config.models.tasks import PlanPathConfig
from heteromark.llm.batches import concatenate
from heteromark.llm.loss import GroupRelativeLoss
from heteromark.llm.policies.backbone import CHARACTERS, tiny_backbone
from heteromark.llm.policies.language_model import LanguageModelPolicy
from heteromark.llm.policies.network import NetworkPolicy
from heteromark.llm.rollout import Team, roll_out
from heteromark.llm.tasks.plan_path import PlanPathTask
from heteromark.llm.update import GroupRelativeUpdate

PROMPTS = ("12+34=", "a longer prompt than that", "7")


def small(**changes) -> NetworkPolicy:
    settings = {"max_prompt_length": 32, "max_response_length": 6, "temperature": 0.7} | changes
    return NetworkPolicy([16], **settings)


@pytest.fixture
def policy() -> NetworkPolicy:
    """A policy with non-uniform outputs that ends some responses early."""
    made = small(with_reference=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator))
    return made


def responses(policy, prompts=PROMPTS, seed: int = 0, **changes) -> TensorDict:
    settings = {"samples": 40, "max_prompt_length": 32, "max_response_length": 6} | changes
    generator = torch.Generator().manual_seed(seed)
    return policy.respond(prompts, make_request(generator=generator, **settings))[0]


def update_of(max_length: int = 6) -> GroupRelativeUpdate:
    settings = GroupRelativeConfig(micro_batch_size=512)
    return GroupRelativeUpdate(settings, epochs=1, max_length=max_length, max_grad_norm=1.0)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_sampled_and_computed_log_probs_agree(policy, temperature):
    policy.temperature = temperature
    batch = responses(policy)
    found = policy(batch)
    torch.testing.assert_close(found, batch["log_prob"], atol=1e-5, rtol=0)
    assert found.requires_grad
    assert not batch["log_prob"].requires_grad
    assert (found[batch["response_mask"]] < 0).all()
    assert (found[~batch["response_mask"]] == 0).all()


def test_tokens_are_drawn_from_the_networks_distribution(policy):
    sampled = responses(policy, PROMPTS[:1], samples=20_000, max_response_length=2)
    every = sampled.copy()
    for position in range(2):
        is_response = sampled["response_mask"][:, position]
        shares = (
            torch.bincount(sampled["action"][is_response, position], minlength=99)
            / is_response.sum()
        )
        with torch.no_grad():  # the probability of each token at this position
            row = every[:99].clone()
            row["action"][:, position] = torch.arange(99)
            row["response_mask"][:, position] = True
            expected = policy(row)[:, position].exp()
        assert expected.sum() == pytest.approx(1.0, abs=1e-5)
        # four standard deviations of a share
        bound = 4 * (expected / is_response.sum()).sqrt() + 1e-3
        assert ((shares - expected).abs() <= bound).all()


def test_responses_end_with_the_end_token_and_no_later(policy):
    batch = responses(policy)
    end, fill = policy.tokenizer.eos_token_id, policy.tokenizer.pad_token_id
    lengths = batch["response_mask"].sum(-1)
    assert lengths.min() < lengths.max() == batch["action"].shape[1]
    assert torch.equal(batch["is_cut_off"], ~(batch["action"] == end).any(-1))
    assert set(batch["is_cut_off"].tolist()) == {True, False}
    for ids, mask, length in zip(
        batch["action"], batch["response_mask"], lengths.tolist(), strict=True
    ):
        assert mask[:length].all()
        assert (ids[: length - 1] != end).all()
        assert length == 6 or ids[length - 1] == end
        assert (ids[length:] == fill).all()


def test_unlikely_tokens_can_be_excluded(policy):
    batch = responses(policy, samples=200, top_k=3, temperature=1.0)
    policy.temperature = 1.0
    torch.testing.assert_close(policy(batch), batch["log_prob"], atol=1e-5, rtol=0)
    first = batch["action"][:, 0].view(len(PROMPTS), -1)
    assert all(len(tokens.unique()) == 3 for tokens in first)
    likeliest = responses(policy, samples=5, top_k=1)["action"]
    assert torch.equal(likeliest, responses(policy, samples=5, temperature=0.0)["action"])


@pytest.mark.parametrize("limit", [3, 50])
def test_both_length_limits_apply(policy, limit):
    batch = responses(policy, max_response_length=limit)
    assert batch["action"].shape[1] == min(limit, 6)
    torch.testing.assert_close(policy(batch), batch["log_prob"], atol=1e-5, rtol=0)


def test_padding_changes_nothing(policy):
    batch = responses(policy)
    padded = batch.copy()
    for key in ("prompt_ids", "prompt_mask"):
        padded[key] = pad(batch[key], (40, 0))
    for key in ("action", "response_mask", "log_prob"):
        padded[key] = pad(batch[key], (0, 5))
    length = batch["action"].shape[1]
    found = policy(padded)
    assert torch.equal(found[:, :length], policy(batch))
    assert (found[:, length:] == 0).all()
    for row, prompt in enumerate(PROMPTS):
        alone = responses(policy, (prompt,), temperature=0.0, samples=1)
        together = responses(policy, temperature=0.0, samples=1)
        width = alone["action"].shape[1]
        assert torch.equal(together["action"][row, :width], alone["action"][0])
        torch.testing.assert_close(together["log_prob"][row, :width], alone["log_prob"][0])


def test_a_response_longer_than_the_networks_limit_is_rejected(policy):
    batch = responses(policy)
    batch["action"] = pad(batch["action"], (0, 2))
    batch["response_mask"] = pad(batch["response_mask"], (0, 2), value=True)
    with pytest.raises(ValueError, match=r"has 8 tokens, more than this network's .*\(6\)"):
        policy(batch)


def test_a_network_sees_the_end_of_a_prompt_and_character_positions(policy):
    def log_prob(prompt: str) -> torch.Tensor:
        ids, mask = policy.encode([prompt], 100)
        sampled = responses(policy, PROMPTS[:1], samples=1)
        sampled["prompt_ids"], sampled["prompt_mask"] = ids, mask
        return policy(sampled)

    end = "x" * 32
    assert torch.equal(log_prob("abc" + end), log_prob("xyz1" + end))
    assert not torch.equal(log_prob("ab" + end[2:]), log_prob("ba" + end[2:]))
    assert not torch.equal(log_prob("ab"), log_prob("ab "))


def test_a_too_long_prompt_is_rejected(policy):
    with pytest.raises(ValueError, match=r"has 25 tokens, more than max_prompt_length \(20\)"):
        responses(policy, max_prompt_length=20)


def test_weights_and_responses_are_determined_by_their_seeds():
    state = torch.get_rng_state()
    first, again, other = (small(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    batch = responses(first)
    assert torch.equal(responses(again)["action"], batch["action"])
    assert torch.equal(responses(again)["log_prob"], batch["log_prob"])
    assert not torch.equal(responses(other)["action"], batch["action"])
    assert not torch.equal(responses(first, seed=1)["action"], batch["action"])


def test_the_first_update_has_ratio_exactly_one_and_the_reference_stays(policy):
    batch = responses(policy)
    before = policy.reference_log_probs(batch)
    batch["reward"] = batch["response_mask"].sum(-1).float()
    batch["group_id"] = torch.arange(len(PROMPTS)).repeat_interleave(40)
    optimizer = torch.optim.SGD(policy.trained_parameters().values(), lr=0.1)
    loss = GroupRelativeLoss(policy, kl_coef=0.1)
    metrics = update_of()(policy, loss, optimizer, batch, torch.Generator())
    assert (metrics["ratio_max"], metrics["clip_fraction"]) == (1.0, 0.0)
    assert metrics["grad_norm"] > 0
    assert torch.equal(policy.reference_log_probs(batch), before)


@pytest.mark.slow
def test_a_network_learns_different_responses_to_different_prompts():
    policy = small(temperature=1.0)
    wanted = torch.zeros(2, 99)
    for row, is_wanted in enumerate((str.isalpha, str.isdigit)):
        for character in filter(is_wanted, CHARACTERS):
            wanted[row, policy.tokenizer(character).input_ids] = 1.0
    optimizer = torch.optim.AdamW(policy.trained_parameters().values(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    update, loss = update_of(), GroupRelativeLoss(policy)
    shares = []
    for _ in range(100):
        batch = policy.respond(
            ["letters:", "digits:"],
            make_request(
                samples=32, max_prompt_length=32, max_response_length=6, generator=generator
            ),
        )[0]
        batch["group_id"] = torch.arange(2).repeat_interleave(32)
        is_right = wanted[batch["group_id"].unsqueeze(-1), batch["action"]]
        batch["reward"] = (is_right * batch["response_mask"]).sum(-1) / 6
        shares.append(batch["reward"].view(2, -1).mean(-1))
        update(policy, loss, optimizer, batch, generator)
    assert (shares[0] < 0.6).all()
    assert (shares[-1] > 0.95).all()


def test_a_mixed_team_learns_each_from_its_own_responses():
    task = PlanPathTask(PlanPathConfig(size=3))
    policies = {
        "tool": small(temperature=1.0),
        "planner": LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1)),
    }
    templates = {name: role.templates[0] for name, role in task.roles.items()}
    team = Team(("tool", "planner"), policies, templates, 2, 1.0, 200, 1)
    rollout = roll_out(
        team,
        [task.problem(seed) for seed in range(4)],
        samples=64,
        sampling="tree",
        generator=torch.Generator().manual_seed(0),
    )
    batches = {
        role: concatenate([step.batch for step in rollout.steps if step.role == role])
        for role in policies
    }
    for role, policy in policies.items():
        with torch.no_grad():
            before = {name: each(batches[name]) for name, each in policies.items()}
        optimizer = torch.optim.AdamW(policy.trained_parameters().values(), lr=1e-3)
        update = update_of(max_length=1)
        metrics = update(
            policy, GroupRelativeLoss(policy), optimizer, batches[role], torch.Generator()
        )
        assert metrics["grad_norm"] > 0
        with torch.no_grad():
            after = {name: each(batches[name]) for name, each in policies.items()}
        for name in policies:
            assert torch.equal(after[name], before[name]) == (name != role)
