"""HAPPOLoss and ValueLoss: the factor and the mask of active agents."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config
from tensordict import TensorDict
from torchrl.objectives import ClipPPOLoss

from heteromark.loss.happo import HAPPOLoss
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.loss import LossFactory
from heteromark.modules.policy import PolicyFactory

ROWS, AGENTS = 40, 2


@pytest.fixture
def setting():
    """Return loss, actor and a batch of archers, on which the old and new policies differ."""
    torch.manual_seed(0)
    config = make_config(environment__task="toy_environments:ToyBattle", algorithm="HAPPO")
    groups = EnvironmentFactory().create(config).groups
    policies = PolicyFactory().create(config, groups)
    losses = LossFactory().create(config, policies, groups)
    shape = (ROWS, AGENTS)
    mask = torch.rand(*shape, 4) > 0.3
    mask[..., 0] = True
    batch = TensorDict(
        {
            "archer": {
                "observation": torch.randn(*shape, 4),
                "action_mask": mask,
                "active": (counts := torch.rand(shape) > 0.3),
                "counts": counts,
                "value_counts": counts,
                "advantage": torch.randn(*shape, 1),
                "factor": torch.ones(*shape, 1),
            }
        },
        batch_size=[ROWS],
    )
    actor = policies.actors["archer"]
    with torch.no_grad():
        actor(batch)
    # Half of the ratios are outside the clip range.
    batch["archer", "action_log_prob"] += 0.5 * torch.randn(shape)
    return losses.actors["archer"], actor, batch


def clip_ppo(actor):
    loss = ClipPPOLoss(actor, None, functional=False)
    loss.set_keys(
        advantage=("archer", "advantage"),
        action=("archer", "action"),
        sample_log_prob=("archer", "action_log_prob"),
    )
    loss.loss_mask_key = ("archer", "counts")
    return loss


def test_with_factor_one_it_equals_the_ppo_loss(setting):
    loss, actor, batch = setting
    assert isinstance(loss, HAPPOLoss)
    ours, theirs = loss(batch), clip_ppo(actor)(batch)
    for key in ("loss_objective", "loss_entropy"):
        assert ours[key] == theirs[key]


def test_the_factor_multiplies_outside_the_min(setting):
    loss, actor, batch = setting
    factor = torch.rand(ROWS, AGENTS, 1) * 3
    batch["archer", "factor"] = factor
    archer = batch["archer"]
    log_prob = actor.get_dist(batch).log_prob(archer["action"])
    ratio = (log_prob - archer["action_log_prob"]).exp().unsqueeze(-1)
    advantage = archer["advantage"]
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    expected = -(factor * surrogate)[archer["active"]].mean()
    torch.testing.assert_close(loss(batch)["loss_objective"], expected)


@pytest.mark.parametrize("algorithm", ["HAPPO", "MAPPO", "IPPO", "MaskablePPO"])
def test_data_of_inactive_agents_has_no_effect(setting, algorithm):
    _, _, batch = setting
    config = make_config(environment__task="toy_environments:ToyBattle", algorithm=algorithm)
    torch.manual_seed(0)
    groups = EnvironmentFactory().create(config).groups
    policies = PolicyFactory().create(config, groups)
    loss = LossFactory().create(config, policies, groups).actors["archer"]

    def measure(data):
        loss.zero_grad()
        out = loss(data)
        (out["loss_objective"] + out["loss_entropy"]).backward()
        return out, [p.grad.clone() for p in policies.actors["archer"].parameters()]

    clean, clean_gradients = measure(batch)
    garbage = batch.clone()
    inactive = ~garbage["archer", "active"]
    for key in ("observation", "advantage", "factor", "action_log_prob"):
        garbage["archer", key][inactive] = 7.0
    dirty, dirty_gradients = measure(garbage)
    for key in ("loss_objective", "loss_entropy"):
        assert clean[key] == dirty[key]
    for before, after in zip(clean_gradients, dirty_gradients, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-7)


def test_the_critics_loss_counts_active_agents_only(setting):
    _, _, batch = setting
    config = make_config(
        environment__task="toy_environments:ToyBattle",
        algorithm="IPPO",
        loss__huber_delta=0.7,
        loss__clip_epsilon=0.1,
    )
    groups = EnvironmentFactory().create(config).groups
    policies = PolicyFactory().create(config, groups)
    loss = LossFactory().create(config, policies, groups).critics["archer"]
    batch["archer", "value_target"] = torch.randn(ROWS, AGENTS, 1)
    value = policies.critics["archer"](batch.copy())["archer", "state_value"]
    batch["archer", "value_before"] = value + 0.3 * torch.randn_like(value)
    archer = batch["archer"]

    def huber(error):
        return torch.where(error.abs() <= 0.7, error**2 / 2, 0.7 * (error.abs() - 0.35))

    before, target = archer["value_before"], archer["value_target"]
    clipped = before + (value - before).clamp(-0.1, 0.1)
    distance = torch.maximum(huber(value - target), huber(clipped - target))
    expected = distance[archer["active"]].mean()
    torch.testing.assert_close(loss(batch)["loss_critic"], 0.5 * expected)
    assert ("archer", "state_value") not in batch.keys(True)


def test_without_a_factor_the_error_names_the_key_and_its_writer(setting):
    loss, _, batch = setting
    with pytest.raises(KeyError, match=r"\('archer', 'factor'\).*HAPPO.update_actors writes it"):
        loss(batch.exclude(("archer", "factor")))
