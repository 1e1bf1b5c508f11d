"""The fast simulator agrees with the slow reference, step by step."""

from __future__ import annotations

import pytest
import torch
from reference import skirmish as slow

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.opponents import pick_offered
from heteromark.environment.skirmish.scenarios import SCENARIOS


def start(scenario_name, seed, dtype=torch.float64, **settings):
    """Return a fast battle after its reset, its view, and its slow twin."""
    config = SkirmishConfig(scenario=scenario_name, **settings)
    fast = Battles(config, 1, dtype=dtype)
    fast.reseed([seed])
    view = fast.reset()
    return fast, view, twin_of(fast)


def twin_of(fast):
    scenario, config = fast.scenario, fast.config
    types = scenario.unit_types(config.rules)
    units, kinds = fast.moment.units, fast.episode.roster.kind
    return slow.Battle(
        units=[
            slow.Unit(
                type=types[int(kinds[k, 0])],
                number=k,
                side=int(k >= scenario.n_agents),
                x=float(units.x[k, 0]),
                y=float(units.y[k, 0]),
            )
            for k in range(scenario.n_units)
        ],
        type_names=scenario.types,
        key=int(fast.episode.key[0]),
        episode_limit=scenario.episode_limit,
        has_bits=scenario.type_bits > 0,
        config=config,
        has_shields=any(unit.shield for unit in types),
    )


def adopt(fast, twin):
    """Copy the fast battle's numbers to the slow one, so that rounding errors do not add up."""
    units = fast.moment.units
    for unit in twin.units:
        for name in ("x", "y", "health", "shield", "energy", "cooldown"):
            setattr(unit, name, float(getattr(units, name)[unit.number, 0]))


def compare(fast, view, twin, atol):
    units = fast.moment.units
    for name in ("x", "y", "health", "shield", "energy", "cooldown"):
        assert_close(getattr(units, name)[:, 0], [getattr(u, name) for u in twin.units], atol, name)
    assert units.alive[:, 0].tolist() == [unit.alive for unit in twin.units]
    assert view.offered[0].int().tolist() == [twin.offered(unit) for unit in twin.allies]
    seen = [twin.observation(unit) for unit in twin.allies]
    assert_close(view.observation[0], seen, atol, "observation")
    assert_close(view.state[0], twin.state(), atol, "state")


def assert_close(fast, slow, atol, name):
    expected = torch.tensor(slow, dtype=torch.float64)
    torch.testing.assert_close(
        fast.double(), expected, atol=atol, rtol=0, msg=lambda text: f"{name}: {text}"
    )


def play(fast, view, twin, generator, steps, atol, follow=False):
    """Play random legal actions, mostly attacks, to the episode's end; return the steps."""
    compare(fast, view, twin, atol)
    for step in range(steps):
        offered = fast.moment.options.offered
        fights = offered.clone()
        if torch.rand(1, generator=generator) < 0.6:
            first = fast.layout.first_target
            fights[:, :6] &= ~offered[:, first:].any(1, keepdim=True)
        luck = torch.rand(fast.scenario.n_agents, 1, generator=generator)
        actions = pick_offered(fights, luck).T
        view, outcome = fast.step(actions)
        reward, terminated, truncated, won = twin.step(actions[0].tolist())
        compare(fast, view, twin, atol)
        assert float(outcome.reward[0]) == pytest.approx(reward, abs=20 * atol)
        assert (bool(outcome.terminated[0]), bool(outcome.truncated[0]), bool(outcome.won[0])) == (
            terminated,
            truncated,
            won,
        )
        if terminated or truncated:
            return step + 1
        if follow:
            adopt(fast, twin)
    return steps


@pytest.mark.mostly_slow(5)
@pytest.mark.parametrize("rules", ["liberty", "modern"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whole_episodes_agree(scenario, rules):
    generator = torch.Generator().manual_seed(0)
    steps = 0
    for seed in range(2):
        fast, view, twin = start(scenario, seed, rules=rules)
        steps += play(fast, view, twin, generator, 40, 1e-9)
    assert steps > 30


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_thousands_of_steps_agree(scenario):
    generator = torch.Generator().manual_seed(1)
    steps, seed = 0, 100
    while steps < 400:
        fast, view, twin = start(scenario, seed)
        steps += play(fast, view, twin, generator, 200, 1e-9)
        seed += 1


@pytest.mark.mostly_slow(2)
@pytest.mark.parametrize("scenario", ["10gen_terran", "10gen_protoss", "10gen_zerg", "MMM"])
def test_single_precision_agrees_step_by_step(scenario):
    generator = torch.Generator().manual_seed(2)
    for seed in range(2):
        fast, view, twin = start(scenario, seed, dtype=torch.float32)
        # a distance may round to the other side of a threshold only in the grid's last digit
        play(fast, view, twin, generator, 60, 1e-3, follow=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"step_mul": 3},
        {"step_mul": 20},
        {"reward_only_positive": False},
        {"reward_sparse": True},
        {"continuing_episode": False, "episode_limit": 10},
        {"obs_own_pos": False},
        {"action_mask": False},
        {"conic_fov": True},
        {"conic_fov": True, "action_mask": False, "prob_obs_enemy": 0.3},
        {"prob_obs_enemy": 0.0, "action_mask": False},  # SMACv2's EPO
        {"prob_obs_enemy": 0.5},
        {"parity": True},
        {"parity": True, "prob_obs_enemy": 0.5, "reward_sparse": True},
        {"parity": True, "conic_fov": True, "action_mask": False},
        {"n_units": 3, "n_enemies": 5},
        {"n_units": 6, "n_enemies": 4},
    ],
    ids=str,
)
def test_switches_agree(settings):
    generator = torch.Generator().manual_seed(3)
    for scenario in ("10gen_terran", "10gen_protoss", "10gen_zerg"):
        fast, view, twin = start(scenario, 7, **settings)
        play(fast, view, twin, generator, 60, 1e-9)
