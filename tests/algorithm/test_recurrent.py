"""Recurrent policies: hidden state within an episode, reset between episodes, chunks."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config

from heteromark.algorithm.statistics import log_prob
from heteromark.modules.networks import Layers, RecurrentNetwork
from heteromark.training.components import ComponentFactory

TOY = "toy_environments:ToyBattle"
CHUNK = 8
BY_TURNS = {
    "algorithm": "IPPO",
    "environment__task": "toy_environments:ToyRelay",
    "environment__reward": "individual",
}


def collected(**overrides):
    """Return components and the second batch, which begins in the middle of episodes."""
    config = make_config(
        **{
            "environment__task": TOY,
            "environment__kwargs": {"length": 7},
            "policy_type": "gru",
            "policy__gru": {"hidden_size": 6, "chunk_length": CHUNK},
            **overrides,
        }
    )
    components = ComponentFactory(config).create()
    components.collector.restart(config.seed, "training", 0)
    first = components.collector.collect().clone()
    components.algorithm.update(first, 0)
    return components, components.collector.collect().clone()


def make_network():
    torch.manual_seed(0)
    return RecurrentNetwork(Layers(3, 2, [5]), hidden_size=4)


def test_a_sequence_equals_single_steps_and_is_reset_where_an_episode_begins():
    network = make_network()
    inputs, hidden = torch.randn(2, 9, 3, 3), torch.randn(2, 9, 3, 4)
    step_count = torch.tensor([[5, 6, 7, 0, 1, 2, 0, 1, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9]])[..., None]
    outputs, after = network(inputs, hidden, step_count)
    state = hidden[:, 0]
    for t in range(9):
        output, state = network(inputs[:, t], state, step_count[:, t])
        torch.testing.assert_close(outputs[:, t], output)
        torch.testing.assert_close(after[:, t], state)
    elsewhere = torch.randn_like(hidden)
    changed, _ = network(inputs, elsewhere, step_count)
    assert (changed[0, :3] != outputs[0, :3]).all()
    assert (changed[0, 3:] == outputs[0, 3:]).all()
    assert (changed[1] != outputs[1]).all()


def test_a_waiting_agent_keeps_its_hidden_state():
    network = make_network()
    inputs, hidden = torch.randn(2, 9, 3, 3), torch.randn(2, 9, 3, 4)
    active = torch.rand(2, 9, 3) < 0.5
    inputs[~active] = torch.nan
    step_count = torch.tensor([[5, 6, 7, 0, 1, 2, 0, 1, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9]])[..., None]
    outputs, after = network(inputs, hidden, step_count, active)
    for copy in range(2):
        for agent in range(3):
            state = hidden[copy, 0, agent]
            for t in range(9):
                count = step_count[copy, t][None]
                if count == 0:
                    state = torch.zeros_like(state)
                if active[copy, t, agent]:
                    seen = inputs[copy, t, agent][None]
                    output, moved = network(seen, state[None], torch.ones_like(count))
                    torch.testing.assert_close(outputs[copy, t, agent], output[0])
                    state = moved[0]
                torch.testing.assert_close(after[copy, t, agent], state)


def turns_of(batch, group, copy, agent):
    """Return the steps of an agent's turns in the first episode that begins in the batch."""
    begins = (batch["step_count"][copy, :, 0] == 0).nonzero().flatten()
    steps = torch.arange(int(begins[0]), int(begins[1]))
    return steps[batch[group, "active"][copy, steps, agent]]


def test_by_turns_the_hidden_state_depends_only_on_the_agents_own_turns():
    """It is the same if the agent is stepped at its own turns only."""
    components, batch = collected(**BY_TURNS)
    learner = components.learner
    components.algorithm._estimate_advantages(batch)
    for group, actor in learner.actors.items():
        critic, kept = learner.critics[group], batch[group, "hidden"]
        waits = ~batch[group, "active"][:, :-1] & (batch["step_count"][:, 1:] > 0)
        assert waits.any()
        assert (kept[:, 1:][waits] == kept[:, :-1][waits]).all()
        for copy in range(2):
            for agent in range(len(learner.groups[group].agents)):
                steps = turns_of(batch, group, copy, agent)
                assert len(steps) > 1
                own = batch[copy, steps].select(
                    (group, "observation"), (group, "action_mask"), (group, "active"), "step_count"
                )
                own["step_count"] = torch.arange(len(steps))[:, None]
                own = own[None]
                for entry in ("hidden", "critic_hidden"):
                    own[group, entry] = torch.zeros_like(kept[copy, steps][None])
                action = batch[group, "action"][copy, steps][None]
                again = actor.get_dist(own.copy()).log_prob(action)[0, :, agent]
                collected_then = batch[group, "action_log_prob"][copy, steps, agent]
                torch.testing.assert_close(again, collected_then)
                value = critic(own.copy())[group, "state_value"][0, :, agent]
                torch.testing.assert_close(value, batch[group, "value_before"][copy, steps, agent])


def test_by_turns_training_on_chunks_repeats_the_collection():
    components, batch = collected(**BY_TURNS)
    assert (batch["step_count"][:, 0] > 0).all(), "begins in the middle of an episode"
    for group, actor in components.learner.actors.items():
        for data in (batch, batch.reshape(-1, CHUNK)):
            active = data[group, "active"]
            assert (~active[:, 0]).any(), "a chunk begins while an agent waits"
            torch.testing.assert_close(
                log_prob(actor, data, group)[active], data[group, "action_log_prob"][active]
            )


@pytest.mark.parametrize("algorithm", ["HAPPO", "IPPO"])
def test_log_probs_over_the_batch_equal_those_of_the_rollout(algorithm):
    components, batch = collected(algorithm=algorithm)
    assert (batch["step_count"][:, 0] > 0).all(), "begins in the middle of an episode"
    for group, actor in components.learner.actors.items():
        again = log_prob(actor, batch, group)
        torch.testing.assert_close(again, batch[group, "action_log_prob"], rtol=1e-5, atol=1e-6)
        chunks = batch.reshape(-1, CHUNK)
        torch.testing.assert_close(
            log_prob(actor, chunks, group), chunks[group, "action_log_prob"], rtol=1e-5, atol=1e-6
        )
        assert (batch[group, "hidden"][batch["step_count"].squeeze(-1) > 0] != 0).any()


def test_an_unchanged_recurrent_policy_leaves_the_factor_at_exactly_one():
    components, batch = collected()
    algorithm = components.algorithm
    algorithm.reset_factor(batch)
    actor = components.learner.actors["archer"]
    batch.set(("archer", "log_prob_before"), log_prob(actor, batch, "archer"))
    algorithm.update_factor(batch, "archer")
    assert (algorithm.get_factor_for_agent("healer") == 1).all()


@pytest.mark.parametrize("algorithm", ["HAPPO", "MAPPO", "IPPO"])
def test_recurrent_actors_and_critics_learn(algorithm):
    components, batch = collected(algorithm=algorithm)
    policies = components.learner
    networks = [*policies.actors.values(), *policies.critics.values()]
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    components.algorithm.update(batch, 1)
    for network, old in zip(networks, before, strict=True):
        names = dict(network.named_parameters())
        for (name, new), previous in zip(names.items(), old, strict=True):
            assert (new != previous).any(), name


@pytest.mark.parametrize("algorithm", ["MAPPO", "IPPO"])
def test_a_recurrent_critic_carries_its_state_between_batches(algorithm):
    components, first = collected(algorithm=algorithm)
    config = make_config(
        environment__task=TOY,
        environment__kwargs={"length": 7},
        algorithm=algorithm,
        policy_type="gru",
        policy__gru={"hidden_size": 6, "chunk_length": CHUNK},
        collector__frames_per_batch=128,
        replay_buffer__minibatch_size=128,
    )
    whole = ComponentFactory(config).create()
    halves = [first, components.collector.collect().clone()]
    for name, value in whole.algorithm._values.items():
        value.network.load_state_dict(components.learner.critics[name].state_dict())
        value.norm = None
        components.algorithm._values[name].norm = None
        components.algorithm._values[name].memory = None
        both = torch.cat(halves, dim=1)
        value.memory = None
        value.estimate(both)
        parts = []
        for half in halves:
            components.algorithm._values[name].estimate(half)
            parts.append(half[value.key("value_before")])
        torch.testing.assert_close(torch.cat(parts, dim=1), both[value.key("value_before")])
        hidden = both[value.key("critic_hidden")]
        chunks = both.reshape(-1, CHUNK)
        again = value.network(chunks.copy())[value.key("state_value")]
        torch.testing.assert_close(again, chunks[value.key("value_before")])
        assert (hidden[:, 1:] != 0).any()


def test_only_some_groups_may_be_recurrent():
    components, batch = collected(
        policy_type="mlp", policy__groups={"healer": {"policy_type": "gru"}}
    )
    assert ("healer", "hidden") in batch.keys(True)
    assert ("archer", "hidden") not in batch.keys(True)
    components.algorithm.update(batch, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy__gru": {"chunk_length": 5}}, "divide the 32 steps that each of the 2"),
        (
            {"policy__gru": {"chunk_length": 16}, "replay_buffer__minibatch_size": 8},
            "divide replay_buffer.minibatch_size, which is 8",
        ),
    ],
)
def test_chunks_that_do_not_fit_are_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        make_config(policy_type="gru", **changes)
