"""The report in evaluation.json, for any kind of agents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from heteromark.config.models.components import EvaluationConfig, OpponentConfig


class Episode(NamedTuple):
    """The result of one episode."""

    episode_return: float  # undiscounted, mean over the learning agents
    length: int  # frames
    won: int  # 1 or 0; -1: the environment does not report wins
    cut_off: bool = False  # ended by `evaluation.max_steps`


def as_report(
    episodes: Sequence[Episode],
    settings: EvaluationConfig,
    seed: int,
    opponent: OpponentConfig | None = None,
) -> dict[str, Any]:
    """Return the content of evaluation.json.

    A value is None if it was not measured or is not finite: a mean over no episodes, an infinite
    return, or wins in an environment that does not report them.

    Args:
        opponent: who played the other seats; None in environments without turns.

    Returns:
        Returns, lengths and wins per episode, their means, and the settings. With an opponent also
        the games by outcome, and `not_lost_rate`, the share won or drawn. A cut-off episode counts
        with its return so far, and as neither won, drawn nor lost.
    """
    returns = [episode.episode_return for episode in episodes]
    lengths = [episode.length for episode in episodes]
    finite = bool(returns) and all(math.isfinite(value) for value in returns)
    ended = [episode for episode in episodes if not episode.cut_off]
    known = bool(ended) and min(episode.won for episode in ended) >= 0
    wins = [episode.won == 1 and not episode.cut_off for episode in episodes] if known else None
    rival = None if opponent is None or opponent.kind == "self" else opponent
    outcomes = _outcomes(ended) if known and rival is not None else None
    return {
        "episodes": len(episodes),
        "deterministic": settings.deterministic,
        "seed": seed,
        "max_steps": settings.max_steps,
        "opponent": opponent and opponent.kind,
        "seat": None if rival is None else rival.seat,
        "returns": [value if math.isfinite(value) else None for value in returns],
        "lengths": lengths,
        "wins": wins,
        "cut_off": len(episodes) - len(ended),
        "return_mean": float(np.mean(returns)) if finite else None,
        "return_std": float(np.std(returns)) if finite else None,
        "length_mean": float(np.mean(lengths)) if lengths else None,
        "win_rate": None if wins is None else float(np.mean(wins)),
        "outcomes": outcomes,
        "not_lost_rate": (
            (outcomes["won"] + outcomes["drawn"]) / len(episodes) if outcomes else None
        ),
    }


def _outcomes(ended: Sequence[Episode]) -> dict[str, int]:
    """Count games by outcome. A game that was not won is lost if its return is negative."""
    won = sum(episode.won == 1 for episode in ended)
    lost = sum(episode.won == 0 and episode.episode_return < 0 for episode in ended)
    return {"won": won, "drawn": len(ended) - won - lost, "lost": lost}
