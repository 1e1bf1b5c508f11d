"""Draw a battle."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from heteromark.environment.skirmish.scenarios import MAP_SIZE, Scenario
from heteromark.environment.skirmish.state import Roster, Units

SIZE = 480  # pixels, of the picture's sides
_FINER = 2  # supersampling factor, for smooth edges
_SCALE = SIZE * _FINER / MAP_SIZE
_GROUND, _GRID, _TEXT = (24, 30, 38), (34, 42, 52), (226, 230, 235)
# colour-blind safe (Okabe and Ito): the agents' side and the other side
_SIDES = ((86, 180, 233), (230, 159, 0))
_HEALTH, _LACKING, _SHIELD, _HEAL = (0, 158, 115), (70, 76, 86), (240, 228, 66), (120, 230, 170)
_LETTERS = {
    "marine": "m",
    "marauder": "R",
    "medivac": "+",
    "stalker": "S",
    "zealot": "Z",
    "colossus": "C",
    "zergling": "z",
    "hydralisk": "H",
    "baneling": "b",
}


def draw_battle(
    units: Units, before: Units | None, roster: Roster, scenario: Scenario, steps: Tensor
) -> np.ndarray:
    """Draw battle 0 as an image, uint8 [SIZE, SIZE, 3]; north is up.

    Units are discs with the letter of their type: blue for the agents, orange for the enemies. A
    thin circle shows the range of the weapon, bars above show hit points and shields. Lines are
    the shots of the last step (green: heals). Crosses are dead units.

    Args:
        units: the current units.
        before: the units one step ago; None: draw no shots.
        roster, scenario: of the battle.
        steps: [B, 1], steps of the episode so far.
    """
    picture = Image.new("RGB", (SIZE * _FINER,) * 2, _GROUND)
    canvas = ImageDraw.Draw(picture, "RGBA")
    for line in range(0, int(MAP_SIZE) + 1, 4):
        at = line * _SCALE
        canvas.line([(at, 0), (at, SIZE * _FINER)], fill=_GRID)
        canvas.line([(0, at), (SIZE * _FINER, at)], fill=_GRID)
    drawn = [_Drawn(units, before, roster, scenario, number) for number in range(scenario.n_units)]
    for unit in drawn:
        if not unit.alive:
            unit.draw_cross(canvas)
    for unit in drawn:
        unit.draw_reach(canvas)
    for unit in drawn:
        unit.draw_shot(canvas, drawn)
    for unit in drawn:
        unit.draw_body(canvas)
    _draw_caption(canvas, drawn, scenario, int(steps[0]))
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX))


class _Drawn:
    """One unit of battle 0 on the canvas."""

    def __init__(
        self, units: Units, before: Units | None, roster: Roster, scenario: Scenario, number: int
    ) -> None:
        def now(values: Tensor) -> float:
            return float(values[number, 0])

        self.side = int(number >= scenario.n_agents)
        self.name = scenario.types[int(now(roster.kind))]
        self.x, self.y = now(units.x) * _SCALE, (MAP_SIZE - now(units.y)) * _SCALE
        self.radius = now(roster.radius) * _SCALE
        self.reach = (now(roster.range) + now(roster.radius)) * _SCALE
        self.alive = bool(units.alive[number, 0])
        self.health = now(units.health) / now(roster.max_health)
        shields = now(roster.max_shield)
        self.shield = now(units.shield) / shields if shields else None
        self.heals = now(roster.heals) > 0
        self.target = -1
        if before is not None and bool(before.alive[number, 0]):
            acted = (
                now(units.energy) < now(before.energy)
                if self.heals
                else now(units.cooldown) > now(before.cooldown)
            )
            self.target = int(now(units.target)) if acted else -1

    def draw_cross(self, canvas: ImageDraw.ImageDraw) -> None:
        arm = self.radius * 0.5
        for rise in (arm, -arm):
            ends = [(self.x - arm, self.y - rise), (self.x + arm, self.y + rise)]
            canvas.line(ends, fill=(*_SIDES[self.side], 110), width=3)

    def draw_reach(self, canvas: ImageDraw.ImageDraw) -> None:
        if self.alive:
            canvas.ellipse(self._box(self.reach), outline=(*_SIDES[self.side], 45), width=2)

    def draw_shot(self, canvas: ImageDraw.ImageDraw, drawn: list[_Drawn]) -> None:
        if self.target >= 0:
            other = drawn[self.target]
            colour = _HEAL if self.heals else _SIDES[self.side]
            # shifted to the left, so that lines of units that shoot each other do not overlap
            dx, dy = other.x - self.x, other.y - self.y
            far = max((dx * dx + dy * dy) ** 0.5, 1.0)
            aside = (dy / far * 4, -dx / far * 4)
            ends = [(unit.x + aside[0], unit.y + aside[1]) for unit in (self, other)]
            canvas.line(ends, fill=colour, width=4)

    def draw_body(self, canvas: ImageDraw.ImageDraw) -> None:
        if not self.alive:
            return
        canvas.ellipse(self._box(self.radius), fill=_SIDES[self.side], outline=_GROUND, width=2)
        font = _font(int(self.radius * 1.5))
        canvas.text((self.x, self.y), _LETTERS[self.name], _GROUND, font, anchor="mm")
        self._draw_bar(canvas, 10, self.health, _HEALTH)
        if self.shield is not None:
            self._draw_bar(canvas, 18, self.shield, _SHIELD)

    def _draw_bar(
        self, canvas: ImageDraw.ImageDraw, above: float, share: float, colour: tuple[int, int, int]
    ) -> None:
        half, bottom = max(self.radius, 14), self.y - self.radius - above
        left, top = self.x - half, bottom - 5
        canvas.rectangle([left, top, self.x + half, bottom], fill=_LACKING)
        canvas.rectangle([left, top, left + 2 * half * share, bottom], fill=colour)

    def _box(self, radius: float) -> list[float]:
        return [self.x - radius, self.y - radius, self.x + radius, self.y + radius]


def _draw_caption(
    canvas: ImageDraw.ImageDraw, drawn: list[_Drawn], scenario: Scenario, step: int
) -> None:
    living = [sum(unit.alive for unit in drawn if unit.side == side) for side in (0, 1)]
    names = dict.fromkeys(unit.name for unit in drawn)
    for x, y, text, colour in (
        (14, 10, f"{scenario.name}   step {step}", _TEXT),
        (14, 44, f"agents {living[0]}/{scenario.n_agents}", _SIDES[0]),
        (190, 44, f"enemies {living[1]}/{scenario.n_enemies}", _SIDES[1]),
        (14, SIZE * _FINER - 40, "   ".join(f"{_LETTERS[name]} {name}" for name in names), _TEXT),
    ):
        # outlined, so that text over a unit stays readable
        canvas.text((x, y), text, colour, _font(26), stroke_width=5, stroke_fill=_GROUND)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(size, 8))
