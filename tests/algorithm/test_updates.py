"""Properties of the updates of all algorithms."""

from __future__ import annotations

import math

import pytest
import torch
from engine_config import make_config

from heteromark.algorithm.learner import Diverged
from heteromark.training.components import ComponentFactory

ALGORITHMS = ["HAPPO", "MAPPO", "IPPO", "MaskablePPO"]


def collected(algorithm, **overrides):
    config = make_config(
        algorithm=algorithm, **{"environment__task": "toy_environments:ToyBattle", **overrides}
    )
    components = ComponentFactory(config).create()
    components.collector.restart(config.seed, "training", 0)
    batch = components.collector.collect().clone()
    torch.manual_seed(0)
    return components, batch


def weights(components):
    policies = components.learner
    networks = {**policies.actors, **{f"critic {k}": v for k, v in policies.critics.items()}}
    return {
        name: torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        for name, network in networks.items()
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_network_learns(algorithm):
    components, batch = collected(algorithm)
    before = weights(components)
    metrics = components.algorithm.update(batch, 0)
    after = weights(components)
    for name in before:
        assert (before[name] != after[name]).any(), name
    for quantity in ("loss_objective", "entropy", "kl_approx", "clip_fraction", "grad_norm"):
        for group in ("archer", "healer"):
            assert math.isfinite(metrics[f"{quantity}/{group}"])
    assert ("loss_critic" in metrics) == (algorithm in ("HAPPO", "MAPPO"))
    assert ("loss_critic/archer" in metrics) == (algorithm not in ("HAPPO", "MAPPO"))
    assert metrics["learning_rate"] == 3e-4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_data_of_inactive_agents_has_no_effect(algorithm):
    results = []
    own_rewards = algorithm in ("IPPO", "MaskablePPO")
    for garbage in (None, 7.0):
        components, batch = collected(
            algorithm, environment__reward="individual" if own_rewards else "team"
        )
        if garbage is not None:
            inactive = ~batch["archer", "active"]
            assert inactive.any()
            batch["archer", "observation"][inactive] = garbage
            batch["archer", "action_log_prob"][inactive] = garbage
            gone = ~batch["next", "archer", "active"]
            batch["next", "archer", "observation"][gone] = garbage
            if own_rewards:
                batch["next", "archer", "reward"][inactive] = garbage
        metrics = components.algorithm.update(batch, 0)
        results.append((metrics, weights(components)))
    (clean, clean_weights), (dirty, dirty_weights) = results
    assert dirty == pytest.approx(clean, rel=1e-5, abs=1e-7)
    for name in clean_weights:
        torch.testing.assert_close(clean_weights[name], dirty_weights[name], rtol=0, atol=1e-6)


def test_a_group_that_was_never_active_is_not_trained():
    components, batch = collected("HAPPO", loss__agent_order="fixed")
    batch["archer", "active"][:] = False
    before = weights(components)
    metrics = components.algorithm.update(batch, 0)
    after = weights(components)
    assert (before["archer"] == after["archer"]).all()
    assert (before["healer"] != after["healer"]).any()
    assert math.isnan(metrics["kl_approx/archer"])
    assert metrics["factor_mean/healer"] == 1


def test_value_targets_are_normalised_with_running_statistics():
    components, batch = collected("HAPPO")
    batch["next", "archer", "reward"] += 1000
    batch["next", "healer", "reward"] += 1000
    components.algorithm.update(batch, 0)
    assert batch["value_target"].abs().max() < 10
    norm = components.learner.value_norms["team"]
    target = norm.denormalize(batch["value_target"])
    assert float(target.mean()) > 1000
    assert float(norm.normalize(target).mean()) == pytest.approx(0, abs=0.01)


def test_without_normalisation_targets_are_in_units_of_the_reward():
    components, batch = collected("IPPO", loss__normalize_value=False)
    batch["next", "archer", "reward"] += 1000
    components.algorithm.update(batch, 0)
    assert components.learner.value_norms == {}
    assert batch["archer", "value_target"][batch["archer", "counts"]].min() > 900


def test_an_agents_own_return_ends_with_its_death():
    components, batch = collected(
        "IPPO", environment__reward="individual", loss__normalize_value=False
    )
    components.algorithm.update(batch, 0)
    died = batch["archer", "active"] & ~batch["next", "archer", "active"]
    assert died[..., 1].any()
    assert not died[..., 0].any()
    target = batch["archer", "value_target"][died]
    torch.testing.assert_close(target, torch.full_like(target, 2.0))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_infinite_reward_diverges(algorithm):
    components, batch = collected(algorithm)
    for group in components.learner.groups:
        batch["next", group, "reward"][1, 3] = math.inf
    message = (
        "reward inf of agent 'archer_0' of group 'archer', agent .* in copy 1 is not finite in"
    )
    with pytest.raises(Diverged, match=f"{message} iteration 5"):
        components.algorithm.update(batch, 4)


def test_agents_that_share_a_critic_must_have_the_same_reward():
    components, batch = collected("HAPPO")
    batch["next", "archer", "reward"][0, 3, 1] = 7.0
    message = "iteration 5: rewards differ in copy 0: .* 7.0 for agent 'archer_1' of group 'archer'"
    with pytest.raises(ValueError, match=f"environment 'test', {message}"):
        components.algorithm.update(batch, 4)
    components, batch = collected("IPPO", environment__reward="individual")
    batch["next", "archer", "reward"][0, 3, 1] = 7.0
    components.algorithm.update(batch, 4)


def test_a_weight_that_is_not_a_number_diverges():
    components, batch = collected("HAPPO")
    with torch.no_grad():
        next(components.learner.critics["team"].parameters())[0] = math.nan
    with pytest.raises(Diverged, match="value target of team is not finite in iteration 1"):
        components.algorithm.update(batch, 0)
