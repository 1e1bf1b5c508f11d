"""Measure the win rates of Skirmish's scripts.

python benchmarks/scripted_play.py 10gen_terran
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.moments import Episode, Moment, Outcome
from heteromark.environment.skirmish.opponents import COMMANDERS, Situation
from heteromark.environment.skirmish.orders import Orders, mirrored_pairs
from heteromark.environment.skirmish.randomness import uniform

_LUCK = 1000  # a separate random stream, besides those of the battles


class ScriptedBattles(Battles):
    """Battles in which a script commands the agents, too. Actions passed to `step` are ignored.

    Args:
        script: name of the script.
        config, num_envs: see `Battles`.
    """

    def __init__(self, script: str, config: SkirmishConfig, num_envs: int) -> None:
        self._script = COMMANDERS[script]
        self.goal: Tensor | None = None  # [2, B], the target of attack_move
        super().__init__(config, num_envs)

    def start(self, seeds: Sequence[int]) -> None:
        """Start the first battles of these seeds."""
        self.reseed(seeds)
        self.reset()
        n, units = self.scenario.n_agents, self.moment.units
        self.goal = torch.stack([units.x[n:].mean(0), units.y[n:].mean(0)])

    def play(self) -> Outcome:
        """Play one step."""
        return self.step(torch.zeros(self.num_envs, self.scenario.n_agents, dtype=torch.int64))[1]

    def _own_orders(self, before: Moment, episode: Episode, actions: Tensor) -> tuple[Orders, ...]:
        _, notes = super()._own_orders(before, episode, actions)
        n = self.scenario.n_agents
        situation = Situation(
            units=before.units,
            roster=episode.roster,
            # the script plays the agents' side, so mirror the pairs
            pairs=mirrored_pairs(episode.pairs, n),
            objective=self.goal,
            luck=uniform(episode.key, _LUCK, before.steps, torch.arange(n)[:, None]),
        )
        return self._script(situation, self.layout), notes


def win_rates(scenario: str, battles: int, opponent: str = "nearest") -> dict[str, float]:
    """Return the share of battles that each script wins against `opponent`, by name."""
    rates = {}
    for script in COMMANDERS:
        config = SkirmishConfig(scenario=scenario, opponent=opponent)
        scripted = ScriptedBattles(script, config, battles)
        scripted.start(range(battles))
        over = won = torch.zeros(battles, dtype=torch.bool)
        while not over.all():
            outcome = scripted.play()
            won = won | (outcome.won & ~over)
            over = over | outcome.terminated | outcome.truncated
        rates[script] = won.float().mean().item()
    return rates


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for script, rate in win_rates(name, 500).items():
            print(f"{name:<14} {script:<12} won {rate:.1%} against nearest")
