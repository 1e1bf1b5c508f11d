"""HAPPO: update the groups one after another, each corrected for the updates before it."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor

from heteromark.algorithm.base import ALGORITHMS, Algorithm
from heteromark.algorithm.statistics import log_prob, log_ratio


@ALGORITHMS.register("HAPPO")
class HAPPO(Algorithm):
    """Heterogeneous-agent PPO, by group.

    Each iteration starts with a factor of 1 for every frame. For one group after another, all
    epochs of the group's actor are run on the objective weighted by the factor. Then the factor is
    multiplied by the ratio of the group's joint action probability after and before the update.
    Groups of one agent are the case of the paper (`policy.share_policy_params: false` splits all
    groups into such groups). Agents that share an actor are updated together. The ratio of an
    absent agent is 1.

    Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent RL, ICLR 2022.
    """

    _factor: Tensor

    def actor_keys(self, group: str) -> list[NestedKey]:
        return [*super().actor_keys(group), (group, "factor")]

    def update_actors(self, batch: TensorDict) -> dict[str, float]:
        self.reset_factor(batch)
        metrics: dict[str, dict[str, float]] = {}
        for group in self.get_agent_order():
            factor = self.get_factor_for_agent(group)
            batch.set((group, "factor"), factor)
            actor = self.learner.actors[group]
            batch.set((group, "log_prob_before"), log_prob(actor, batch, group))
            metrics[group] = self.train_actor(batch, group)
            metrics[group][f"factor_mean/{group}"] = float(factor.mean())
            self.update_factor(batch, group)
        # Keep the order of columns fixed, not that of the updates.
        return {name: x for group in self.learner.groups for name, x in metrics[group].items()}

    def reset_factor(self, batch: TensorDict) -> None:
        """Set the factor to 1 for every frame of the batch [N, T]."""
        reward = batch["next", next(iter(self.learner.groups)), "reward"]
        self._factor = reward.new_ones(batch.batch_size)

    def get_agent_order(self) -> list[str]:
        """Return the groups in update order: a new random order, or the environment's."""
        groups = list(self.learner.groups)
        if self.config.loss.agent_order == "fixed":
            return groups
        return [groups[i] for i in torch.randperm(len(groups)).tolist()]

    def get_factor_for_agent(self, group: str) -> Tensor:
        """Return the current factor for every agent of the group: [N, T, n_agents, 1]."""
        n_agents = len(self.learner.groups[group].agents)
        return self._factor[..., None, None].expand(*self._factor.shape, n_agents, 1)

    def update_factor(self, batch: TensorDict, group: str) -> None:
        """Multiply the factor by the probability ratio of the group's actions.

        Args:
            batch: [N, T] with (group, "log_prob_before"), the `log_prob` before the update; and
                after training, with "log_prob_after" (see `policy_change`).

        Raises:
            Diverged: the factor is not finite.
        """
        after = batch.get((group, "log_prob_after"), None)
        if after is None:
            after = log_prob(self.learner.actors[group], batch, group)
        change = log_ratio(
            after,
            batch[group, "log_prob_before"],
            batch[group, "active"],
            self.config.loss.action_aggregation,
        )
        self._factor = self._factor * change.sum(-1).exp()
        self.require_finite(self._factor, "factor", group)
