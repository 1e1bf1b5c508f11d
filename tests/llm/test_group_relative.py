"""Test GRPO's update of a text policy on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from scripted import make_request
from tensordict import TensorDict
from torch.nn.functional import pad

from heteromark.algorithm.learner import Diverged
from heteromark.config.models.llm import GroupRelativeConfig
from heteromark.llm.advantage import group_advantage
from heteromark.llm.loss import GroupRelativeLoss, token_weights
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.language_model import LanguageModelPolicy, Lora, adapter_policies
from heteromark.llm.rollout import Team, roll_out
from heteromark.llm.tasks.base import Problem, Reward
from heteromark.llm.update import GroupRelativeUpdate, judge_by_group

UPDATE = GroupRelativeUpdate(
    GroupRelativeConfig(micro_batch_size=100), epochs=1, max_length=8, max_grad_norm=1e9
)
PROMPTS = ["1+1=", "a longer prompt"]


def changed(update: GroupRelativeUpdate, **changes) -> GroupRelativeUpdate:
    """Return an update with changed fields or changed fields of its settings."""
    own = {name: changes.pop(name) for name in changes.keys() & GroupRelativeConfig.model_fields}
    return replace(update, settings=update.settings.model_copy(update=own), **changes)


@pytest.fixture
def policy() -> TextPolicy:
    return LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1), with_reference=True)


def judged(policy: TextPolicy) -> TensorDict:
    """Sample four responses to each of two prompts; rewards count the odd tokens."""
    batch, *_ = policy.respond(
        PROMPTS,
        make_request(
            samples=4,
            max_prompt_length=32,
            max_response_length=8,
            generator=torch.Generator().manual_seed(0),
        ),
    )
    batch["reward"] = (batch["action"] % 2 * batch["response_mask"]).sum(-1).float()
    batch["group_id"] = torch.arange(2).repeat_interleave(4)
    return batch


def sgd(policy: TextPolicy, rate: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(policy.trained_parameters().values(), lr=rate)


def updated(update: GroupRelativeUpdate, kl_coef: float = 0.0, **batch_changes):
    policy = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1), with_reference=True)
    batch = judged(policy).update(batch_changes)
    loss = GroupRelativeLoss(policy, kl_coef=kl_coef)
    metrics = update(policy, loss, sgd(policy), batch, torch.Generator().manual_seed(0))
    return {name: weight.detach() for name, weight in policy.trained_parameters().items()}, metrics


def test_the_first_update_has_ratio_exactly_one():
    _, metrics = updated(UPDATE)
    assert (metrics["ratio_max"], metrics["clip_fraction"], metrics["kl_approx"]) == (1.0, 0.0, 0.0)
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize("minibatch_size", [None, 3])
def test_later_steps_use_log_probs_from_before_the_update(minibatch_size):
    update = changed(UPDATE, epochs=2, minibatch_size=minibatch_size, micro_batch_size=2)
    policy = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1), with_reference=True)
    loss = GroupRelativeLoss(policy, kl_coef=0.1)
    metrics = update(policy, loss, sgd(policy, rate=0.0), judged(policy), torch.Generator())
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["kl_reference"] == pytest.approx(0.0, abs=1e-5)


def test_rewarded_responses_become_likelier(policy):
    batch = judged(policy)
    with torch.no_grad():
        before = policy(batch).sum(-1)
    UPDATE(policy, GroupRelativeLoss(policy), sgd(policy, 0.05), batch, torch.Generator())
    with torch.no_grad():
        change = policy(batch).sum(-1) - before
    for rows in (slice(0, 4), slice(4, 8)):
        best, worst = batch["reward"][rows].argmax(), batch["reward"][rows].argmin()
        assert change[rows][best] > change[rows][worst]


@pytest.mark.parametrize("normalisation", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_micro_batches_change_nothing_but_rounding(normalisation, kl_coef):
    update = changed(UPDATE, normalization=normalisation)
    whole, metrics = updated(update, kl_coef)
    parts, part_metrics = updated(changed(update, micro_batch_size=3), kl_coef)
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, atol=1e-5, rtol=1e-4)
    assert part_metrics == pytest.approx(metrics, abs=1e-5)


@pytest.mark.parametrize("normalisation", ["grpo", "dapo", "dr_grpo"])
def test_merging_repeated_responses_does_not_change_the_update(normalisation):
    """Compare with the loss over all rows, without merging."""
    policy = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1))
    batch = judged(policy)
    batch = torch.cat([batch, batch[:1], batch[:3], batch[6:]])
    before = {name: weight.clone() for name, weight in policy.trained_parameters().items()}
    judgement = group_advantage(
        batch["reward"], batch["group_id"], scale=normalisation != "dr_grpo"
    )
    whole = batch.exclude("log_prob").set("advantage", judgement.advantage)
    whole["weight"] = token_weights(batch["response_mask"], normalisation, 8)
    loss = GroupRelativeLoss(policy)
    loss(whole)["loss_objective"].backward()
    expected = {name: weight.grad.clone() for name, weight in policy.trained_parameters().items()}

    judge = partial(judge_by_group, scale=normalisation != "dr_grpo")
    update = changed(UPDATE, normalization=normalisation, micro_batch_size=3, judge=judge)
    update(policy, loss, sgd(policy), batch, torch.Generator().manual_seed(0))
    for name, weight in policy.trained_parameters().items():
        torch.testing.assert_close(before[name] - weight, expected[name], atol=1e-5, rtol=1e-4)


def test_equal_rewards_teach_nothing():
    before = dict(
        LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1)).trained_parameters()
    )
    after, metrics = updated(UPDATE, reward=torch.full((8,), 0.3))
    assert (metrics["grad_norm"], metrics["flat_share"]) == (0.0, 1.0)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("normalisation", ["grpo", "dapo", "dr_grpo"])
def test_padding_changes_nothing_at_all(normalisation):
    update = changed(UPDATE, epochs=2, normalization=normalisation)
    policy = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1), with_reference=True)
    batch = judged(policy)
    padded = {key: pad(batch[key], (5, 0)) for key in ("prompt_ids", "prompt_mask")}
    padded |= {key: pad(batch[key], (0, 7)) for key in ("action", "response_mask", "log_prob")}
    alone, metrics = updated(update, kl_coef=0.1)
    found, padded_metrics = updated(update, kl_coef=0.1, **padded)
    assert all(torch.equal(found[name], weight) for name, weight in alone.items())
    assert padded_metrics == metrics


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3"])
@pytest.mark.parametrize("normalisation", ["grpo", "dapo", "dr_grpo"])
def test_computed_padding_changes_neither_loss_nor_gradient(architecture, normalisation):
    policy = LanguageModelPolicy(tiny_backbone(architecture, hidden_size=32, num_layers=1))
    batch = judged(policy)
    batch["log_prob"] += 0.3  # so that responses without reward are clipped
    batch["advantage"] = batch["reward"] - batch["reward"].mean()
    padded = batch.copy()
    for key in ("prompt_ids", "prompt_mask"):
        padded[key] = pad(batch[key], (5, 0))
    for key in ("action", "response_mask", "log_prob"):
        padded[key] = pad(batch[key], (0, 7))
    losses, gradients = [], []
    for each in (batch, padded):
        each["weight"] = token_weights(each["response_mask"], normalisation, max_length=8)
        losses.append(GroupRelativeLoss(policy)(each)["loss_objective"])
        weights = list(policy.trained_parameters().values())
        gradients.append(torch.autograd.grad(losses[-1], weights))
    torch.testing.assert_close(losses[0], losses[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)
    assert max(gradient.abs().max() for gradient in gradients[0]) > 1e-3


class Talk(Problem):
    """Rewards the team for each letter; there is no local reward."""

    key = "talk"
    is_done = is_solved = False

    def fields(self, role: str) -> dict[str, str]:
        return {}

    def act(self, role: str, response: str) -> Reward:
        return Reward(float(sum(map(str.isalpha, response))), 0.0)

    def demonstration(self, role: str) -> str:
        return "yes"


@pytest.mark.parametrize("team_weight", [0.0, 1.0])
@pytest.mark.parametrize("normalisation", ["grpo", "dapo", "dr_grpo"])
def test_without_a_weighted_team_reward_or_local_reward_nothing_is_learnt(
    policy, team_weight, normalisation
):
    team = Team(["speaker"], {"speaker": policy}, {"speaker": "Talk:"}, 1, team_weight, 8, 8)
    generator = torch.Generator().manual_seed(0)
    rollout = roll_out(team, [Talk()], samples=8, sampling="tree", generator=generator)
    before = {name: weight.clone() for name, weight in policy.trained_parameters().items()}
    update = changed(UPDATE, normalization=normalisation)
    loss = GroupRelativeLoss(policy)
    metrics = update(policy, loss, sgd(policy), rollout.steps[0].batch, torch.Generator())
    assert len(set(rollout.steps[0].team)) > 1
    assert (metrics["grad_norm"] == 0) == (team_weight == 0)
    after = policy.trained_parameters()
    is_same = all(torch.equal(after[name], weight) for name, weight in before.items())
    assert is_same == (team_weight == 0)


def test_dropping_flat_groups_does_not_change_the_update():
    reward = torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 5.0, 5.0, 5.0])
    kept, metrics = updated(UPDATE, reward=reward)
    dropped, dropped_metrics = updated(changed(UPDATE, drop_flat=True), reward=reward)
    assert metrics["flat_share"] == dropped_metrics["flat_share"] == 0.5
    for name, weight in kept.items():
        torch.testing.assert_close(dropped[name], weight, atol=1e-6, rtol=1e-5)


def test_without_remaining_groups_nothing_is_trained():
    after, metrics = updated(changed(UPDATE, drop_flat=True), reward=torch.zeros(8))
    before = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1)).trained_parameters()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert metrics["grad_norm"] != metrics["grad_norm"]  # NaN


def test_clipping_in_later_steps_is_reported():
    update = changed(UPDATE, epochs=6, minibatch_size=4)
    _, metrics = updated(update)
    assert metrics["clip_fraction"] > 0
    assert metrics["kl_approx"] > 0
    assert metrics["ratio_max"] > 1


def test_the_largest_ratio_is_that_of_any_token_in_any_step():
    update = changed(UPDATE, epochs=4)
    whole, parts = updated(update)[1], updated(changed(update, micro_batch_size=1))[1]
    assert parts["ratio_max"] == pytest.approx(whole["ratio_max"], rel=1e-3)
    first = updated(changed(update, epochs=2))[1]  # its steps are the first two of the four
    assert 1 < first["ratio_max"] <= whole["ratio_max"]


def test_updates_are_determined_by_their_seeds():
    update = changed(UPDATE, epochs=2, minibatch_size=3)
    first, again = updated(update)[0], updated(update)[0]
    assert all(torch.equal(first[name], weight) for name, weight in again.items())


def test_the_reference_pulls_back(policy):
    batch = judged(policy)
    for _ in range(3):
        UPDATE(policy, GroupRelativeLoss(policy), sgd(policy, 0.5), batch, torch.Generator())
    with torch.no_grad():
        far = (policy(batch) - policy.reference_log_probs(batch)).abs().sum()
    batch["reward"] = torch.zeros(8)
    loss = GroupRelativeLoss(policy, kl_coef=1.0)
    for _ in range(3):
        metrics = UPDATE(policy, loss, sgd(policy, 0.1), batch, torch.Generator())
    assert metrics["kl_reference"] > 0
    with torch.no_grad():
        assert (policy(batch) - policy.reference_log_probs(batch)).abs().sum() < far


def test_an_update_leaves_other_adapters_bit_identical():
    roles = ("tool", "planner", "critic")
    adapters = adapter_policies(tiny_backbone(hidden_size=32, num_layers=1), roles, Lora(rank=2))
    for policy in adapters.values():  # so that every adapter has an effect
        UPDATE(policy, GroupRelativeLoss(policy), sgd(policy), judged(policy), torch.Generator())
    policy, batch = adapters["planner"], judged(adapters["planner"])
    others = {name: judged(adapters[name]) for name in ("tool", "critic")}
    with torch.no_grad():
        before = {name: adapter(batch) for name, adapter in adapters.items()}
    assert not torch.equal(before["tool"], before["critic"])
    metrics = UPDATE(policy, GroupRelativeLoss(policy), sgd(policy), batch, torch.Generator())
    assert metrics["grad_norm"] > 0
    with torch.no_grad():
        assert not torch.equal(policy(batch), before["planner"])
        for name, earlier in others.items():
            assert torch.equal(adapters[name](batch), before[name])
            again = judged(adapters[name])
            assert torch.equal(again["action"], earlier["action"])
            assert torch.equal(again["log_prob"], earlier["log_prob"])


def test_a_non_finite_loss_is_reported(policy):
    batch = judged(policy)
    with torch.no_grad():
        next(iter(policy.trained_parameters().values())).fill_(float("nan"))
    with pytest.raises(Diverged, match="loss_objective is nan"):
        UPDATE(policy, GroupRelativeLoss(policy), sgd(policy), batch, torch.Generator())


def test_without_clipping_gradients_are_still_measured():
    (free, unclipped), (wide, as_wide) = (
        updated(replace(UPDATE, max_grad_norm=limit)) for limit in (None, 1e9)
    )
    assert unclipped["grad_norm"] == as_wide["grad_norm"] > 0
    assert all(torch.equal(weight, wide[name]) for name, weight in free.items())
