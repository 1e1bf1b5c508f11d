"""Invariants of every battle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.mechanics import game_loop, take_aim
from heteromark.environment.skirmish.opponents import COMMANDERS, Situation, pick_offered
from heteromark.environment.skirmish.orders import (
    mirrored,
    mirrored_orders,
    mirrored_roster,
    with_orders,
)
from heteromark.environment.skirmish.scenarios import SCENARIOS

battle_settings = st.fixed_dictionaries(
    {
        "scenario": st.sampled_from(list(SCENARIOS)),
        "rules": st.sampled_from(["liberty", "modern"]),
        "opponent": st.sampled_from(list(COMMANDERS)),
        "step_mul": st.sampled_from([1, 8, 11]),
        "conic_fov": st.booleans(),
        "prob_obs_enemy": st.sampled_from([0.0, 0.5, 1.0]),
        "action_mask": st.booleans(),
        "parity": st.booleans(),
        "start": st.sampled_from([None, "facing", "reflect", "surrounded"]),
    }
)


@settings(max_examples=40, derandomize=True)
@given(battle_settings, st.integers(0, 2**32 - 1))
def test_invariants(chosen, seed):
    battles = Battles(SkirmishConfig(check_actions=True, **chosen), 8)
    battles.reseed(range(seed % 1000, seed % 1000 + 8))
    view = battles.reset()
    generator = torch.Generator().manual_seed(seed)
    n = battles.scenario.n_agents
    for _ in range(12):
        before, episode = battles.moment.units, battles.episode
        offered = battles.moment.options.offered
        assert offered.any(1).all(), "an agent has no legal action"
        assert torch.equal(offered[:, 0], ~before.alive[:n]), "the no-op is for dead units only"
        actions = pick_offered(offered, torch.rand(n, 8, generator=generator))
        view, outcome = battles.step(actions.T)
        after = battles.moment.units

        for name in ("x", "y"):
            where = getattr(after, name)
            assert ((where >= 0) & (where <= 32)).all()
            assert torch.equal(torch.round(where * 4096), where * 4096), "off the grid"
        assert (after.health >= 0).all()
        assert (after.health <= episode.roster.max_health).all()
        assert (after.shield <= episode.roster.max_shield).all()
        assert not (after.alive & ~before.alive).any(), "dead units stay dead"
        dead = ~before.alive
        for name in ("x", "y", "health", "shield"):
            assert torch.equal(getattr(after, name)[dead], getattr(before, name)[dead])
        heals = (episode.roster.heals > 0) & before.alive
        gains = after.health > before.health
        of_agents = torch.arange(len(gains))[:, None] < n
        helped = torch.where(of_agents, heals[:n].any(0), heals[n:].any(0))
        assert not (gains & ~helped & (episode.roster.regeneration == 0)).any()

        assert view.observation.isfinite().all()
        assert view.state.isfinite().all()
        assert view.observation.abs().max() <= 2
        assert not view.observation[~view.alive].any(), "dead units observe zeros"
        assert outcome.reward.isfinite().all()
        over = outcome.terminated | outcome.truncated
        if over.any():
            battles.reset(over)


@pytest.mark.parametrize("scenario", ["10gen_terran", "10gen_protoss", "10gen_zerg"])
def test_every_offered_action_is_carried_out(scenario):
    battles = Battles(SkirmishConfig(scenario=scenario, step_mul=4), 64)
    battles.reseed(range(64))
    battles.reset()
    generator = torch.Generator().manual_seed(0)
    n, layout = battles.scenario.n_agents, battles.layout
    checked = 0
    for _ in range(80):
        before, offered = battles.moment.units, battles.moment.options.offered
        heals = battles.episode.roster.heals[:n] > 0
        actions = pick_offered(offered, torch.rand(n, 64, generator=generator))
        _, outcome = battles.step(actions.T)
        after = battles.moment.units
        dx, dy = after.x[:n] - before.x[:n], after.y[:n] - before.y[:n]
        # others can push a unit back, but by less than it walks in four loops
        alone = _is_alone(before, n) & after.alive[:n]
        speed = 4 * battles.episode.roster.speed[:n]
        for number, wish in ((2, dy), (3, -dy), (4, dx), (5, -dx)):
            moved = alone & (actions == number)
            assert ((wish - speed).abs()[moved] < 2e-3).all()
            checked += int(moved.sum())
        stopped = alone & (actions == 1)
        assert not (dx.abs() + dy.abs())[stopped].any()
        aims = (actions >= layout.first_target) & after.alive[:n]
        slot = actions - layout.first_target
        expected = torch.where(heals, slot, slot + n)
        assert torch.equal(after.target[:n][aims], expected[aims])
        checked += int(aims.sum())
        over = outcome.terminated | outcome.truncated
        if over.any():
            battles.reset(over)
    assert checked > 500


def _is_alone(units, n):
    """Return whether no unit is within 4 of an agent's unit, and no edge of the map within 2."""
    dx, dy = units.x[:n].unsqueeze(1) - units.x, units.y[:n].unsqueeze(1) - units.y
    near = ((dx * dx + dy * dy < 16) & units.alive).sum(1) > 1
    inside = [(at > 2) & (at < 30) for at in (units.x[:n], units.y[:n])]
    return ~near & inside[0] & inside[1] & units.alive[:n]


@pytest.mark.mostly_slow(6)
@pytest.mark.parametrize("scenario", ["mini_MMM", "2s3z", "1c3s5z", "8m"])
@pytest.mark.parametrize("commander", ["nearest", "attack_move", "focus_fire", "kite"])
def test_mirrored_starts_with_mirrored_play_give_mirrored_results(scenario, commander):
    battles = Battles(SkirmishConfig(scenario=scenario), 16)
    battles.reseed(range(16))
    battles.reset()
    units, episode = battles.moment.units, battles.episode
    n, total = battles.scenario.n_agents, battles.scenario.n_units
    # agents are sorted by position, their enemies are not: give both the same order
    x, y = torch.cat([units.x[:n], 32 - units.x[:n]]), torch.cat([units.y[:n], units.y[:n]])
    units = units._replace(x=x, y=y, to_x=x, to_y=y)
    order = COMMANDERS[commander]
    generator = torch.Generator().manual_seed(0)

    def situation(units, roster):
        return Situation(units, roster, episode.pairs, episode.objective, torch.zeros(n, 16))

    for _ in range(60):
        own = order(situation(units, episode.roster), battles.layout)
        theirs = order(
            situation(mirrored(units, n), mirrored_roster(episode.roster, n)), battles.their_layout
        )
        units = with_orders(units, own, mirrored_orders(theirs, n, total))
        delay = 3 * torch.rand(n, 16, generator=generator) - 1
        aim = take_aim(units, episode.roster, episode.pairs, torch.cat([delay, delay]))
        for _ in range(8):
            units = game_loop(units, aim, episode.roster, episode.pairs, battles.traits)
        for name in ("y", "health", "shield", "energy", "cooldown"):
            values = getattr(units, name)
            assert torch.equal(values[:n], values[n:]), name
        assert torch.equal(units.x[:n], 32 - units.x[n:])
    assert not units.alive.all(), "somebody fought"


def test_observations_are_zero_beyond_sight():
    battles = Battles(SkirmishConfig(scenario="10gen_terran", start="reflect"), 32)
    battles.reseed(range(32))
    view = battles.reset()
    units, roster, n = battles.moment.units, battles.episode.roster, 5
    dx, dy = units.x - units.x[:n].unsqueeze(1), units.y - units.y[:n].unsqueeze(1)
    seen = (dx * dx + dy * dy).sqrt() < roster.sight[:n].unsqueeze(1)
    enemies = view.observation[:, :, 4:44].unflatten(2, (5, 8))
    shown = enemies.any(3).permute(1, 2, 0)
    assert torch.equal(shown, seen[:, n:])
    assert shown.any()
    assert not shown.all()


def test_dead_units_do_not_block():
    battles = Battles(SkirmishConfig(scenario="custom", allies={"marine": 2}), 1)
    battles.reseed([0])
    battles.reset()
    now = battles.moment
    x = torch.tensor([[10.0], [11.0], [30.0], [30.0]])
    y = torch.tensor([[16.0], [16.0], [2.0], [30.0]])
    health = torch.tensor([[45.0], [0.0], [45.0], [45.0]])
    battles._scene = battles._scene_of(
        now.units._replace(x=x, y=y, to_x=x, to_y=y, health=health),
        now.notes,
        now.steps,
        battles.episode,
    )
    for _ in range(2):
        battles.step(torch.tensor([[4, 0]]))
    assert float(battles.moment.units.x[0, 0]) == 10 + 16 * 0.140625
    assert float(battles.moment.units.y[0, 0]) == 16
