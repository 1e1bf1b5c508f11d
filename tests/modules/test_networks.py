"""The networks: initial weights, normalisation, stacked recurrent layers."""

from __future__ import annotations

import math

import pytest
import torch
from engine_config import make_config
from random_batches import GroupShape, make_algorithm, make_groups, random_batch
from torch import nn

from heteromark.algorithm import base
from heteromark.config.errors import ConfigError
from heteromark.modules.networks import Layers, RecurrentNetwork, RunningNorm, make_mlp
from heteromark.modules.plain import plain_loss

ACTIVATIONS = ["tanh", "relu", "elu", "gelu", "leaky_relu", "selu", "sigmoid"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_computes_what_its_settings_say(activation):
    torch.manual_seed(0)
    network = make_mlp(
        Layers(3, 2, [5, 4], activation, layer_norm=True, feature_norm=True, head_gain=1.0)
    )
    inputs = torch.randn(7, 3)
    first, second, head = (layer for layer in network if isinstance(layer, nn.Linear))
    function = getattr(torch, activation, None) or getattr(nn.functional, activation)
    function = {"gelu": nn.functional.gelu, "elu": nn.functional.elu}.get(activation, function)
    expected = nn.functional.layer_norm(inputs, [3])
    for layer, width in ((first, 5), (second, 4)):
        expected = nn.functional.layer_norm(function(layer(expected)), [width])
    torch.testing.assert_close(network(inputs), head(expected))


def test_xavier_weights_are_uniform_with_the_gain():
    torch.manual_seed(0)
    network = make_mlp(Layers(200, 100, [300], initialization="xavier", head_gain=0.01))
    for layer, gain in ((network[0], math.sqrt(2)), (network[2], 0.01)):
        bound, weight = gain * math.sqrt(6 / sum(layer.weight.shape)), layer.weight.detach()
        assert 0.99 * bound < weight.abs().max() <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()


def test_running_statistics_are_those_of_all_rows_so_far():
    torch.manual_seed(0)
    norm = RunningNorm(3)
    rows = torch.tensor([1.0, 100.0, 1e-2]) * torch.randn(60, 3) + torch.tensor([0.0, 1e4, 0.5])
    untouched = norm(rows)
    torch.testing.assert_close(untouched, rows.clamp(-10, 10))  # before the first update
    for part in (rows[:7], rows[7:7], rows[7:40], rows[40:]):
        norm.update(part)
    expected = (rows - rows.mean(0)) / rows.std(0, correction=0)
    torch.testing.assert_close(norm(rows), expected, rtol=1e-3, atol=1e-3)
    again = RunningNorm(3)
    again.load_state_dict(norm.state_dict())
    assert torch.equal(again(rows), norm(rows))


@pytest.mark.parametrize("policy_type", ["mlp", "gru"])
@pytest.mark.parametrize("critic", ["team", "own"])
def test_an_iteration_adds_its_active_observations_to_the_statistics(policy_type, critic):
    config = make_config(
        algorithm="HAPPO" if critic == "team" else "IPPO",
        policy_type=policy_type,
        policy__observation_norm=True,
        collector__frames_per_batch=16,
        replay_buffer__minibatch_size=8,
        policy__gru={"chunk_length": 4, "hidden_size": 4},
    )
    algorithm = make_algorithm(
        config, make_groups([GroupShape("masked", 2), GroupShape("discrete", 1)])
    )
    batches = [random_batch(algorithm, seed) for seed in range(2)]
    for batch in batches:
        algorithm.update(batch, 0)
    for group in ("group0", "group1"):
        active = [batch[group, "observation"][batch[group, "active"]] for batch in batches]
        networks = [algorithm.learner.actors[group]]
        networks += [algorithm.learner.critics[group]] if critic == "own" else []
        for network in networks:
            [norm] = [module for module in network.modules() if isinstance(module, RunningNorm)]
            assert norm.count == sum(map(len, active))
            torch.testing.assert_close(norm.mean.float(), torch.cat(active).mean(0))
    if critic == "team":
        modules = algorithm.learner.critics["team"].modules()
        [norm] = [module for module in modules if isinstance(module, RunningNorm)]
        assert norm.count == sum(batch.numel() for batch in batches)


def test_the_statistics_do_not_change_between_collection_and_training():
    """So the ratio of an unchanged policy is 1 in the first epoch."""
    config = make_config(
        policy__observation_norm=True,
        collector__frames_per_batch=16,
        replay_buffer__minibatch_size=16,
        training__num_epochs=1,
        optimizer__learning_rate=1e-12,
    )
    algorithm = make_algorithm(config, make_groups([GroupShape("discrete", 2)]))
    for seed in range(3):
        batch = random_batch(algorithm, seed, log_prob_noise=0.0)
        assert algorithm.update(batch, 0)["kl_approx/group0"] < 1e-9


def test_stacked_recurrent_layers_feed_each_other():
    torch.manual_seed(0)
    network = RecurrentNetwork(Layers(3, 2, [5]), hidden_size=4, num_layers=2)
    inputs, hidden = torch.randn(6, 7, 3), torch.randn(6, 7, 8)
    counts = torch.ones(6, 7, 1, dtype=torch.int64)
    outputs, after = network(inputs, hidden, counts)
    state = hidden[:, 0]
    for t in range(7):
        lower = network.cells[0](network.body(inputs[:, t]), state[:, :4])
        upper = network.cells[1](lower, state[:, 4:])
        state = torch.cat([lower, upper], -1)
        torch.testing.assert_close(after[:, t], state)
        torch.testing.assert_close(outputs[:, t], network.head(upper))


def test_a_loss_may_be_divided_by_all_steps():
    """Then a group with few active steps learns less from a batch."""
    steps = {}
    for by_active in (True, False):
        config = make_config(
            loss__use_policy_active_masks=by_active,
            collector__frames_per_batch=16,
            replay_buffer__minibatch_size=16,
            training__num_epochs=1,
            training__max_grad_norm=None,
        )
        algorithm = make_algorithm(config, make_groups([GroupShape("discrete", 3)]))
        batch = random_batch(algorithm, 1)
        share = batch["group0", "active"].float().mean()
        steps[by_active] = algorithm.update(batch, 0)["grad_norm/group0"]
    assert 0.2 < share < 0.95
    assert steps[False] == pytest.approx(steps[True] * float(share), rel=1e-5)


def test_actors_and_critics_may_have_their_own_epochs_and_minibatches(monkeypatch):
    config = make_config(
        collector__frames_per_batch=16,
        replay_buffer__minibatch_size=8,
        replay_buffer__critic_minibatch_size=4,
        training__num_epochs=2,
        training__critic_epochs=3,
    )
    algorithm = make_algorithm(config, make_groups([GroupShape("discrete", 1)]))
    sizes = {"actor": [], "critic": []}
    kinds = {
        algorithm._losses.actors["group0"]: "actor",
        algorithm._losses.critics["team"]: "critic",
    }

    def counted(loss, network):
        find_losses = plain_loss(loss, network)

        def count(minibatch, all_count):
            sizes[kinds[loss]].append(len(minibatch[loss.loss_mask_key]))
            return find_losses(minibatch, all_count)

        return count

    monkeypatch.setattr(base, "plain_loss", counted)
    algorithm.update(random_batch(algorithm, 0), 0)
    assert sizes == {"actor": [8] * 4, "critic": [4] * 12}
    with pytest.raises(
        (ConfigError, ValueError),
        match=r"must divide collector\.frames_per_batch, which is 64\. Nearest valid: 4 or 8",
    ):
        make_config(replay_buffer__critic_minibatch_size=5)


def test_the_variance_of_returns_has_a_floor():
    config = make_config(
        loss__value_norm_floor=4.0, collector__frames_per_batch=16, replay_buffer__minibatch_size=16
    )
    algorithm = make_algorithm(config, make_groups([GroupShape("discrete", 1)]))
    norm = algorithm.learner.value_norms["team"]
    norm.update(torch.full((8, 1), 3.0))
    assert float(norm.normalize(torch.tensor([[7.0]]))) == pytest.approx(2.0)
