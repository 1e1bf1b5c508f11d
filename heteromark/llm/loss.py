"""The clipped surrogate of GRPO over the tokens of responses.

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
    """What each token counts in the loss of a whole batch; the loss is the weighted sum.

    So the losses of micro-batches add up to that of their batch, and padding changes nothing.

    Args:
        mask: `[responses, length]`, true at the tokens of a response.
        normalisation: grpo: the mean over responses of the mean over their tokens; dapo: the mean
            over all tokens; dr_grpo: the sum over `responses * max_length`.
        max_length: of a response, in tokens.

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
    """Clipped policy loss plus a penalty for leaving the reference policy.

    Args:
        policy: computes log-probabilities of the responses in a TensorDict, `[responses, length]`,
            with gradient.
        clip_low, clip_high: the ratio is kept in `[1 - clip_low, 1 + clip_high]`.
        kl_coef: weight of the KL divergence from the reference policy (k3); 0: none is needed.

    Input, `[responses, length]` each but for the advantage:
        what the policy needs, response_mask, log_prob (of the policy that sampled; without it,
        that is the policy as it is now), weight (from `token_weights`), advantage `[responses]`,
        reference_log_prob where kl_coef is not 0, and count `[responses]` where `merged` made it.

    Output:
        loss_objective and loss_kl, to be added up; without gradient, as weighted means:
        kl_approx (to the sampling policy), kl_reference, clip_fraction, and ratio_max.
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
        """The loss of a batch or micro-batch."""
        mask, weight = batch["response_mask"], batch["weight"]
        log_prob = self.policy(batch)
        # Whatever stands beyond a response must not reach the sums, even as 0 times infinity.
        log_ratio = (log_prob - batch.get("log_prob", log_prob.detach())).masked_fill(~mask, 0.0)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        advantage = batch["advantage"].unsqueeze(-1)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        told = {
            "kl_approx": ratio - 1 - log_ratio,
            "clip_fraction": (gain < ratio * advantage).float(),
        }
        losses = {"loss_objective": -(weight * gain).sum()}
        if self.kl_coef:
            to_reference = batch["reference_log_prob"] - log_prob
            to_reference = to_reference.masked_fill(~mask, 0.0)
            divergence = to_reference.exp() - to_reference - 1
            losses["loss_kl"] = self.kl_coef * (weight * divergence).sum()
            told["kl_reference"] = divergence
        counted = mask * batch["count"].unsqueeze(-1) if "count" in batch else mask
        total = counted.sum().clamp(min=1)
        means = {name: (value.detach() * counted).sum() / total for name, value in told.items()}
        return TensorDict({**losses, **means, "ratio_max": ratio.detach().max()})
