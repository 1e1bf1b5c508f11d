"""GRPO: update a text policy on the responses of one iteration."""

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

LARGEST = "ratio_max"  # a maximum over all tokens; the other metrics are sums or means


def judge_by_group(batch: TensorDict, scale: bool = True) -> GroupAdvantage:
    """Compute the advantages within the groups of a batch `[responses]`; see `group_advantage`."""
    return group_advantage(batch["reward"], batch["group_id"], scale=scale)


@dataclass(frozen=True)
class GroupRelativeUpdate:
    """The update of a policy, with its settings.

    Attributes:
        settings: normalization, filtering and micro-batch size.
        epochs: passes over the responses.
        max_length: maximum length of a response, in tokens.
        max_grad_norm: maximum norm of the gradients; None: not clipped.
        minibatch_size: responses per optimizer step; None: all.
        judge: computes the advantages of a batch `[responses]`; see
            `LanguageModelAlgorithm.judge`.
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
            policy: the policy to update.
            loss: the policy's loss.
            optimizer: optimizer of the policy's trained weights.
            batch: `[responses]`, from `roll_out`.
            generator: shuffles the responses; on the CPU.

        Returns:
            Metrics by name: means over the optimizer steps, and the maximum ratio over all steps.

        Raises:
            Diverged: A loss or gradient is not finite.
        """
        judged = self.judge(batch)
        batch = batch.exclude("log_prob").set("advantage", judged.advantage)
        batch["is_flat"] = judged.is_flat
        settings = self.settings
        if settings.filter_method != "none":
            # the advantages come from all responses, the update only from the best
            reward, group = batch["reward"], batch["group_id"]
            batch = batch[
                best_responses(reward, group, settings.filter_method, settings.filter_ratio)
            ]
        if loss.kl_coef:
            batch["reference_log_prob"] = self._log_probs(policy.reference_log_probs, batch)
        size = self.minibatch_size or len(batch)
        if self.epochs > 1 or size < len(batch):
            with torch.no_grad():
                batch["log_prob"] = self._log_probs(policy, batch)
        steps = [
            self._step(policy, loss, optimizer, minibatch)
            for minibatch in self._minibatches(batch, size, generator)
            # skip steps without a gradient: the optimizer's momentum would still change the weights
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
        """Return the names of the metrics that are averaged over steps."""
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
        """Take one optimizer step with gradients accumulated over micro-batches."""
        mask = minibatch["response_mask"]
        minibatch["weight"] = token_weights(mask, self.settings.normalization, self.max_length)
        if self.settings.drop_flat:
            minibatch = minibatch[~minibatch["is_flat"]]
        tokens = int(minibatch["response_mask"].sum())
        minibatch = merged(minibatch)
        optimizer.zero_grad()
        sums: dict[str, float] = {}
        for part in micro_batches(minibatch, self.settings.micro_batch_size):
            measured = loss(part)
            total = measured["loss_objective"]
            if loss.kl_coef:
                total = total + measured["loss_kl"]
            total.backward()
            share = int((part["response_mask"].sum(-1) * part["count"]).sum()) / tokens
            for name, value in measured.items():
                if name == LARGEST:
                    sums[name] = max(sums.get(name, 0.0), value.item())
                else:
                    # losses are sums over tokens; the other metrics are means over tokens
                    factor = 1.0 if name.startswith("loss_") else share
                    sums[name] = sums.get(name, 0.0) + factor * value.item()
        return take_step(optimizer, self.max_grad_norm, sums)

    def _log_probs(
        self, function: Callable[[TensorDict], torch.Tensor], batch: TensorDict
    ) -> torch.Tensor:
        """Compute the log-probabilities of all responses, one micro-batch at a time."""
        log_probs = torch.zeros(batch["action"].shape, device=batch["action"].device)
        numbered = batch.copy().set("row", torch.arange(len(batch), device=log_probs.device))
        for part in micro_batches(numbered, self.settings.micro_batch_size):
            log_probs[part["row"], : part["action"].shape[-1]] = function(part)
        return log_probs
