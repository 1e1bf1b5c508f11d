"""The distributions of actors: masked categorical, and a normal squashed into a box."""

from __future__ import annotations

import math

import pytest
import torch
from engine_config import make_config
from random_batches import GroupShape, make_groups
from tensordict import TensorDict
from torch.distributions import Categorical

from heteromark.modules.distributions import MultiCategorical
from heteromark.modules.policy import PolicyFactory

ACTIONS = 5


def make_actor(kind, action_size, **overrides):
    torch.manual_seed(0)
    groups = make_groups([GroupShape(kind, agents=1, observation_size=2, action_size=action_size)])
    actor = PolicyFactory().create(make_config(**overrides), groups).actors["group0"].double()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return actor, groups["group0"].action_space


def masked_distribution(rows):
    """Return a distribution for random observations, with masks of one to all legal actions."""
    actor, _ = make_actor("masked", ACTIONS)
    mask = torch.arange(ACTIONS) <= torch.arange(rows)[:, None] % ACTIONS
    mask = mask.gather(-1, torch.rand(rows, ACTIONS).argsort(-1))
    seen = TensorDict(
        {
            "group0": {
                "observation": 5 * torch.randn(rows, 1, 2, dtype=torch.float64),
                "action_mask": mask.unsqueeze(1),
            }
        },
        [rows],
    )
    logits = actor.get_dist_params(seen.copy())["group0", "logits"].squeeze(1)
    return actor.get_dist(seen), mask, logits


def test_illegal_actions_have_probability_zero_and_are_never_drawn():
    distribution, mask, logits = masked_distribution(50)
    probabilities = distribution.probs.squeeze(1)
    assert (probabilities[~mask] == 0).all()
    for row, legal in enumerate(mask):
        expected = logits[row, legal].softmax(-1)
        torch.testing.assert_close(probabilities[row, legal], expected, rtol=1e-12, atol=0)
    illegal = torch.arange(ACTIONS).expand(50, ACTIONS)[~mask]
    rows = torch.arange(50).unsqueeze(1).expand(50, ACTIONS)[~mask]
    for action in range(ACTIONS):
        log_prob = distribution.log_prob(torch.full((50, 1), action)).squeeze(1)
        assert (log_prob[rows[illegal == action]] == -math.inf).all()
    drawn = distribution.sample((2000,)).squeeze(-1)  # 100,000 in all
    assert mask.expand(2000, 50, ACTIONS).gather(-1, drawn.unsqueeze(-1)).all()


def test_an_overwhelming_illegal_logit_is_never_drawn():
    actor, _ = make_actor("masked", 3)
    bias = [m for m in actor.modules() if isinstance(m, torch.nn.Linear)][-1].bias
    with torch.no_grad():
        bias.copy_(torch.tensor([500.0, -500.0, 0.0]))
    seen = TensorDict(
        {
            "group0": {
                "observation": torch.zeros(1, 1, 2, dtype=torch.float64),
                "action_mask": torch.tensor([[[False, True, False]]]),
            }
        },
        [1],
    )
    distribution = actor.get_dist(seen)
    assert (distribution.probs == torch.tensor([0.0, 1.0, 0.0])).all()
    assert (distribution.sample((1000,)) == 1).all()
    assert (distribution.log_prob(torch.tensor([[1]])) == 0).all()
    assert (distribution.entropy() == 0).all()


def test_the_entropy_is_that_of_the_legal_actions():
    distribution, mask, logits = masked_distribution(50)
    entropy = distribution.entropy().squeeze(1)
    for row, legal in enumerate(mask):
        expected = torch.distributions.Categorical(logits=logits[row, legal]).entropy()
        torch.testing.assert_close(entropy[row], expected, rtol=1e-12, atol=1e-15)
        if legal.sum() == 1:
            assert entropy[row] == 0
    assert {1, ACTIONS} <= set(mask.sum(-1).tolist())


@torch.no_grad()
def box_distribution(rows, action_size, **overrides):
    actor, space = make_actor("continuous", action_size, **overrides)
    observation = torch.randn(rows, 1, 2, dtype=torch.float64)
    distribution = actor.get_dist(TensorDict({"group0": {"observation": observation}}, [rows]))
    low, high = (torch.from_numpy(bound).double() for bound in (space.low, space.high))
    return distribution, low, high


def inside(low, high, points):
    """Return points of a box, evenly spaced before the tanh, and the volume of each."""
    before_tanh = torch.linspace(-16, 16, points, dtype=torch.float64)
    step = float(before_tanh[1] - before_tanh[0])
    unit = before_tanh.tanh()
    action = low + (high - low) * (unit + 1) / 2
    return action, step * (1 - unit**2) * (high - low) / 2


GAUSSIANS = [
    {"std": "shared", "initial_std": 1.0},
    {"std": "by_observation", "initial_std": 0.5},
    {"std": "shared", "initial_std": 0.3655, "max_std": 0.5},
]


@pytest.mark.parametrize("gaussian", GAUSSIANS)
def test_the_density_of_an_action_integrates_to_one(gaussian):
    distribution, low, high = box_distribution(4, 1, policy__gaussian=gaussian)
    action, volume = inside(low, high, 4001)
    density = distribution.log_prob(action.reshape(-1, 1, 1, 1)).exp().squeeze(-1)
    total = (density * volume.unsqueeze(-1)).sum(0)
    torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("aggregation", ["prod", "mean"])
def test_the_density_of_two_dimensions_integrates_to_one(aggregation):
    """The separate log-densities of the dimensions add up to the joint one."""
    distribution, low, high = box_distribution(1, 2, loss__action_aggregation=aggregation)
    first, first_volume = inside(low[0], high[0], 301)
    second, second_volume = inside(low[1], high[1], 301)
    log_prob = distribution.log_prob(torch.cartesian_prod(first, second).reshape(-1, 1, 1, 2))
    if aggregation == "mean":
        log_prob = log_prob.sum(-1)
    volume = torch.outer(first_volume, second_volume).flatten()
    assert float(log_prob.exp().flatten() @ volume) == pytest.approx(1, rel=1e-6)


def test_log_densities_are_finite_at_the_bounds_and_have_finite_gradients():
    actor, space = make_actor("continuous", 3)
    actor.float()
    seen = TensorDict({"group0": {"observation": torch.randn(6, 1, 2)}}, [6])
    distribution = actor.get_dist(seen)
    for bound in (space.low, space.high):
        log_prob = distribution.log_prob(torch.from_numpy(bound).expand(6, 1, 3))
        assert log_prob.isfinite().all()
        actor.zero_grad()
        log_prob.sum().backward(retain_graph=True)
        assert all(parameter.grad.isfinite().all() for parameter in actor.parameters())


@pytest.mark.parametrize("bounds", ["tanh", "clip"])
@pytest.mark.parametrize("std", ["shared", "by_observation"])
def test_a_saturated_action_keeps_its_recorded_log_density(std, bounds):
    """Otherwise the ratio of an unchanged policy would not be 1."""
    gaussian = {"std": std, "bounds": bounds, "initial_std": 1.0}
    actor, space = make_actor("continuous", 2, policy__gaussian=gaussian)
    actor.float()
    head = [m for m in actor.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.bias[:2] = torch.tensor([12.0, -12.0])
    seen = TensorDict({"group0": {"observation": torch.randn(200, 1, 2)}}, [200])
    acted = actor(seen.copy())
    action, recorded = acted["group0", "action"], acted["group0", "action_log_prob"]
    within = (action >= torch.from_numpy(space.low)) & (action <= torch.from_numpy(space.high))
    assert within.all() if bounds == "tanh" else not within.any()  # the environment clips them
    torch.testing.assert_close(actor.get_dist(seen).log_prob(action), recorded, rtol=0, atol=0)


@pytest.mark.parametrize("bounds", ["tanh", "clip"])
@pytest.mark.parametrize("gaussian", GAUSSIANS)
def test_the_first_policy_has_the_initial_deviation_in_units_of_the_box(gaussian, bounds):
    groups = make_groups([GroupShape("continuous", agents=1, observation_size=2, action_size=3)])
    config = make_config(policy__gaussian={**gaussian, "bounds": bounds}, policy__output_gain=1e-9)
    actor = PolicyFactory().create(config, groups).actors["group0"]
    space = groups["group0"].action_space
    seen = TensorDict({"group0": {"observation": torch.randn(6, 1, 2)}}, [6])
    distribution = actor.get_dist(seen)
    width = torch.from_numpy(space.high - space.low) / 2
    middle = torch.from_numpy(space.high + space.low) / 2
    unit = torch.ones(6, 1, 3)
    scale, centre = (unit, 0 * unit) if bounds == "tanh" else (width * unit, middle * unit)
    normal = distribution.base_dist if bounds == "clip" else distribution
    torch.testing.assert_close(normal.scale, gaussian["initial_std"] * scale)
    torch.testing.assert_close(normal.loc, centre)
    torch.testing.assert_close(distribution.deterministic_sample, middle * unit)


def test_the_deviation_stays_below_its_limit():
    gaussian = {"initial_std": 0.4, "max_std": 0.5}
    actor, _ = make_actor("continuous", 2, policy__gaussian=gaussian)
    raw = dict(actor.named_parameters())
    [parameter] = [value for key, value in raw.items() if key.endswith("raw_std")]
    seen = TensorDict({"group0": {"observation": torch.randn(1, 1, 2).double()}}, [1])
    for shift, expected in ((50.0, 0.5), (-50.0, 1e-4)):
        with torch.no_grad():
            parameter.fill_(shift)
        assert actor.get_dist(seen).scale.flatten().tolist() == pytest.approx([expected] * 2)
    with pytest.raises(ValueError, match=r"must be below max_std, which is 0\.3"):
        make_config(policy__gaussian={"initial_std": 0.3, "max_std": 0.3})


@pytest.mark.parametrize("event_dims", [0, 1])
def test_combined_choices_are_independent(event_dims):
    torch.manual_seed(0)
    logits, choices = torch.randn(5, 2, 9), (2, 4, 3)
    together = MultiCategorical(logits, choices, event_dims)
    alone = [Categorical(logits=part) for part in logits.split(choices, -1)]
    action = together.sample((500,))
    assert action.shape == (500, 5, 2, 3)
    parts = [each.log_prob(action[..., d]) for d, each in enumerate(alone)]
    expected = torch.stack(parts, -1)
    entropy = torch.stack([each.entropy() for each in alone], -1)
    if event_dims:
        expected, entropy = expected.sum(-1), entropy.sum(-1)
    torch.testing.assert_close(together.log_prob(action), expected)
    torch.testing.assert_close(together.entropy(), entropy)
    modes = torch.stack([each.probs.argmax(-1) for each in alone], -1)
    assert torch.equal(together.mode, modes)
    for d, size in enumerate(choices):
        assert set(action[..., d].flatten().tolist()) == set(range(size))
