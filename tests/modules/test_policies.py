"""Actors and critics: their inputs, and which actions are possible."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.networks import Layers, make_mlp
from heteromark.modules.policy import PolicyFactory

TOY = "toy_environments:ToyBattle"
SPREAD = "mpe2.simple_spread_v3:parallel_env"


def build(**overrides):
    """Return policies, and the observations after a reset."""
    config = make_config(**overrides)
    environment = EnvironmentFactory().create(config)
    environment.reseed(0)
    torch.manual_seed(0)
    return PolicyFactory().create(config, environment.groups), environment.reset()


def test_a_masked_action_has_probability_zero():
    policies, seen = build(environment__task=TOY)
    for group, actor in policies.actors.items():
        distribution = actor.get_dist(seen)
        illegal = ~seen[group, "action_mask"]
        assert illegal.any()
        assert (distribution.probs[illegal] == 0).all()
        samples = distribution.sample((500,))
        assert illegal.expand(500, *illegal.shape).gather(-1, samples[..., None]).sum() == 0
        assert distribution.entropy().isfinite().all()
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            action = actor(seen.clone())[group, "action"]
        assert (action == distribution.probs.argmax(-1)).all()


def test_continuous_actions_stay_in_their_box():
    policies, seen = build(
        environment__task=SPREAD, environment__kwargs={"continuous_actions": True}
    )
    acted = policies.actors["agent"](seen)
    action = acted["agent", "action"]
    assert action.shape == (2, 3, 5)
    assert action.min() >= 0
    assert action.max() <= 1
    assert acted["agent", "action_log_prob"].shape == (2, 3)


def test_agents_of_a_group_share_weights():
    policies, seen = build(environment__task=SPREAD)
    logits = policies.actors["agent"].get_dist(seen.copy()).logits
    order = [2, 0, 1]
    permuted = seen.clone()
    permuted["agent", "observation"] = seen["agent", "observation"][:, order]
    after = policies.actors["agent"].get_dist(permuted).logits
    torch.testing.assert_close(after, logits[:, order])


def test_agents_of_a_split_group_do_not_share_weights():
    policies, seen = build(environment__task=SPREAD, policy__share_policy_params=False)
    assert set(policies.actors) == {"agent_0", "agent_1", "agent_2"}
    same = seen.clone()
    same["agent_1", "observation"] = seen["agent_0", "observation"]
    first, second = (policies.actors[a].get_dist(same).logits for a in ("agent_0", "agent_1"))
    assert not torch.allclose(first, second)


def test_groups_may_have_different_networks():
    policies, _ = build(policy__groups={"listener": {"hidden_sizes": [5, 6], "activation": "relu"}})
    widths = {
        group: [m.out_features for m in actor.modules() if isinstance(m, torch.nn.Linear)]
        for group, actor in policies.actors.items()
    }
    assert widths == {"speaker": [8, 3], "listener": [5, 6, 5]}


def test_the_team_critic_sees_all_active_agents():
    policies, seen = build(environment__task=TOY)
    critic = policies.critics["team"]
    value = critic(seen.clone())["state_value"]
    assert value.shape == (2, 1)
    for group in ("archer", "healer"):
        changed = seen.clone()
        changed[group, "observation"] += 1
        assert (critic(changed)["state_value"] != value).all()
    changed = seen.clone()
    changed["archer", "active"][:, 1] = False
    without = critic(changed.clone())["state_value"]
    changed["archer", "observation"][:, 1] = torch.nan
    assert (critic(changed)["state_value"] == without).all()


def test_there_may_be_one_centralised_critic_per_group():
    policies, seen = build(environment__task=TOY, algorithm="MAPPO", policy__critic="group")
    values = {}
    for group, critic in policies.critics.items():
        values[group] = critic(seen.clone())[group, "state_value"]
        assert values[group].shape == (2, 1)
        for other in ("archer", "healer"):
            changed = seen.clone()
            changed[other, "observation"] += 1
            assert (critic(changed)[group, "state_value"] != values[group]).all()
    assert (values["archer"] != values["healer"]).all()


def test_a_critic_of_the_state_sees_nothing_else():
    config = make_config(environment__task=TOY)
    groups = EnvironmentFactory().create(config).groups
    critic = PolicyFactory().create(config, groups, state_size=7).critics["team"]
    assert critic.in_keys == ["state"]
    state = TensorDict({"state": torch.randn(5, 7)}, [5])
    assert critic(state)["state_value"].shape == (5, 1)
    together = make_config(environment__task=TOY, policy__critic_input="observations")
    critic = PolicyFactory().create(together, groups, state_size=7).critics["team"]
    assert "state" not in critic.in_keys
    with pytest.raises(ValueError, match=r"environment\.state is false; set env"):
        make_config(environment__task=TOY, policy__critic_input="state")
    wrong = make_config(environment__task=TOY, policy__critic_input="state", env_type="custom")
    with pytest.raises(ValueError, match=r"critic_input is state, but environment 'test' provides"):
        PolicyFactory().create(wrong, groups)


def test_an_own_critic_sees_only_its_agent():
    policies, seen = build(environment__task=TOY, algorithm="IPPO")
    critic = policies.critics["archer"]
    value = critic(seen.clone())["archer", "state_value"]
    assert value.shape == (2, 2, 1)
    changed = seen.clone()
    changed["healer", "observation"] += 1
    changed["archer", "observation"][:, 1] += 1
    after = critic(changed)["archer", "state_value"]
    assert (after[:, 0] == value[:, 0]).all()
    assert (after[:, 1] != value[:, 1]).all()


def test_layers_are_orthogonal_and_the_initial_policy_is_nearly_uniform():
    torch.manual_seed(0)
    network = make_mlp(Layers(6, 4, [8], head_gain=0.01))
    hidden = network[0].weight
    torch.testing.assert_close(hidden.T @ hidden, 2 * torch.eye(6))
    assert network(torch.randn(100, 6)).abs().max() < 0.1


def test_actors_write_the_keys_that_losses_read():
    policies, seen = build()
    for actor in policies.actors.values():
        seen = actor(seen)
    assert isinstance(seen, TensorDict)
    for group in ("speaker", "listener"):
        assert seen[group, "action"].shape == seen[group, "action_log_prob"].shape == (2, 1)
