"""The factories: what they reject and what they create."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config
from tensordict import TensorDict
from tensordict.nn import TensorDictModule

from heteromark.config.errors import ConfigError
from heteromark.import_paths import Registry, import_path
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.loss import LossFactory
from heteromark.modules.optimizer import OptimizerFactory, learning_rate_share
from heteromark.modules.policy import PolicyFactory
from heteromark.modules.replay_buffer import ReplayBufferFactory


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("mpe2.simple_spread_v3", ValueError, "must be an import path `module:callable`"),
        (
            "no_such_module:parallel_env",
            ModuleNotFoundError,
            "module 'no_such_module' was not found",
        ),
        ("mpe2.simple_spread_v3:no_such_env", ValueError, "no callable 'no_such_env'"),
    ],
)
def test_a_task_that_cannot_be_imported_is_explained(task, error, message):
    with pytest.raises(error, match=rf"environment.task is '{task}'.*{message}"):
        import_path(task, "environment.task")


def test_a_registry_lists_its_names():
    registry = Registry("env_type")
    registry.register("one")(len)
    registry.register("two")(max)
    assert registry["one"] is len
    with pytest.raises(ValueError, match="env_type is 'three', but must be one of one, two"):
        registry["three"]
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("one")(min)


def test_the_environment_has_the_requested_number_of_copies():
    config = make_config(environment__num_parallel_envs=4)
    assert EnvironmentFactory().create(config).batch_size == (4,)
    assert EnvironmentFactory().create(config, num_envs=1).batch_size == (1,)


def test_losses_and_optimizers_are_created_per_group():
    config = make_config()
    groups = EnvironmentFactory().create(config).groups
    policies = PolicyFactory().create(config, groups)
    losses = LossFactory().create(config, policies, groups)
    optimizers = OptimizerFactory().create_for_actors(config, policies.actors, groups)
    assert set(losses.actors) == set(optimizers) == {"speaker", "listener"}
    assert set(losses.critics) == {"team"}
    for group, optimizer in optimizers.items():
        held = {id(p) for p in optimizer.param_groups[0]["params"]}
        assert held == {id(p) for p in policies.actors[group].parameters()}
        assert held == {id(p) for p in losses.actors[group].parameters()}


def test_the_learning_rate_falls_to_zero_over_the_run():
    constant = make_config().scheduler
    falling = make_config(scheduler__decay="linear").scheduler
    assert [learning_rate_share(constant, i, 4) for i in range(4)] == [1.0] * 4
    shares = [learning_rate_share(falling, i, 4) for i in range(5)]
    assert shares == [1.0, 0.75, 0.5, 0.25, 0.0]
    cosine = make_config(scheduler={"decay": "cosine", "warmup_ratio": 0.5}).scheduler
    shares = [learning_rate_share(cosine, i, 8) for i in range(9)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.8535534, 0.5, 0.1464466, 0.0])


OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_use_their_settings_and_group_overrides(kind):
    config = make_config(
        optimizer_type=kind,
        optimizer__learning_rate=0.1,
        optimizer__critic_learning_rate=0.01,
        optimizer__weight_decay=0.25,
        optimizer__momentum=0.5,
        optimizer__nesterov=True,
        optimizer__eps=0.125,
        optimizer__groups={"listener": {"learning_rate": 0.2}},
    )
    groups = EnvironmentFactory().create(config).groups
    policies = PolicyFactory().create(config, groups)
    factory = OptimizerFactory()
    optimizers = factory.create_for_actors(config, policies.actors, groups)
    optimizers |= factory.create_for_critics(config, policies.critics)
    rates = {name: o.param_groups[0]["initial_lr"] for name, o in optimizers.items()}
    assert rates == {"speaker": 0.1, "listener": 0.2, "team": 0.01}
    for optimizer in optimizers.values():
        assert type(optimizer) is OPTIMIZERS[kind]
        settings = optimizer.param_groups[0]
        assert settings["weight_decay"] == 0.25
        assert settings.get("eps", 0.125) == 0.125
        assert settings.get("momentum", 0.5) == 0.5
        assert settings.get("nesterov", True) is True


def test_losses_use_the_overrides_of_their_group():
    config = make_config(loss__groups={"listener": {"clip_epsilon": 0.05, "entropy_coef": 0.5}})
    groups = EnvironmentFactory().create(config).groups
    policies = PolicyFactory().create(config, groups)
    actors = LossFactory().create(config, policies, groups).actors
    clips = {name: float(loss.clip_epsilon) for name, loss in actors.items()}
    assert clips == pytest.approx({"speaker": 0.2, "listener": 0.05})
    entropies = {name: float(loss.entropy_coeff) for name, loss in actors.items()}
    assert entropies == pytest.approx({"speaker": 0.01, "listener": 0.5})


def test_all_overrides_of_unknown_groups_are_reported_together():
    config = make_config(
        policy__groups={"listner": {"hidden_sizes": [9]}, "speaker": {}},
        loss__groups={"medic": {"clip_epsilon": 0.1}},
        optimizer__groups={"medic": {"learning_rate": 0.2}},
    )
    groups = EnvironmentFactory().create(config).groups
    with pytest.raises(ConfigError) as caught:
        PolicyFactory().create(config, groups)
    remedy = "Its groups are speaker, listener; use one of these, or remove"
    assert [str(fault) for fault in caught.value.faults] == [
        "ValueError: config: policy.groups.listner = {'hidden_sizes': [9]}: environment 'test' has "
        f"no such group. Did you mean listener? {remedy} listner",
        "ValueError: config: loss.groups.medic = {'clip_epsilon': 0.1}: environment 'test' has no "
        f"such group. {remedy} medic",
        "ValueError: config: optimizer.groups.medic = {'learning_rate': 0.2}: environment 'test' "
        f"has no such group. {remedy} medic",
    ]


@pytest.mark.parametrize("kind", ["tensor", "memmap"])
def test_a_pass_over_the_buffer_returns_every_frame_once(kind):
    config = make_config(replay_buffer__minibatch_size=16, buffer_type=kind)
    device = torch.device("cpu")
    networks = {"speaker": TensorDictModule(torch.nn.Identity(), ["x"], ["y"])}
    (buffer,) = ReplayBufferFactory().create(config, networks, device).values()
    for _ in range(2):
        buffer.empty()
        buffer.extend(TensorDict({"x": torch.arange(64)}, [64]))
        for _ in range(2):
            minibatches = list(buffer)
            assert [len(m) for m in minibatches] == [16, 16, 16, 16]
            seen = torch.cat([minibatch["x"] for minibatch in minibatches])
            assert sorted(seen.tolist()) == list(range(64))
