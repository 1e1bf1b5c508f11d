"""Fights whose results are calculated by hand from the table of units."""

from __future__ import annotations

import pytest
from arranged import STOP, arranged, change, health, shield, step

ATTACK = 6  # the first enemy, or for a healer the first ally


def test_a_marauder_beats_a_marine_and_keeps_90_hit_points():
    # The marine hits for 6 - 1 in game loops 1, 15, 29, … (13.77 loops apart), the marauder for 10
    # in loops 1, 25, 49, 73 and 97. The marine is dead after loop 97, which is in step 13, and has
    # hit 7 times.
    battles = arranged({"marine": 1}, {"marauder": 1}, [14, 18], [16, 16])
    for _ in range(12):
        assert not step(battles, ATTACK).terminated
    assert health(battles) == [5, 90]
    last = step(battles, ATTACK)
    assert last.terminated
    assert not last.won
    assert health(battles) == [0, 90]


def test_a_zealot_beats_a_zergling_and_loses_20_of_its_shield():
    # The zealot hits for 2 x 8 in loops 1, 21 and 41, the zergling for 5 in loops 1, 13, 25 and 37.
    battles = arranged({"zealot": 1}, {"zergling": 1}, [16, 16.9], [16, 16])
    for _ in range(5):
        assert not step(battles, ATTACK).terminated
    assert health(battles)[1] == pytest.approx(35 - 32 + 39 * 0.2734375 / 16)
    assert step(battles, ATTACK).won
    assert health(battles) == [100, 0]
    assert shield(battles) == [30, 0]


def test_a_medivac_heals_150_hit_points_with_50_energy():
    battles = arranged({"marauder": 1, "medivac": 1}, {"marine": 1}, [4, 5, 30], [4, 4, 30])
    healed, steps = 0.0, 0
    while battles.moment.units.energy[1, 0] > 2:
        change(battles, health=[50, None, None], x=[4, 5, 30], y=[4, 4, 30])
        step(battles, STOP, ATTACK)
        healed += health(battles)[0] - 50
        steps += 1
    left = float(battles.moment.units.energy[1, 0])
    regained = steps * 8 * 0.5625 / 16
    assert (healed - regained / 0.33) == pytest.approx((50 - left) / 0.33, abs=0.5)
    assert pytest.approx(150, abs=2) == 50 / 0.33
    assert healed / steps == 9 / 2, "9 hit points per second; a second is two steps"


def test_a_medivac_does_not_heal_dead_units_or_beyond_the_maximum():
    battles = arranged({"marauder": 1, "medivac": 1}, {"marine": 1}, [4, 5, 30], [4, 4, 30])
    change(battles, health=[124, None, None])
    step(battles, STOP, ATTACK)
    assert health(battles)[0] == 125
    energy = float(battles.moment.units.energy[1, 0])
    assert energy == pytest.approx(50 - 0.33 + 8 * 0.5625 / 16, abs=1e-3)


def test_shields_regenerate_after_ten_seconds_without_damage():
    battles = arranged({"stalker": 1}, {"marine": 1}, [4, 30], [4, 30])
    change(battles, shield=[40, None], calm=[0, None])
    for _ in range(19):
        step(battles, STOP)
        change(battles, x=[4, 30], y=[4, 30])
    assert shield(battles)[0] == 40
    step(battles, STOP)
    assert shield(battles)[0] == 40.125, "in game loop 160"
    change(battles, x=[4, 30], y=[4, 30])
    step(battles, STOP)
    assert shield(battles)[0] == 40.125 + 8 * 2 / 16


def test_shields_absorb_hits_first_and_armour_reduces_the_rest():
    # a marauder's 10 + 10 on an armoured stalker with 12 left: 8 - 1 reach its hit points
    battles = arranged({"marauder": 1}, {"stalker": 1}, [14, 18], [16, 16])
    change(battles, shield=[None, 12], calm=[0, 0])
    step(battles, ATTACK)
    assert (shield(battles)[1], health(battles)[1]) == (0, 80 - 7)


def test_a_zealots_second_hit_meets_the_remaining_shield():
    # 8 of 10, then 2 of 8: 6 - 1 reach the hit points
    battles = arranged({"zealot": 1}, {"stalker": 1}, [16, 17.2], [16, 16])
    change(battles, shield=[None, 10], calm=[0, 0])
    step(battles, ATTACK)
    assert (shield(battles)[1], health(battles)[1]) == (0, 80 - 5)


def test_a_hit_deals_at_least_half_a_point():
    battles = arranged({"zealot": 1}, {"stalker": 1}, [16, 17.2], [16, 16])
    change(battles, shield=[None, 15.75], calm=[0, 0])
    step(battles, ATTACK)
    assert health(battles)[1] == 79.5, "0.25 left, minus 1 armour, counts as 0.5"


def test_a_baneling_bursts_among_marines():
    # 20 + 15 for each light unit whose edge is within 2.2; the last is 2.6 away
    battles = arranged(
        {"baneling": 1}, {"marine": 4}, [10, 10.6, 12, 10, 10], [10, 10, 10, 12.5, 12.6]
    )
    outcome = step(battles, ATTACK)
    assert health(battles) == [0, 10, 10, 10, 45]
    assert outcome.terminated
    assert not outcome.won


def test_a_baneling_that_is_killed_bursts_too():
    battles = arranged({"marine": 2}, {"baneling": 2}, [10, 10, 12, 30], [10, 11.5, 10, 30])
    change(battles, health=[None, None, 1, None])
    step(battles, ATTACK, STOP)
    assert health(battles)[:3] == [10, 10, 0]
    assert health(battles)[3] > 0


def test_bursts_spare_the_own_side():
    battles = arranged({"baneling": 2}, {"marine": 2}, [10, 10.2, 10.7, 30], [10, 10.9, 10, 30])
    step(battles, ATTACK, STOP)
    assert health(battles) == [0, 30, 10, 45]


def test_a_colossus_strikes_a_line_across_its_shot():
    # The shot goes along x at the first zealot. The line extends 1.25 to both sides and is 0.15
    # thick; a zealot's radius is 0.5. Hit: the target, the unit 1.8 north of it, and the one 0.6
    # behind it. Not hit: 2 south, 0.7 in front.
    x = [10, 15, 15, 15.6, 15, 14.3]
    y = [16, 16, 17.8, 15.2, 14, 17]
    battles = arranged({"colossus": 1}, {"zealot": 5}, x, y, step_mul=1)
    step(battles, ATTACK)
    assert shield(battles)[1:] == [10, 10, 10, 50, 50]
    assert health(battles)[1:] == [100] * 5


def test_ground_weapons_do_not_reach_the_air():
    # the enemies, sorted by type name: a marine far away, a medivac nearby
    x, y = [14, 30, 18], [16, 30, 16]
    marauder = arranged({"marauder": 1}, {"marine": 1, "medivac": 1}, x, y)
    assert marauder.moment.options.offered[0, 6:, 0].tolist() == [False, False]
    marine = arranged({"marine": 1}, {"marine": 1, "medivac": 1}, x, y)
    assert marine.moment.options.offered[0, 6:, 0].tolist() == [False, True]
    step(marine, ATTACK + 1)
    assert health(marine)[2] == 150 - 5


def test_an_order_to_attack_lasts_until_the_target_is_dead():
    # without masks, a unit keeps its last order after an attack out of range
    battles = arranged(
        {"marine": 1}, {"marine": 2}, [10, 14, 28], [16, 16, 28], action_mask=False, step_mul=16
    )
    step(battles, ATTACK)
    before = health(battles)[1]
    assert before < 45
    step(battles, ATTACK + 1)
    assert health(battles)[1] < before
    assert health(battles)[2] == 45
    step(battles, STOP)
    stopped = health(battles)[1]
    step(battles, ATTACK + 1)
    assert health(battles)[1] == stopped, "a stop ends it"


def test_a_move_continues_until_another_order():
    battles = arranged({"marine": 1}, {"marine": 1}, [10, 30], [16, 2], action_mask=False)
    step(battles, 4)
    assert float(battles.moment.units.x[0, 0]) == 10 + 8 * 0.140625
    step(battles, ATTACK)
    assert float(battles.moment.units.x[0, 0]) == 12, "2 map units from the start"
