"""HAA2C: HAPPO without clipping."""

from __future__ import annotations

import functools

from heteromark.algorithm.base import ALGORITHMS
from heteromark.algorithm.happo import HAPPO
from heteromark.loss.happo import UnclippedLoss
from heteromark.modules.loss import ACTOR_LOSSES, sequential_loss

ACTOR_LOSSES.register("haa2c")(functools.partial(sequential_loss, UnclippedLoss))


@ALGORITHMS.register("HAA2C")
class HAA2C(HAPPO):
    """Advantage actor-critic for groups that are updated one after another, see `HAPPO`.

    Source: Zhong et al., Heterogeneous-Agent Reinforcement Learning, JMLR 2024.
    """
