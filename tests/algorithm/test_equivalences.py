"""Changes of the input that must not change the result, or must change it in a known way."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config
from random_batches import GroupShape, make_algorithm, make_groups, random_batch
from torch import nn

from heteromark.algorithm.statistics import log_prob

KINDS = ["masked", "discrete", "continuous"]


def make(algorithm, shapes, *, dtype=torch.float32, turn_based=False, **overrides):
    config = make_config(
        algorithm=algorithm,
        policy__gru={"hidden_size": 4, "chunk_length": 4},
        policy__hidden_sizes=[4],
        collector__frames_per_batch=16,
        replay_buffer__minibatch_size=8,
        optimizer__learning_rate=0.01,
        loss__agent_order="fixed",
        **overrides,
    )
    return make_algorithm(config, make_groups(shapes), dtype=dtype, turn_based=turn_based)


def update(algorithm, batch):
    """Update with a fixed order of minibatches; return the metrics."""
    torch.manual_seed(1)
    return algorithm.update(batch, 0)


def weights(algorithm):
    policies = algorithm.learner
    return {
        f"{kind} {name} {weight}": parameter.detach()
        for kind, networks in (("actor", policies.actors), ("critic", policies.critics))
        for name, network in networks.items()
        for weight, parameter in network.named_parameters()
    }


@pytest.mark.parametrize("policy_type", ["mlp", "gru"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_one_group_happo_is_mappo(kind, policy_type):
    metrics, after = {}, {}
    for name in ("HAPPO", "MAPPO"):
        algorithm = make(name, [GroupShape(kind)], policy_type=policy_type)
        before = {key: value.clone() for key, value in weights(algorithm).items()}
        metrics[name] = update(algorithm, random_batch(algorithm, seed=2))
        after[name] = weights(algorithm)
        assert all((before[key] != value).any() for key, value in after[name].items())
    assert metrics["HAPPO"].pop("factor_mean/group0") == 1
    assert metrics["HAPPO"] == metrics["MAPPO"]
    for key, value in after["HAPPO"].items():
        assert (value == after["MAPPO"][key]).all(), key


@pytest.mark.parametrize("aggregation", ["prod", "mean"])
@pytest.mark.parametrize("policy_type", ["mlp", "gru"])
def test_unchanged_policies_leave_the_factor_at_exactly_one(policy_type, aggregation):
    algorithm = make(
        "HAPPO",
        [GroupShape(kind, agents=n) for n, kind in enumerate(KINDS, start=1)],
        policy_type=policy_type,
        loss__action_aggregation=aggregation,
    )
    batch = random_batch(algorithm, seed=3)
    algorithm.reset_factor(batch)
    for group, actor in algorithm.learner.actors.items():
        batch.set((group, "log_prob_before"), log_prob(actor, batch, group))
        algorithm.update_factor(batch, group)
        assert (algorithm.get_factor_for_agent(group) == 1).all()


@pytest.mark.parametrize("algorithm", ["HAPPO", "HATRPO", "HAA2C", "MAPPO", "IPPO", "MaskablePPO"])
@pytest.mark.parametrize("kind", ["masked", "continuous"])
def test_the_order_of_the_agents_within_a_group_does_not_matter(algorithm, kind):
    """The joint critic depends on the order of agents, so its first layer is permuted too."""
    order = torch.tensor([2, 0, 1])
    results = []
    for is_permuted in (False, True):
        made = make(
            algorithm,
            [GroupShape(kind, agents=3), GroupShape("discrete", agents=1)],
            dtype=torch.float64,
            optimizer__eps=1e-3,  # Adam would amplify rounding errors of the smallest gradients
            loss__entropy_coef=0.01
            if kind == "masked"
            else 0.0,  # else estimated from random samples
        )
        batch = random_batch(made, seed=4)
        if is_permuted:
            for agents in (batch["group0"], batch["next", "group0"]):
                for key, entry in agents.items():
                    agents[key] = entry[:, :, order]
            permute_joint_critic(made, order)
        update(made, batch)
        if is_permuted:
            permute_joint_critic(made, order.argsort())
        results.append(weights(made))
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-9, atol=1e-12, msg=key)


def permute_joint_critic(algorithm, order):
    """Permute the inputs of a joint critic's first layer for the agents of the first group."""
    if "team" not in algorithm.learner.critics:
        return
    size = algorithm.learner.groups["group0"].observation_size
    modules = algorithm.learner.critics["team"].modules()
    first = next(module for module in modules if isinstance(module, nn.Linear))
    columns = (order[:, None] * size + torch.arange(size)).flatten()
    with torch.no_grad():
        first.weight[:, : len(columns)] = first.weight[:, columns]


@pytest.mark.parametrize("policy_type", ["mlp", "gru"])
@pytest.mark.parametrize("algorithm", ["IPPO", "MaskablePPO"])
def test_without_a_joint_critic_groups_learn_independently(algorithm, policy_type):
    results = []
    for are_others_different in (False, True):
        made = make(
            algorithm,
            [GroupShape("masked"), GroupShape("discrete"), GroupShape("continuous")],
            policy_type=policy_type,
            environment__reward="individual",
        )
        batch = random_batch(made, seed=5)
        if are_others_different:
            for entries in (batch["group1"], batch["next", "group1"]):
                for key in set(entries.keys()) - {"action"}:
                    entry = entries[key]
                    entries[key] = ~entry if entry.dtype == torch.bool else entry + 1
        metrics = update(made, batch)
        results.append(weights(made) | {k: torch.tensor(v) for k, v in metrics.items()})
    alike, different = [], []
    for key, value in results[0].items():
        (alike if torch.equal(results[1][key], value) else different).append(key)
    assert all("group1" in key for key in different), different
    assert any("critic group1" in key for key in different)
    assert any("actor group1" in key for key in different)


@pytest.mark.parametrize("algorithm", ["IPPO", "MaskablePPO"])
def test_an_own_critic_values_an_agent_by_its_observation(algorithm):
    made = make(algorithm, [GroupShape("discrete", agents=3)])
    critic = made.learner.critics["group0"]
    batch = random_batch(made, seed=6)
    before = critic(batch.copy())["group0", "state_value"]
    batch["group0", "observation"][:, :, 1:] += 1
    after = critic(batch.copy())["group0", "state_value"]
    assert (after[:, :, 0] == before[:, :, 0]).all()
    assert (after[:, :, 1:] != before[:, :, 1:]).all()
