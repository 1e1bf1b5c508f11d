"""HAPPO's sequence of updates and its factor."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config

from heteromark.algorithm.statistics import log_prob
from heteromark.training.components import ComponentFactory

TOY = {"environment__task": "toy_environments:ToyBattle"}


def collected(**overrides):
    """Return the algorithm and its first batch; archer_1 dies in every episode."""
    config = make_config(**(TOY | overrides))
    components = ComponentFactory(config).create()
    components.collector.restart(config.seed, "training", 0)
    return components.algorithm, components.collector.collect().clone()


def store_log_prob(algorithm, batch, group):
    actor = algorithm.learner.actors[group]
    before = log_prob(actor, batch, group)
    batch.set((group, "log_prob_before"), before)
    return actor, before


def nudge(actor):
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def test_the_factor_starts_at_one_for_every_agent_of_every_group():
    algorithm, batch = collected()
    algorithm.reset_factor(batch)
    for group, n_agents in (("archer", 2), ("healer", 1)):
        factor = algorithm.get_factor_for_agent(group)
        assert factor.shape == (2, 32, n_agents, 1)
        assert (factor == 1).all()


def test_an_unchanged_policy_leaves_the_factor_at_exactly_one():
    algorithm, batch = collected()
    algorithm.reset_factor(batch)
    store_log_prob(algorithm, batch, "archer")
    algorithm.update_factor(batch, "archer")
    assert (algorithm.get_factor_for_agent("healer") == 1).all()


@pytest.mark.parametrize(
    "environment",
    [
        TOY,
        {
            "environment__task": "mpe2.simple_spread_v3:parallel_env",
            "environment__kwargs": {"continuous_actions": True},
            "environment__group_by": "agent",
        },
    ],
    ids=["discrete", "continuous"],
)
def test_the_factor_is_the_product_of_the_active_agents_ratios(environment):
    algorithm, batch = collected(**environment)
    algorithm.reset_factor(batch)
    expected = torch.ones(2, 32)
    *earlier, last = algorithm.learner.groups
    for group in earlier:
        actor, before = store_log_prob(algorithm, batch, group)
        nudge(actor)
        algorithm.update_factor(batch, group)
        ratio = (log_prob(actor, batch, group) - before).exp()
        active = batch[group, "active"]
        for k in range(ratio.shape[-1]):
            expected *= torch.where(active[..., k], ratio[..., k], 1.0)
    factor = algorithm.get_factor_for_agent(last)[..., 0, 0]
    assert not torch.allclose(factor, torch.ones(()))
    torch.testing.assert_close(factor, expected)


def test_dead_agents_do_not_affect_the_factor():
    algorithm, batch = collected()
    factors = []
    for garbage in (0.0, 5.0):
        data = batch.clone()
        dead = ~data["archer", "active"]
        assert dead.any()
        data["archer", "observation"][dead] = garbage
        algorithm.reset_factor(data)
        _, before = store_log_prob(algorithm, data, "archer")
        data.set(("archer", "log_prob_before"), torch.where(dead, before + garbage, before))
        algorithm.update_factor(data, "archer")
        factors.append(algorithm.get_factor_for_agent("healer"))
    assert (factors[0] == factors[1]).all()


def test_the_order_is_random_or_fixed():
    algorithm, _ = collected(environment__group_by="agent")
    orders = {tuple(algorithm.get_agent_order()) for _ in range(100)}
    assert len(orders) == 6
    assert all(sorted(order) == ["archer_0", "archer_1", "healer_0"] for order in orders)
    fixed, _ = collected(environment__group_by="agent", loss__agent_order="fixed")
    orders = {tuple(fixed.get_agent_order()) for _ in range(10)}
    assert orders == {("archer_0", "archer_1", "healer_0")}


def test_later_groups_are_trained_with_the_factor_of_earlier_ones(monkeypatch):
    algorithm, batch = collected(loss__agent_order="fixed", optimizer__learning_rate=0.01)
    seen = {}
    train_actor = algorithm.train_actor

    def watched(data, group):
        seen[group] = data[group, "factor"].clone()
        return train_actor(data, group)

    monkeypatch.setattr(algorithm, "train_actor", watched)
    metrics = algorithm.update(batch, 0)
    assert list(seen) == ["archer", "healer"]
    assert (seen["archer"] == 1).all()
    assert (seen["healer"] != 1).any()
    assert metrics["factor_mean/archer"] == 1
    assert metrics["factor_mean/healer"] == pytest.approx(float(seen["healer"].mean()))


def test_individual_rewards_are_rejected_with_a_centralised_critic():
    with pytest.raises(
        ValueError, match="HAPPO with a centralised critic optimises a return shared by all agents"
    ):
        collected(environment__reward="individual")


@pytest.mark.parametrize("aggregation", ["prod", "mean"])
def test_the_dimensions_of_a_continuous_action_are_combined_into_one_ratio(aggregation):
    algorithm, batch = collected(
        environment__task="mpe2.simple_spread_v3:parallel_env",
        environment__kwargs={"continuous_actions": True},
        loss__action_aggregation=aggregation,
        loss__entropy_coef=0.0,
        loss__agent_order="fixed",
    )
    (group,) = algorithm.learner.groups
    actor = algorithm.learner.actors[group]
    algorithm.reset_factor(batch)
    store_log_prob(algorithm, batch, group)
    before = by_dimension(actor, batch, group)
    nudge(actor)
    by_dim = (by_dimension(actor, batch, group) - before).exp()
    ratio = by_dim.prod(-1) if aggregation == "prod" else by_dim.mean(-1)
    algorithm.update_factor(batch, group)
    factor = algorithm.get_factor_for_agent(group)[..., 0, 0]
    torch.testing.assert_close(factor, ratio.prod(-1))

    batch.set((group, "advantage"), torch.randn(2, 32, 3, 1))
    batch.set((group, "factor"), torch.rand(2, 32, 3, 1))
    batch.set((group, "counts"), batch[group, "active"])
    loss = algorithm.learner.losses.actors[group](batch.reshape(-1))
    advantage = batch[group, "advantage"].squeeze(-1)
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    expected = -(batch[group, "factor"].squeeze(-1) * surrogate).mean()
    torch.testing.assert_close(loss["loss_objective"], expected)


def by_dimension(actor, batch, group):
    """Compute the log-probabilities of a squashed normal's dimensions from its parameters."""
    with torch.no_grad():
        parameters = actor.get_dist_params(batch.copy())
    normal = torch.distributions.Normal(parameters[group, "loc"], parameters[group, "scale"])
    squashed = torch.distributions.TransformedDistribution(
        normal,
        [
            torch.distributions.TanhTransform(),
            torch.distributions.AffineTransform(0.5, 0.5),  # into the box [0, 1]
        ],
    )
    inside = batch[group, "action"].clamp(1e-6, 1 - 1e-6)
    return squashed.log_prob(inside)
