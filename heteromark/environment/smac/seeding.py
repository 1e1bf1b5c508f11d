"""Seeding of objects with the SMAC API."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import gymnasium
import numpy as np

from heteromark.import_paths import Task
from heteromark.seeds import stream_seed


class SeededBattle:
    """An object with the SMAC API that can be seeded.

    The API has no standard way to seed. If the object has a method `seed(n)` (SMAClite), that is
    called, and episodes are repeatable. Other objects take their seed as a constructor argument
    (SMAC, SMACv2): they are closed and constructed again, so StarCraft II restarts. Between
    episodes this would take too long, so `seed_episode` seeds only what Python draws. SMACv2 draws
    from two further sources: Python's and NumPy's global generators, which are separate per copy
    (`GlobalStreams`), and unseeded generators of its own, which are replaced by seeded ones.

    All randomness in Python is then determined by the seed, except SMACv2's capability `attack`,
    which creates a new generator for every draw. What StarCraft II draws depends on its earlier
    episodes, and repeats only if the game itself repeats with the same `random_seed`.

    Args:
        make: creates the object; must accept `seed` unless the object has `seed(n)`. Gymnasium
            wrappers are removed.
        name: the environment's name in error messages.
        render: pass render_mode to the factory if it has this parameter.

    Attributes:
        battle: the current object; `reseed` may replace it.
        repeatable: whether `seed_episode` and the actions determine an episode.
    """

    def __init__(self, make: Task, name: str, render: bool = False) -> None:
        self._make = make
        self._name = name
        self._render_kwargs = {"render_mode": "rgb_array"} if render else {}
        self.battle = self._construct()
        self.repeatable = _takes_a_seed(getattr(self.battle, "seed", None))

    def _construct(self, **seed: int) -> Any:
        # a copy, because SMACv2 modifies its configuration
        make = copy.deepcopy(self._make)
        battle = make(**seed, **(self._render_kwargs if "render_mode" in make.parameters else {}))
        return battle.unwrapped if isinstance(battle, gymnasium.Env) else battle

    def reseed(self, seed: int) -> None:
        """Seed the next reset and everything after it.

        Raises:
            TypeError: the object cannot be seeded.
        """
        if not self.repeatable:
            parameters = self._make.parameters.values()
            if not any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters):
                raise TypeError(
                    f"environment {self._name!r} cannot be seeded: it has no method seed(n), and "
                    "its factory takes no `seed`; add either of them, so that runs are reproducible"
                )
            self.battle.close()
            self.battle = self._construct(seed=seed)
        self.seed_episode(seed)

    def seed_episode(self, seed: int) -> None:
        """Seed the next episode, as far as this is possible without a restart."""
        if self.repeatable:
            self.battle.seed(seed)
        # SMACv2's generators of teams and start positions
        distributions = getattr(self.battle, "env_key_to_distribution_map", {})
        for key, distribution in distributions.items():
            _reseed_generators(distribution, seed, key)


def _takes_a_seed(method: Any) -> bool:
    """Return whether a method is `seed(n)`; in SMAC and SMACv2, `seed()` returns the seed."""
    return callable(method) and bool(inspect.signature(method).parameters)


def _reseed_generators(distribution: Any, seed: int, *path: str) -> None:
    """Replace every NumPy generator in a distribution and its nested distributions."""
    for name, value in vars(distribution).items():
        if isinstance(value, np.random.Generator):
            setattr(distribution, name, np.random.default_rng(stream_seed(seed, *path, name)))
        elif hasattr(value, "generate"):
            _reseed_generators(value, seed, *path, name)
