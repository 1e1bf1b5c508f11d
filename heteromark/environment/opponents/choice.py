"""Who plays the seats of a turn-based game that do not learn. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from heteromark.config.models.components import OpponentConfig
from heteromark.environment.errors import OpponentMisfit
from heteromark.environment.opponents.heuristics import connect_four, tic_tac_toe
from heteromark.import_paths import import_path

# (observation as the environment gives it, without the mask; bool [n_actions], which of them are
# legal; the copy's generator) -> number of the action
Player = Callable[[Any, np.ndarray, np.random.Generator], int]

# by the name in an environment's metadata
_HEURISTICS: Mapping[str, Player] = {"tictactoe_v3": tic_tac_toe, "connect_four_v3": connect_four}


def random_player(observation: Any, legal: np.ndarray, generator: np.random.Generator) -> int:
    """Any legal action, all of them equally likely."""
    actions = np.flatnonzero(legal)
    return int(actions[generator.integers(len(actions))])


def make_player(opponent: OpponentConfig, game: str) -> Player:
    """The player of kind random or heuristic that a config asks for.

    Args:
        opponent: the config.
        game: the name in the environment's metadata.

    Raises:
        OpponentMisfit: there is no built-in heuristic for this game.
        ValueError, ModuleNotFoundError: the config's cannot be imported.
    """
    if opponent.kind == "random":
        return random_player
    if opponent.heuristic is not None:
        return import_path(opponent.heuristic, "environment.opponent.heuristic")
    if game not in _HEURISTICS:
        raise OpponentMisfit(
            opponent.kind,
            f"there is no built-in one for {game!r} (there is for {', '.join(_HEURISTICS)}); take "
            "another opponent, random or self, or name a player of your own with "
            "environment.opponent.heuristic=module:function, a function (observation, legal "
            "actions, generator) -> action",
        )
    return _HEURISTICS[game]
