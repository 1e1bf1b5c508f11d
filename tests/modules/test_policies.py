"""Actors and critics: who sees what, and which actions are possible."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.networks import make_mlp
from heteromark.modules.policy import PolicyFactory

TOY = "toy_environments:ToyBattle"
SPREAD = "mpe2.simple_spread_v3:parallel_env"


def build(**overrides):
    """Policies, and what the agents see after a reset."""
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


@pytest.mark.parametrize("shared", [True, False])
def test_agents_share_weights_or_not(shared):
    policies, seen = build(environment__task=SPREAD, policy__share_policy_params=shared)
    same = seen.clone()
    same["agent", "observation"] = seen["agent", "observation"][:, :1].expand(-1, 3, -1).clone()
    logits = policies.actors["agent"].get_dist(same).logits
    assert torch.allclose(logits[:, 0], logits[:, 1]) == shared


def test_groups_may_differ_in_their_networks():
    policies, _ = build(policy__groups={"listener": {"hidden_sizes": [5, 6], "activation": "relu"}})
    widths = {
        group: [m.out_features for m in actor.modules() if isinstance(m, torch.nn.Linear)]
        for group, actor in policies.actors.items()
    }
    assert widths == {"speaker": [8, 3], "listener": [5, 6, 5]}


def test_an_override_of_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match=r"names talker, .* its groups are speaker, listener"):
        build(policy__groups={"talker": {"activation": "relu"}})


def test_the_team_critic_sees_everybody_who_is_there():
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


def test_an_own_critic_sees_its_agent_only():
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


def test_layers_are_orthogonal_and_the_policy_starts_near_uniform():
    torch.manual_seed(0)
    network = make_mlp(6, 4, [8], "tanh", head_gain=0.01)
    hidden = network[0].weight
    torch.testing.assert_close(hidden.T @ hidden, 2 * torch.eye(6))
    assert network(torch.randn(100, 6)).abs().max() < 0.1
    per_agent = make_mlp(6, 4, [8], "tanh", head_gain=0.01, n_agents=3)
    for weight in per_agent[0].weight:
        torch.testing.assert_close(weight.T @ weight, 2 * torch.eye(6))
    inputs = torch.randn(2, 3, 6)
    by_hand = torch.stack(
        [inputs[:, k] @ per_agent[0].weight[k].T + per_agent[0].bias[k] for k in range(3)], 1
    )
    torch.testing.assert_close(per_agent[0](inputs), by_hand)


def test_actors_write_what_the_losses_read():
    policies, seen = build()
    for actor in policies.actors.values():
        seen = actor(seen)
    assert isinstance(seen, TensorDict)
    for group in ("speaker", "listener"):
        assert seen[group, "action"].shape == seen[group, "action_log_prob"].shape == (2, 1)
