"""Fast stepping for environments that know their keys and reset finished copies themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from heteromark.environment.groups import Group
from heteromark.environment.specs import EnvironmentSpecs


def _random_legal(mask: Tensor) -> Tensor:
    """Return the index of a random True of each row of bool [..., n], int64 [...]."""
    earlier = mask.cumsum(-1, dtype=torch.float32)
    chosen = (torch.rand(mask.shape[:-1], device=mask.device) * earlier[..., -1]).floor()
    return (earlier <= chosen.unsqueeze(-1)).sum(-1)


class SelfRestartingEnv(EnvBase):
    """An EnvBase with the keys of `heteromark.environment.contract`, and a fast way to step it."""

    groups: Mapping[str, Group]  # by name

    def _set_specs(self, specs: EnvironmentSpecs) -> None:
        """Set these specs, on the device of this environment."""
        self.observation_spec = specs.observation.to(self.device)
        self.action_spec = specs.action.to(self.device)
        self.reward_spec = specs.reward.to(self.device)
        self.done_spec = specs.done.to(self.device)

    @abstractmethod
    def reseed(self, seed: int, *stream: int | str) -> None:
        """Give every copy a separate seed, used by its next reset; see the contract."""

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.reseed(seed)

    @abstractmethod
    def _restart(self, where: Tensor | None) -> TensorDictBase:
        """Reset the copies where `where` (bool [N]) is True, or all; return all copies' outputs."""

    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Set random actions; with "action_mask" in the data, legal ones, all equally likely."""
        tensordict = super().rand_action(tensordict)
        for name in self.groups:
            mask = tensordict.get((name, "action_mask"), None)
            if mask is not None:
                tensordict.set((name, "action"), _random_legal(mask))
        return tensordict

    def step_and_maybe_reset(
        self, tensordict: TensorDictBase
    ) -> tuple[TensorDictBase, TensorDictBase]:
        """Step, and reset the copies that are done; see `EnvBase.step_and_maybe_reset`.

        Equivalent to TorchRL's, but much faster because this environment knows its keys. Keys that
        the environment does not produce are missing from the second result.
        """
        if "next" in tensordict or "_step" in tensordict:
            return super().step_and_maybe_reset(tensordict)
        stepped = self._step(tensordict)
        tensordict.set("next", stepped)
        over = stepped.get("done").squeeze(-1)
        if over.any():
            return tensordict, self._restart(over)
        after = stepped.copy()
        for name in self.groups:
            after.get(name).pop("reward")
        return tensordict, after
