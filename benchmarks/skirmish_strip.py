"""Draw a strip of pictures of one battle for the docs.

    python benchmarks/skirmish_strip.py

The script `kite` commands the agents, `nearest` their opponents. Writes docs/skirmish.png.
"""

from __future__ import annotations

import numpy as np
import torch
from common import ROOT
from PIL import Image
from scripted_play import ScriptedBattles

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.draw import draw_battle

STEPS = (0, 12, 32)  # the steps that are drawn
SIDE = 400  # of a picture, in pixels


def main() -> None:
    battles = ScriptedBattles("kite", SkirmishConfig(scenario="mini_MMM"), 1)
    battles.start([8])
    before, pictures = None, []
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            roster, scenario = battles.episode.roster, battles.scenario
            units, steps = battles.moment.units, torch.tensor([[step]])
            pictures.append(draw_battle(units, before, roster, scenario, steps))
        before = battles.moment.units
        battles.play()
    strip = Image.fromarray(np.concatenate(pictures, 1))
    strip = strip.resize((SIDE * len(pictures), SIDE), Image.Resampling.LANCZOS)
    strip.save(ROOT / "docs" / "skirmish.png", optimize=True)
    print("docs/skirmish.png")


if __name__ == "__main__":
    main()
