"""GRPO: a text policy's update on the responses of one iteration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch.optim import Optimizer

from heteromark.algorithm.learner import take_step
from heteromark.config.models.llm import GroupRelativeConfig
from heteromark.llm.advantage import GroupAdvantage, best_responses, group_advantage
from heteromark.llm.batches import merged, micro_batches
from heteromark.llm.loss import GroupRelativeLoss, token_weights
from heteromark.llm.policies.base import TextPolicy

LARGEST = "ratio_max"  # of all tokens; the other metrics are sums or means


def judge_by_group(batch: TensorDict, scale: bool = True) -> GroupAdvantage:
    """Advantages within the groups of a batch `[responses]`, see `group_advantage`."""
    return group_advantage(batch["reward"], batch["group_id"], scale=scale)


@dataclass(frozen=True)
class GroupRelativeUpdate:
    """How responses become updated weights.

    Attributes:
        settings: how responses count, and how many are computed at once.
        epochs: passes over the responses.
        max_length: of a response, in tokens.
        max_grad_norm: gradients are clipped to this norm; None: not clipped.
        minibatch_size: responses per optimizer step; None: all.
        judge: the advantages of a batch `[responses]`, see `LanguageModelAlgorithm.judge`.
    """

    settings: GroupRelativeConfig
    epochs: int
    max_length: int
    max_grad_norm: float | None
    minibatch_size: int | None = None
    judge: Callable[[TensorDict], GroupAdvantage] = judge_by_group

    def __call__(
        self,
        policy: TextPolicy,
        loss: GroupRelativeLoss,
        optimizer: Optimizer,
        batch: TensorDict,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Update a policy.

        Args:
            optimizer: of the policy's own weights.
            batch: `[responses]`, as `roll_out` made it.
            generator: of the order of responses; on the CPU.

        Returns:
            metrics by name: means over the optimizer steps, and the largest ratio in any of them.

        Raises:
            Diverged: a loss or gradient is not finite.
        """
        judged = self.judge(batch)
        batch = batch.exclude("log_prob").set("advantage", judged.advantage)
        batch["is_flat"] = judged.is_flat
        settings = self.settings
        if settings.filter_method != "none":
            # all are judged, and the best are trained on
            reward, group = batch["reward"], batch["group_id"]
            batch = batch[
                best_responses(reward, group, settings.filter_method, settings.filter_ratio)
            ]
        if loss.kl_coef:
            batch["reference_log_prob"] = self._computed(policy.reference_log_probs, batch)
        size = self.minibatch_size or len(batch)
        if self.epochs > 1 or size < len(batch):
            with torch.no_grad():
                batch["log_prob"] = self._computed(policy, batch)
        steps = [
            self._step(policy, loss, optimizer, minibatch)
            for minibatch in self._minibatches(batch, size, generator)
            # a step without a gradient would still follow the momentum
            if not (settings.drop_flat and minibatch["is_flat"].all())
        ]
        means = {
            name: sum(step[name] for step in steps) / len(steps) if steps else math.nan
            for name in self.measured(loss)
        }
        largest = max((step[LARGEST] for step in steps), default=math.nan)
        return {"flat_share": judged.flat_share, **means, LARGEST: largest}

    @staticmethod
    def measured(loss: GroupRelativeLoss) -> list[str]:
        """What is averaged over steps."""
        names = ["loss_objective", "kl_approx", "clip_fraction", "grad_norm"]
        return names + (["loss_kl", "kl_reference"] if loss.kl_coef else [])

    def _minibatches(
        self, batch: TensorDict, size: int, generator: torch.Generator
    ) -> Iterator[TensorDict]:
        for _ in range(self.epochs):
            order = torch.randperm(len(batch), generator=generator)
            for rows in order.split(size):
                yield batch[rows]

    def _step(
        self,
        policy: TextPolicy,
        loss: GroupRelativeLoss,
        optimizer: Optimizer,
        minibatch: TensorDict,
    ) -> dict[str, float]:
        """One optimizer step, its gradients accumulated over micro-batches."""
        mask = minibatch["response_mask"]
        minibatch["weight"] = token_weights(mask, self.settings.normalization, self.max_length)
        if self.settings.drop_flat:
            minibatch = minibatch[~minibatch["is_flat"]]
        tokens = int(minibatch["response_mask"].sum())
        minibatch = merged(minibatch)
        optimizer.zero_grad()
        sums: dict[str, float] = {}
        for part in micro_batches(minibatch, self.settings.micro_batch_size):
            found = loss(part)
            losses = [found["loss_objective"], *([found["loss_kl"]] if loss.kl_coef else [])]
            sum(losses).backward()
            share = int((part["response_mask"].sum(-1) * part["count"]).sum()) / tokens
            for name, value in found.items():
                if name == LARGEST:
                    sums[name] = max(sums.get(name, 0.0), value.item())
                else:
                    # losses are sums over tokens, the others means over them
                    counts = 1.0 if name.startswith("loss_") else share
                    sums[name] = sums.get(name, 0.0) + counts * value.item()
        return take_step(optimizer, self.max_grad_norm, sums)

    def _computed(self, function, batch: TensorDict) -> torch.Tensor:
        """Log-probabilities of all responses, micro-batch by micro-batch."""
        found = torch.zeros(batch["action"].shape, device=batch["action"].device)
        numbered = batch.copy().set("row", torch.arange(len(batch), device=found.device))
        for part in micro_batches(numbered, self.settings.micro_batch_size):
            found[part["row"], : part["action"].shape[-1]] = function(part)
        return found
