"""Starting an object with the SMAC API from a seed, whatever it offers for that."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import gymnasium
import numpy as np

from heteromark.import_paths import Task
from heteromark.seeds import stream_seed


class SeededBattle:
    """An object with the SMAC API, and its random streams.

    The API has no common way to seed. Where the object has a method `seed(n)` (SMAClite), that is
    used. Others take their seed when they are constructed (SMAC, SMACv2): they are closed and
    constructed again, which for StarCraft II means that the game restarts. SMACv2 also draws from
    Python's and NumPy's global generators, which are a copy's own (`GlobalStreams`), and from
    generators that it seeds by chance, which are replaced.

    So everything follows from the seed as far as it happens in Python, but for SMACv2's capability
    `attack`, which draws from a new generator each time. Within StarCraft II, it follows as far
    as the game repeats itself with the same `random_seed`.

    Args:
        make: the factory of such objects; must accept `seed` unless they have `seed(n)`. Wrappers
            of Gymnasium are taken off.
        name: the environment's name in error messages.
        drawing: the object has to draw; a factory with a parameter `render_mode` is told.

    Attributes:
        battle: the object as it is now; seeding may replace it.
    """

    def __init__(self, make: Task, name: str, drawing: bool = False) -> None:
        self._make = make
        self._name = name
        self._drawing = {"render_mode": "rgb_array"} if drawing else {}
        self.battle = self._made()

    def _made(self, **seed: int) -> Any:
        # SMACv2 writes into the configuration that it is given
        make = copy.deepcopy(self._make)
        battle = make(**seed, **(self._drawing if "render_mode" in make.parameters else {}))
        return battle.unwrapped if isinstance(battle, gymnasium.Env) else battle

    def reseed(self, seed: int) -> None:
        """Let the next reset, and all that comes after it, follow from a seed.

        Raises:
            TypeError: the object can be seeded neither way.
        """
        if _takes_a_seed(getattr(self.battle, "seed", None)):
            self.battle.seed(seed)
            return
        parameters = self._make.parameters.values()
        if not any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters):
            raise TypeError(
                f"environment {self._name!r} cannot be seeded: it has no method seed(n), and its "
                "factory takes no `seed`; give it either, because a run follows from its seed"
            )
        self.battle.close()
        self.battle = self._made(seed=seed)
        # where SMACv2 keeps what draws its teams and start positions
        distributions = getattr(self.battle, "env_key_to_distribution_map", {})
        for key, distribution in distributions.items():
            _reseed_generators(distribution, seed, key)


def _takes_a_seed(method: Any) -> bool:
    """Whether it is a `seed(n)`; in SMAC and SMACv2, `seed()` returns the seed."""
    return callable(method) and bool(inspect.signature(method).parameters)


def _reseed_generators(distribution: Any, seed: int, *path: str) -> None:
    """Replace every NumPy generator that a distribution, or one within it, holds."""
    for name, value in vars(distribution).items():
        if isinstance(value, np.random.Generator):
            setattr(distribution, name, np.random.default_rng(stream_seed(seed, *path, name)))
        elif hasattr(value, "generate"):
            _reseed_generators(value, seed, *path, name)
