"""A policy that is trained by choosing the wording of its prompts; no weight changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from heteromark.llm.policies.backbone import Backbone
from heteromark.llm.policies.language_model import FrozenPolicy

# Prefix of the entries of its state that hold what was measured.
MEASURED = "rewards."


class PromptPolicy(FrozenPolicy):
    """A language model, and for each of its roles several wordings, with what each has earned.

    Every iteration tries one wording per role, in such an order that over the iterations each goes
    with each of the others as often. The one with the highest mean reward is the best; of equal
    ones, the first.

    Args:
        backbone, temperature: see `LanguageModelPolicy`.
        wordings: by role, prompt templates, at least one.
        turns: by role, how many iterations it stays with a wording; by default one.

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

    def tried(self, role: str, iteration: int) -> int:
        """The number of the wording that an iteration tries."""
        return iteration // self.turns.get(role, 1) % len(self.wordings[role])

    def credit(self, role: str, wording: int, rewards: Tensor) -> None:
        """Count what responses to a wording earned."""
        self.rewards[role][0, wording] += rewards.double().sum().cpu()
        self.rewards[role][1, wording] += len(rewards)

    def means(self, role: str) -> list[float]:
        """The mean reward of each wording; minus infinity for one that was never tried."""
        total, count = self.rewards[role]
        return torch.where(count > 0, total / count, -torch.inf).tolist()

    def best(self, role: str) -> str:
        """The wording to use; the first of all before anything was tried."""
        means = self.means(role)
        return self.wordings[role][means.index(max(means))]

    def own_state(self) -> dict[str, Tensor]:
        """What each wording earned, and what model that was with."""
        measured = {f"{MEASURED}{role}": each.clone() for role, each in self.rewards.items()}
        return super().own_state() | measured

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: it is of another model, or of other roles or numbers of wordings.
        """
        own = {f"{MEASURED}{role}": each for role, each in self.rewards.items()}
        saved = {key: value for key, value in state_dict.items() if key.startswith(MEASURED)}
        shapes = [{key: value.shape for key, value in each.items()} for each in (own, saved)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the state is of wordings {shapes[1]}, but this policy has {shapes[0]}; use the "
                "config that it was trained with"
            )
        super().load_state_dict({k: v for k, v in state_dict.items() if k not in saved})
        self.rewards = {role: saved[f"{MEASURED}{role}"].cpu().clone() for role in self.rewards}
