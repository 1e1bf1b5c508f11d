"""Networks and losses on plain tensors give the numbers of the modules that they are made of."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config
from random_batches import GroupShape, make_algorithm, make_groups, random_batch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.algorithm import base
from heteromark.modules.plain import PlainActor, PlainNetwork, PlainPolicy, plain_loss

SHAPES = {
    "discrete": [GroupShape("discrete"), GroupShape("masked", agents=3)],
    "continuous": [GroupShape("continuous"), GroupShape("discrete")],
}
VARIANTS = {
    "plain": {},
    "clipped in the environment": {"policy__gaussian": {"bounds": "clip"}},
    "by observation": {"policy__gaussian": {"std": "by_observation"}},
    "no entropy bonus": {"loss__entropy_coef": 0.0},
    "l2": {"loss__critic_loss": "l2", "loss__clip_value": False},
    "all steps": {"loss__use_policy_active_masks": False},
    "observation norm": {"policy__observation_norm": True, "policy__layer_norm": True},
    "recurrent": {"policy_type": "gru"},
}


def make(algorithm, shapes, **overrides):
    config = make_config(
        algorithm=algorithm,
        policy__gru={"hidden_size": 4, "chunk_length": 4},
        policy__hidden_sizes=[4],
        collector__frames_per_batch=48,
        replay_buffer__minibatch_size=16,
        optimizer__learning_rate=0.01,
        **overrides,
    )
    return make_algorithm(config, make_groups(SHAPES[shapes]), dtype=torch.float64)


def updated(monkeypatch, is_plain, *arguments, **overrides):
    """Return metrics and weights after two updates in double precision.

    In single precision, two ways to round a gradient near zero lead Adam to different steps.
    """
    with monkeypatch.context() as patch:
        used = []

        def chosen(loss, network):
            plain = plain_loss(loss, network)
            used.append(plain is not None)
            return plain if is_plain else None

        patch.setattr(base, "plain_loss", chosen)
        algorithm = make(*arguments, **overrides)
        metrics = []
        for iteration in range(2):
            batch = random_batch(algorithm, seed=iteration)
            torch.manual_seed(7)
            metrics.append(algorithm.update(batch, iteration))
        assert all(used)
    learner = algorithm.learner
    networks = (*learner.actors.values(), *learner.critics.values())
    return metrics, [weight for network in networks for weight in network.parameters()]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("algorithm", ["HAPPO", "HAA2C", "MAPPO", "IPPO", "MaskablePPO"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_are_those_of_the_loss_modules(monkeypatch, variant, algorithm, shapes):
    ways = [
        updated(monkeypatch, is_plain, algorithm, shapes, **VARIANTS[variant])
        for is_plain in (True, False)
    ]
    for name, number in ways[0][0][1].items():
        assert number == pytest.approx(ways[1][0][1][name], abs=1e-9, nan_ok=True), name
    for one, other in zip(ways[0][1], ways[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("policy_type", ["mlp", "gru"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_actions_are_those_of_the_actors(shapes, policy_type):
    algorithm = make("HAPPO", shapes, policy_type=policy_type)
    actors = algorithm.learner.actors
    policy = PlainPolicy(actors, [PlainActor.of(actor) for actor in actors.values()])
    batch = random_batch(algorithm, seed=3)[:, 0]
    acted = []
    for module in (policy, TensorDictSequential(*actors.values())):
        torch.manual_seed(5)
        with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
            acted.append(module(batch.copy()))
    assert all(key in [*acted[0].keys(True, True)] for key in policy.out_keys)
    for key in policy.out_keys:
        torch.testing.assert_close(acted[0][key], acted[1][key], rtol=1e-9, atol=1e-9)


def test_other_modules_have_no_plain_form():
    class Mine(TensorDictModule):
        def forward(self, batch):
            return batch

    mine = Mine(nn.Linear(2, 2), ["in"], ["out"])
    theirs = TensorDictModule(nn.Linear(2, 2), ["out"], ["end"])
    assert PlainNetwork.of(TensorDictSequential(mine, theirs)) is None
    assert PlainNetwork.of(TensorDictSequential(theirs)) is not None
    assert PlainActor.of(theirs) is None
    loss = make("HAPPO", "discrete").learner.losses.actors["group0"]
    own = type("OwnLoss", (type(loss),), {})
    loss.__class__ = own
    assert plain_loss(loss, make("HAPPO", "discrete").learner.actors["group0"]) is None
