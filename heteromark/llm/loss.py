"""The clipped surrogate objective of GRPO over response tokens.

Sources: Shao et al., DeepSeekMath, 2024 (grpo); Yu et al., DAPO, 2025 (token mean, a higher upper
clip); Liu et al., Understanding R1-Zero-Like Training, 2025 (dr_grpo); Schulman, Approximating KL
Divergence, 2020 (the estimator k3).
"""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.objectives import LossModule

Normalisation = Literal["grpo", "dapo", "dr_grpo"]


def token_weights(mask: Tensor, normalisation: Normalisation, max_length: int) -> Tensor:
    """Return the weight of each token in the loss of a batch, which is a weighted sum.

    Therefore, the losses of micro-batches add up to the loss of the batch; padding has no effect.

    Args:
        mask: `[responses, length]`, True at the tokens of a response.
        normalisation: grpo: mean over responses of the mean over their tokens; dapo: mean over all
            tokens; dr_grpo: sum divided by `responses * max_length`.
        max_length: maximum length of a response, in tokens.

    Returns:
        `[responses, length]`, 0 outside the mask.
    """
    weights = mask.float()
    if normalisation == "grpo":
        return weights / weights.sum(-1, keepdim=True).clamp(min=1) / len(mask)
    if normalisation == "dapo":
        return weights / weights.sum().clamp(min=1)
    return weights / (len(mask) * max_length)


class GroupRelativeLoss(LossModule):
    """Clipped policy loss plus a KL penalty towards the reference policy.

    Args:
        policy: computes log-probabilities of the responses in a TensorDict, `[responses, length]`,
            with gradient.
        clip_low: the ratio is clipped below at `1 - clip_low`.
        clip_high: the ratio is clipped above at `1 + clip_high`.
        kl_coef: weight of the KL divergence from the reference policy (estimator k3); 0: no
            reference is needed.

    Input, `[responses, length]` unless noted:
        - the policy's inputs, and response_mask;
        - log_prob: of the sampling policy; if missing, the current policy is the sampling policy;
        - weight: from `token_weights`;
        - advantage: `[responses]`;
        - reference_log_prob: if kl_coef is not 0;
        - count: `[responses]`, if the batch comes from `merged`.

    Output:
        The loss is the sum of loss_objective and, if kl_coef is not 0, loss_kl. Without gradient:
        the means kl_approx (from the sampling policy), clip_fraction and kl_reference over tokens,
        and ratio_max.
    """

    def __init__(
        self,
        policy: torch.nn.Module,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        kl_coef: float = 0.0,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.clip_low, self.clip_high = clip_low, clip_high
        self.kl_coef = kl_coef

    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch or micro-batch."""
        mask, weight = batch["response_mask"], batch["weight"]
        log_prob = self.policy(batch)
        # Mask the padding before any product: 0 times infinity would be NaN.
        log_ratio = (log_prob - batch.get("log_prob", log_prob.detach())).masked_fill(~mask, 0.0)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        advantage = batch["advantage"].unsqueeze(-1)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        measured = {
            "kl_approx": ratio - 1 - log_ratio,
            "clip_fraction": (gain < ratio * advantage).float(),
        }
        losses = {"loss_objective": -(weight * gain).sum()}
        if self.kl_coef:
            to_reference = batch["reference_log_prob"] - log_prob
            to_reference = to_reference.masked_fill(~mask, 0.0)
            divergence = to_reference.exp() - to_reference - 1
            losses["loss_kl"] = self.kl_coef * (weight * divergence).sum()
            measured["kl_reference"] = divergence
        counted = mask * batch["count"].unsqueeze(-1) if "count" in batch else mask
        total = counted.sum().clamp(min=1)
        means = {name: (value.detach() * counted).sum() / total for name, value in measured.items()}
        return TensorDict({**losses, **means, "ratio_max": ratio.detach().max()})
