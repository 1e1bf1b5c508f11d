"""Battles with start positions set by a test, without random delays."""

from __future__ import annotations

import torch

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.battles import Battles

STOP = 1


def arranged(allies, enemies, x, y, dtype=torch.float64, delays=False, **settings):
    """Return a battle of custom teams with units at these positions, allies first."""
    settings = {"episode_limit": 1000, **settings}
    config = SkirmishConfig(scenario="custom", allies=allies, enemies=enemies, **settings)
    battles = Battles(config, 1, dtype=dtype)
    if not delays:
        battles._delay = lambda before, episode, loop: torch.zeros_like(before.units.x)
    battles.reseed([0])
    battles.reset()
    change(battles, x=x, y=y)
    return battles


def change(battles, **values):
    """Set fields of the units, from one number per unit (None: unchanged), and observe again."""
    now = battles.moment
    fields = {}
    for name, numbers in values.items():
        column = getattr(now.units, name).clone()
        for k, number in enumerate(numbers):
            if number is not None:
                column[k, 0] = number
        fields[name] = column
    units = now.units._replace(**fields)
    battles._scene = battles._scene_of(units, now.notes, now.steps, battles.episode)


def step(battles, *actions):
    """Step with these actions and return the outcome."""
    return battles.step(torch.tensor([actions]))[1]


def health(battles):
    return battles.moment.units.health[:, 0].tolist()


def shield(battles):
    return battles.moment.units.shield[:, 0].tolist()
