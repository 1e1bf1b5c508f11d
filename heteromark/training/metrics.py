"""Episode statistics of a batch."""

from __future__ import annotations

import math

from tensordict import TensorDict
from torch import Tensor


def episode_metrics(batch: TensorDict) -> dict[str, float | int]:
    """Return statistics of the episodes that ended in a batch [N, T].

    Returns:
        episodes, episode_return (undiscounted, per learning agent), episode_length (frames) and
        win_rate. NaN if no episode ended; win_rate also if the environment does not report wins.
    """
    stepped = batch["next"]
    ended = stepped["done"].squeeze(-1)
    won = stepped["won"][ended].squeeze(-1)
    won = won[won >= 0]
    return {
        "episodes": int(ended.sum()),
        "episode_return": _mean(stepped["episode_return"][ended]),
        "episode_length": _mean(stepped["step_count"][ended]),
        "win_rate": _mean(won),
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else math.nan
