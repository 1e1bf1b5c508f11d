"""The factories: what they refuse, and what they build."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config

from heteromark.modules.environment import EnvironmentFactory, import_task
from heteromark.modules.loss import LossFactory
from heteromark.modules.optimizer import OptimizerFactory, learning_rate_at
from heteromark.modules.policy import PolicyFactory
from heteromark.modules.registry import Registry
from heteromark.modules.replay_buffer import ReplayBufferFactory


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("mpe2.simple_spread_v3", ValueError, "must be an import path `module:callable`"),
        ("no_such_module:parallel_env", ModuleNotFoundError, "no module 'no_such_module'"),
        ("mpe2.simple_spread_v3:no_such_env", ValueError, "no callable 'no_such_env'"),
    ],
)
def test_a_task_that_cannot_be_imported_is_explained(task, error, message):
    with pytest.raises(error, match=rf"environment.task is '{task}'.*{message}"):
        import_task(task)


def test_a_registry_lists_what_there_is():
    registry = Registry("env_type")
    registry.register("one")(len)
    registry.register("two")(max)
    assert registry["one"] is len
    with pytest.raises(ValueError, match="env_type is 'three'; there is one, two"):
        registry["three"]
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("one")(min)


def test_the_environment_has_as_many_copies_as_asked_for():
    config = make_config(environment__num_parallel_envs=4)
    assert EnvironmentFactory().create(config).batch_size == (4,)
    assert EnvironmentFactory().create(config, num_envs=1).batch_size == (1,)


def test_losses_and_optimizers_are_by_group():
    config = make_config()
    groups = EnvironmentFactory().create(config).groups
    policies = PolicyFactory().create(config, groups)
    losses = LossFactory().create(config, policies)
    optimizers = OptimizerFactory().create(config, policies.actors)
    assert set(losses.actors) == set(optimizers) == {"speaker", "listener"}
    assert set(losses.critics) == {"team"}
    for group, optimizer in optimizers.items():
        held = {id(p) for p in optimizer.param_groups[0]["params"]}
        assert held == {id(p) for p in policies.actors[group].parameters()}
        assert held == {id(p) for p in losses.actors[group].parameters()}


def test_the_learning_rate_falls_to_zero_over_the_run():
    constant = make_config(optimizer__learning_rate=0.1).optimizer
    falling = make_config(optimizer__learning_rate=0.1, optimizer__decay="linear").optimizer
    assert [learning_rate_at(constant, i, 4) for i in range(4)] == [0.1] * 4
    rates = [learning_rate_at(falling, i, 4) for i in range(5)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0])


def test_a_pass_over_the_buffer_shows_every_frame_once():
    config = make_config(replay_buffer__minibatch_size=16)
    device = torch.device("cpu")
    (buffer,) = ReplayBufferFactory().create(config, ["speaker"], device).values()
    for _ in range(2):
        buffer.empty()
        buffer.extend(torch.arange(64))
        for _ in range(2):
            minibatches = list(buffer)
            assert [len(m) for m in minibatches] == [16, 16, 16, 16]
            assert sorted(torch.cat(minibatches).tolist()) == list(range(64))
