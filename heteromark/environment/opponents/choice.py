"""Random and heuristic opponents of turn-based games. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from heteromark.config.models.components import OpponentConfig
from heteromark.environment.errors import IncompatibleOpponent
from heteromark.environment.opponents.heuristics import connect_four, tic_tac_toe
from heteromark.import_paths import import_path

# (the environment's observation without the mask; legal actions, bool [n_actions]; the copy's
# generator) -> action
Player = Callable[[Any, np.ndarray, np.random.Generator], int]

# by the name in the environment's metadata
_HEURISTICS: Mapping[str, Player] = {"tictactoe_v3": tic_tac_toe, "connect_four_v3": connect_four}


def random_player(observation: Any, legal: np.ndarray, generator: np.random.Generator) -> int:
    """Return a uniformly random legal action."""
    actions = np.flatnonzero(legal)
    return int(actions[generator.integers(len(actions))])


def make_player(opponent: OpponentConfig, game: str) -> Player:
    """Return the random or heuristic player that a config selects.

    Args:
        opponent: the config.
        game: the name in the environment's metadata.

    Raises:
        IncompatibleOpponent: there is no built-in heuristic for this game.
        ValueError, ModuleNotFoundError: the configured heuristic cannot be imported.
    """
    if opponent.kind == "random":
        return random_player
    if opponent.heuristic is not None:
        return import_path(opponent.heuristic, "environment.opponent.heuristic")
    if game not in _HEURISTICS:
        raise IncompatibleOpponent(
            opponent.kind,
            f"there is no built-in heuristic for {game!r} (only for {', '.join(_HEURISTICS)}); "
            "use the opponent random or self, or name your player with "
            "environment.opponent.heuristic=module:function, a function (observation, legal "
            "actions, generator) -> action",
        )
    return _HEURISTICS[game]
