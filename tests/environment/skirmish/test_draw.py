"""Drawing of battles."""

from __future__ import annotations

import numpy as np
import pytest
from arranged import arranged, change, step

from heteromark.environment.skirmish import SkirmishEnv
from heteromark.environment.skirmish.draw import _HEAL, _HEALTH, _SHIELD, _SIDES, SIZE, draw_battle


def picture(battles, before=None):
    return draw_battle(
        battles.moment.units,
        before,
        battles.episode.roster,
        battles.scenario,
        battles.moment.steps[:, None],
    )


def amount(image, colour):
    """Count the pixels of approximately this colour."""
    return int((np.abs(image.astype(int) - colour).max(-1) < 12).sum())


def test_units_are_drawn_at_their_position_in_their_sides_colour():
    battles = arranged({"zealot": 1}, {"zealot": 1}, [8, 24], [24, 8])
    image = picture(battles)
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.uint8
    ours, theirs = image[: SIZE // 2, : SIZE // 2], image[SIZE // 2 :, SIZE // 2 :]
    assert amount(ours[60:], _SIDES[0]) > 50, "in the north-west, below the caption"
    assert amount(theirs, _SIDES[1]) > 50
    assert amount(image, _SHIELD) > 5


def test_health_bars_shrink():
    battles = arranged({"marauder": 1}, {"marauder": 1}, [8, 24], [24, 8])
    full = amount(picture(battles), _HEALTH)
    change(battles, health=[20, 20])
    assert amount(picture(battles), _HEALTH) < 0.5 * full


def test_shots_and_heals_are_drawn_as_lines():
    battles = arranged({"marine": 1, "medivac": 1}, {"marine": 1}, [14, 14, 18], [16, 13, 16])
    before = battles.moment.units
    step(battles, 6, 1)
    after_shot = picture(battles, before)
    assert amount(after_shot, _SIDES[0]) > amount(picture(battles), _SIDES[0])
    assert amount(after_shot, _HEAL) == 0
    before = battles.moment.units
    step(battles, 1, 6)
    assert amount(picture(battles, before), _HEAL) > 10


def test_the_environment_draws_its_first_battle():
    env = SkirmishEnv("1c3s5z", num_envs=2, seed=0)
    with pytest.raises(RuntimeError, match="reset"):
        env.render()
    now = env.reset()
    first = env.render()
    for name in env.groups:
        now[name, "action"] = now[name, "action_mask"].int().argmax(-1)
    env.step(now)
    assert not np.array_equal(first, env.render())
