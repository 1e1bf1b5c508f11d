"""Prompt selection: a policy that is trained by choosing its prompt wording, not its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from heteromark.llm.policies.backbone import Backbone
from heteromark.llm.policies.language_model import FrozenPolicy

# Prefix of the state's keys that hold the measured rewards.
MEASURED = "rewards."


class PromptPolicy(FrozenPolicy):
    """A language model with several prompt wordings per role, and the reward of each wording.

    Every iteration tries one wording per role, in an order that tries all combinations equally
    often. The best wording is the one with the highest mean reward; ties go to the first.

    Args:
        backbone, temperature: see `LanguageModelPolicy`.
        wordings: prompt templates by role, at least one each.
        turns: number of consecutive iterations with the same wording, by role; by default 1.

    Attributes:
        rewards: by role, float64 `[2, wordings]`: the sum of rewards and the number of responses.
    """

    def __init__(
        self,
        backbone: Backbone,
        wordings: Mapping[str, Sequence[str]],
        temperature: float = 1.0,
        turns: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(backbone, temperature)
        self.wordings = {role: tuple(texts) for role, texts in wordings.items()}
        self.turns = dict(turns or {})
        self.rewards = {
            role: torch.zeros(2, len(texts), dtype=torch.float64)
            for role, texts in self.wordings.items()
        }

    def wording_index(self, role: str, iteration: int) -> int:
        """Return the index of the wording to try in an iteration."""
        return iteration // self.turns.get(role, 1) % len(self.wordings[role])

    def credit(self, role: str, wording: int, rewards: Tensor) -> None:
        """Add the rewards of responses to a wording."""
        self.rewards[role][0, wording] += rewards.double().sum().cpu()
        self.rewards[role][1, wording] += len(rewards)

    def means(self, role: str) -> list[float]:
        """Return the mean reward of each wording; minus infinity if it was never tried."""
        total, count = self.rewards[role]
        return torch.where(count > 0, total / count, -torch.inf).tolist()

    def best(self, role: str) -> str:
        """Return the best wording; the first one if none was tried yet."""
        means = self.means(role)
        return self.wordings[role][means.index(max(means))]

    def own_state(self) -> dict[str, Tensor]:
        """Return the rewards of the wordings, and the base model's fingerprint."""
        measured = {f"{MEASURED}{role}": each.clone() for role, each in self.rewards.items()}
        return super().own_state() | measured

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `own_state`.

        Raises:
            ValueError: It belongs to another model, other roles or other numbers of wordings.
        """
        own = {f"{MEASURED}{role}": each for role, each in self.rewards.items()}
        saved = {key: value for key, value in state.items() if key.startswith(MEASURED)}
        shapes = [{key: value.shape for key, value in each.items()} for each in (own, saved)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the saved state has prompt wordings {shapes[1]}, but this policy has "
                f"{shapes[0]}: use the config that it was trained with"
            )
        super().load_own_state({k: v for k, v in state.items() if k not in saved})
        self.rewards = {role: saved[f"{MEASURED}{role}"].cpu().clone() for role in self.rewards}
