"""PPO for several groups at once: MAPPO, IPPO and MaskablePPO."""

from __future__ import annotations

from tensordict import TensorDict

from heteromark.algorithm.base import ALGORITHMS, Algorithm


class SimultaneousPPO(Algorithm):
    """Updates every group without correcting for the updates of the other groups."""

    def update_actors(self, batch: TensorDict) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for group in self.learner.groups:
            metrics |= self.train_actor(batch, group)
        return metrics


@ALGORITHMS.register("MAPPO")
class MAPPO(SimultaneousPPO):
    """Multi-agent PPO: a centralised critic of the team's return.

    Source: Yu et al., The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games,
    NeurIPS 2022.
    """


@ALGORITHMS.register("IPPO")
class IPPO(SimultaneousPPO):
    """Independent PPO: one critic per group, which sees only the agent's own observation.

    Source: de Witt et al., Is Independent Learning All You Need in the StarCraft Multi-Agent
    Challenge?, 2020.
    """


@ALGORITHMS.register("MaskablePPO")
class MaskablePPO(IPPO):
    """IPPO under the usual name for action masks. All algorithms here support action masks.

    Source: Huang and Ontañón, A Closer Look at Invalid Action Masking, FLAIRS 2022.
    """
