"""Orders of the scripted opponents."""

from __future__ import annotations

import pytest
import torch
from arranged import STOP, arranged, change, health, step

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish import SkirmishEnv
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.opponents import COMMANDERS


def target_of(battles, number):
    return int(battles.moment.units.target[number, 0])


def place_of(battles, number):
    units = battles.moment.units
    return float(units.x[number, 0]), float(units.y[number, 0])


def test_nearest_stays_with_its_target_until_it_is_dead():
    battles = arranged({"marine": 2}, {"marine": 1}, [10, 10, 14], [16, 20, 16], opponent="nearest")
    step(battles, STOP, STOP)
    assert target_of(battles, 2) == 0
    change(battles, x=[10, 13, None], y=[16, 16, None])
    step(battles, STOP, STOP)
    assert target_of(battles, 2) == 0, "although the other is nearer now"
    change(battles, health=[0, None, None])
    step(battles, 0, STOP)
    assert target_of(battles, 2) == 1


def test_nearest_ignores_units_its_weapon_cannot_hit():
    battles = arranged(
        {"marine": 1, "medivac": 1}, {"marauder": 1}, [6, 12, 14], [16, 16, 16], opponent="nearest"
    )
    step(battles, STOP, STOP)
    assert target_of(battles, 2) == 0, "not the nearer medivac in the air"


@pytest.mark.parametrize("opponent", ["nearest", "attack_move", "focus_fire", "kite"])
def test_healers_heal_the_nearest_damaged_ally_or_follow_the_nearest(opponent):
    places = [4, 26, 27, 31, 24], [4, 16, 17, 16, 16]
    battles = arranged({"marine": 1}, {"marine": 3, "medivac": 1}, *places, opponent=opponent)
    step(battles, STOP)
    assert target_of(battles, 4) == 1, "nobody is damaged, and this unit is the nearest"
    change(battles, health=[None, None, None, 20, None])
    step(battles, STOP)
    assert target_of(battles, 4) == 3
    for _ in range(4):
        step(battles, STOP)
    assert health(battles)[3] > 20


def test_attack_move_walks_to_where_the_agents_started():
    battles = arranged({"marine": 1}, {"marine": 1}, [4, 30], [16, 16], opponent="attack_move")
    there = battles.episode._replace(objective=torch.tensor([[28.0], [6.0]]).double())
    battles._scene = battles._scene._replace(episode=there)
    step(battles, STOP)
    assert target_of(battles, 1) == -1
    x, y = place_of(battles, 1)
    assert x < 30
    assert y < 16
    assert (y - 16) / (x - 30) == pytest.approx((6 - 16) / (4 - 30), rel=1e-2), "towards (4, 6)"
    change(battles, x=[26, 30], y=[16, 16])
    step(battles, STOP)
    assert target_of(battles, 1) == 0, "in sight now"
    change(battles, x=[4, 30], y=[16, 16])
    step(battles, STOP)
    assert target_of(battles, 1) == -1, "out of sight again"
    change(battles, x=[4, 4], y=[30, 7])
    step(battles, STOP)
    assert target_of(battles, 1) == 0, "it has arrived and attacks the nearest"


def test_focus_fire_takes_the_weakest_in_range():
    battles = arranged(
        {"marine": 2}, {"marine": 2}, [11, 12, 15, 15], [16, 18, 16, 17], opponent="focus_fire"
    )
    change(battles, health=[30, None, None, None])
    step(battles, STOP, STOP)
    assert (target_of(battles, 2), target_of(battles, 3)) == (0, 0)
    change(battles, x=[2, 12, 15, 15], health=[1, None, None, None])
    step(battles, STOP, STOP)
    assert (target_of(battles, 2), target_of(battles, 3)) == (1, 1), "the weakest is out of range"


def test_kite_steps_back_while_its_weapon_cools_down():
    battles = arranged({"zealot": 1}, {"stalker": 1}, [12, 16], [16, 16], opponent="kite")
    step(battles, STOP)
    assert health(battles)[0] + float(battles.moment.units.shield[0, 0]) == 150 - 10
    shot_from = place_of(battles, 1)[0]
    step(battles, STOP)
    assert place_of(battles, 1)[0] > shot_from + 1
    melee = arranged({"marine": 1}, {"zealot": 1}, [12, 12.9], [16, 16], opponent="kite")
    step(melee, STOP)
    step(melee, STOP)
    assert target_of(melee, 1) == 0, "a zealot never steps back"


def test_random_takes_only_legal_actions():
    battles = arranged({"marine": 1}, {"marine": 1}, [4, 28], [16, 16], opponent="random")
    places = set()
    for _ in range(60):
        before = place_of(battles, 1)
        change(battles, x=[4, None], y=[16, None])
        step(battles, STOP)
        x, y = place_of(battles, 1)
        assert target_of(battles, 1) == -1, "nothing is in range"
        assert min(abs(x - before[0]), abs(y - before[1])) < 1e-3
        places.add((round(x, 2), round(y, 2)))
    assert len(places) > 10
    assert health(battles)[0] == 45


def test_a_subclass_can_command_the_agents():
    """As in benchmarks/scripted_play.py."""

    class Eastward(Battles):
        def _own_orders(self, before, episode, actions):
            orders, notes = super()._own_orders(before, episode, actions)
            walking = torch.ones_like(orders.walking)
            return orders._replace(walking=walking, to_x=orders.to_x + 2), notes

    battles = Eastward(SkirmishConfig(scenario="3m", start="facing"), 1)
    battles.reset()
    before = battles.moment.units.x[:3].clone()
    battles.step(torch.ones(1, 3, dtype=torch.int64))
    assert (battles.moment.units.x[:3] > before + 1).all()


@pytest.mark.parametrize("opponent", COMMANDERS)
def test_battles_end_against_every_opponent(opponent):
    env = SkirmishEnv("mini_MMM", num_envs=16, seed=0, opponent=opponent)
    now, over = env.reset(), 0
    for _ in range(110):
        for name in env.groups:
            mask = now[name, "action_mask"].int()
            now[name, "action"] = mask.shape[-1] - 1 - mask.flip(-1).argmax(-1)
        stepped, now = env.step_and_maybe_reset(now)
        over += int(stepped["next", "done"].sum())
    assert over >= 16
