"""The recorded data of absent agents (dead or waiting) does not affect an update."""

from __future__ import annotations

import math

import pytest
import torch
from engine_config import make_config
from random_batches import GroupShape, make_algorithm, make_groups, random_batch

SHAPES = (
    GroupShape("masked", agents=2),
    GroupShape("continuous", agents=2),
    GroupShape("discrete", agents=1),
)


def make(algorithm, policy_type, *, turn_based=False, **overrides):
    config = make_config(
        algorithm=algorithm,
        policy_type=policy_type,
        policy__gru={"hidden_size": 4, "chunk_length": 4},
        policy__hidden_sizes=[4],
        collector__frames_per_batch=16,
        optimizer__learning_rate=0.01,
        **{"replay_buffer__minibatch_size": 8, **overrides},
    )
    return make_algorithm(config, make_groups(SHAPES), turn_based=turn_based)


def add_garbage(batch, algorithm):
    """Replace the recorded data of absent agents by garbage."""
    learner = algorithm.learner
    for name, group in learner.groups.items():
        absent, gone = ~batch[name, "active"], ~batch["next", name, "active"]
        assert absent.any()
        assert gone.any()
        agents, after = batch[name], batch["next", name]
        numbers = (math.nan, math.inf, -1e30, 1e3)
        fill(agents["observation"], absent, numbers)
        fill(after["observation"], gone, numbers)
        fill(agents["action_log_prob"], absent, numbers)
        fill(agents["action"], absent, (-1, 2, 10**6) if group.is_discrete else numbers)
        if group.masked:
            fill(agents["action_mask"], absent, (False,))
        if learner.turn_based:
            continue  # a waiting agent keeps its hidden state and receives rewards
        if agents.get("hidden", None) is not None:
            fill(agents["hidden"], absent, numbers)
        if algorithm.config.environment.reward == "individual":
            fill(after["reward"], absent, (1e3,))


def fill(entry, absent, numbers):
    chosen = torch.tensor(numbers, dtype=entry.dtype)[torch.randint(len(numbers), entry.shape)]
    entry[absent] = chosen[absent]


def updated(algorithm, batch):
    """Update, and return metrics, weights, gradients and value norms by name."""
    torch.manual_seed(1)
    found = dict(algorithm.update(batch, 0))
    learner = algorithm.learner
    for kind in ("actors", "critics"):
        for name, network in getattr(learner, kind).items():
            for weight, parameter in network.named_parameters():
                found[f"{kind} {name} {weight}"] = parameter.detach()
                found[f"{kind} {name} gradient of {weight}"] = parameter.grad
    for name, norm in learner.value_norms.items():
        found |= {f"norm {name} {key}": value for key, value in norm.state_dict().items()}
    return found


@pytest.mark.mostly_slow(6)
@pytest.mark.parametrize("policy_type", ["mlp", "gru"])
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("HAPPO", {}),
        ("HAPPO", {"policy__critic": "group", "loss__action_aggregation": "mean"}),
        ("MAPPO", {}),
        ("IPPO", {}),
        ("IPPO", {"environment__reward": "individual"}),
        ("MaskablePPO", {"environment__reward": "individual", "turn_based": True}),
    ],
    ids=["HAPPO", "HAPPO mean", "MAPPO", "IPPO team", "IPPO", "MaskablePPO by turns"],
)
def test_data_of_absent_agents_does_not_affect_an_update(algorithm, options, policy_type):
    results = []
    for is_garbled in (False, True):
        made = make(algorithm, policy_type, **options)
        batch = random_batch(made, seed=5)
        if is_garbled:
            add_garbage(batch, made)
        results.append(updated(made, batch))
    clean, garbled = results
    assert clean.keys() == garbled.keys()
    for name, value in clean.items():
        torch.testing.assert_close(
            torch.as_tensor(garbled[name]),
            torch.as_tensor(value),
            rtol=0,
            atol=0,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize(("algorithm", "reward"), [("HAPPO", "team"), ("IPPO", "individual")])
def test_minibatches_without_active_agents_are_skipped(algorithm, reward):
    """If agents act in one frame only, minibatches of 1 and of all frames give the same update."""
    results = []
    for minibatch_size in (1, 16):
        made = make(
            algorithm,
            "mlp",
            environment__reward=reward,
            loss__normalize_advantage=False,  # normalising a single step gives zero
            loss__entropy_coef=0.0,
            training__num_epochs=1,
            replay_buffer__minibatch_size=minibatch_size,
        )
        before = [p.detach().clone() for p in made.learner.actors["group0"].parameters()]
        batch = random_batch(made, seed=5)
        for name in made.learner.groups:
            batch[name, "active"][:] = False
            batch[name, "active"][1, 3] = True
            batch["next", name, "active"][:] = False
        updated(made, batch)
        results.append(list(made.learner.actors["group0"].parameters()))
    for initial, alone, together in zip(before, *results, strict=True):
        assert (initial != alone).any()
        torch.testing.assert_close(alone, together)
