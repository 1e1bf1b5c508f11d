"""Past policies that play against the learner, as a pool of snapshots."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.environment.groups import Group
from heteromark.environment.pettingzoo.arrays import Arrays

Actors = Mapping[str, TensorDictModuleBase]


class OpponentPool:
    """The newest snapshots of a policy, which play the seats that do not learn.

    Each copy of the environment draws a snapshot for every episode. A snapshot acts for all its
    copies at once, on the CPU, and samples actions from the pool's own random state. Before the
    first snapshot is added, the pool plays uniformly random legal actions.

    Args:
        size: maximum number of snapshots; the oldest is removed first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._snapshots: list[dict[str, TensorDictModuleBase]] = []
        self._random_state = torch.Generator().get_state()
        # hidden states of recurrent snapshots by group, [N, n, hidden_size]
        self._hidden: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._snapshots)

    def add(self, actors: Actors) -> None:
        """Add a snapshot of the current actors, by group.

        Call this only when all environments are reset: the draw of a snapshot for an episode
        depends on the number of snapshots.
        """
        snapshot = {group: _frozen_copy(actor) for group, actor in actors.items()}
        self._snapshots = [*self._snapshots, snapshot][-self.size :]

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshots' weights, oldest first, as tensors and plain containers."""
        return {
            "snapshots": [
                {group: actor.state_dict() for group, actor in snapshot.items()}
                for snapshot in self._snapshots
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any], actors: Actors) -> None:
        """Replace the snapshots with those of a `state_dict`.

        Args:
            state: from `state_dict`.
            actors: by group; templates for the snapshots. They are not changed.

        Raises:
            ValueError: the weights do not fit the actors. The pool is then unchanged.
        """
        snapshots = []
        for weights in state["snapshots"]:
            snapshot = {group: _frozen_copy(actor) for group, actor in actors.items()}
            if set(weights) != set(snapshot):
                raise ValueError(
                    f"a past policy has actors for {', '.join(weights)}, but the groups are "
                    f"{', '.join(snapshot)}; use checkpoints with the same groups"
                )
            for group, actor in snapshot.items():
                try:
                    actor.load_state_dict(weights[group])
                except RuntimeError as error:
                    raise ValueError(
                        f"the weights of a past policy do not fit group {group!r}: {error}"
                    ) from error
            snapshots.append(snapshot)
        self._snapshots = snapshots[-self.size :]

    def reseed(self, seed: int) -> None:
        """Seed the random state that actions are sampled from."""
        self._random_state = torch.Generator().manual_seed(seed).get_state()

    def act(self, requests: Arrays, actions: Arrays, groups: Mapping[str, Group]) -> bool:
        """Choose actions for all copies that wait for one.

        Args:
            requests: arrays of `request_layout`; active agents need an action.
            actions: arrays of `action_layout`; the actions of these agents are written here.
            groups: by name.

        Returns:
            Whether any copy waited.
        """
        waiting = np.concatenate([requests[name, "active"] for name in groups], axis=1).any(1)
        if not waiting.any():
            return False
        begins = torch.from_numpy(waiting & (requests["turns"][:, 0] == 0))
        for hidden in self._hidden.values():
            hidden[begins] = 0
        chosen = (requests["draw"][:, 0] * len(self._snapshots)).astype(np.int64)
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            set_exploration_type(ExplorationType.RANDOM),
        ):
            torch.set_rng_state(self._random_state)
            for index in np.unique(chosen[waiting]):
                rows = np.flatnonzero(waiting & (chosen == index))
                for name, group in groups.items():
                    active = requests[name, "active"][rows]
                    if not active.any():
                        continue
                    if self._snapshots:
                        action = self._action(self._snapshots[index][name], name, requests, rows)
                    else:
                        action = _random_action(group, requests.get((name, "action_mask")), rows)
                    copies, agents = np.nonzero(active)
                    actions[name, "action"][rows[copies], agents] = action.numpy()[copies, agents]
            self._random_state = torch.get_rng_state()
        return True

    def _action(
        self, actor: TensorDictModuleBase, name: str, requests: Arrays, rows: np.ndarray
    ) -> Tensor:
        """Return a group's actions in the copies `rows`, [rows, n] or [rows, n, action_size]."""
        inputs = TensorDict(
            {
                name: {
                    key: torch.from_numpy(requests[name, key][rows])
                    for key in ("observation", "active", "action_mask")
                    if (name, key) in requests
                },
                "step_count": torch.from_numpy(requests["turns"][rows]),
            },
            batch_size=[len(rows)],
        )
        if (name, "hidden") not in actor.in_keys:
            return actor(inputs)[name, "action"]
        hidden = self._hidden_state(actor, name, requests)
        inputs[name, "hidden"] = hidden[rows]
        outputs = actor(inputs)
        hidden[rows] = outputs["next", name, "hidden"]
        return outputs[name, "action"]

    def _hidden_state(self, actor: TensorDictModuleBase, name: str, requests: Arrays) -> Tensor:
        if name not in self._hidden:
            sizes = (m.hidden_size for m in actor.modules() if hasattr(m, "hidden_size"))
            self._hidden[name] = torch.zeros(*requests[name, "active"].shape, next(sizes))
        return self._hidden[name]


def _frozen_copy(actor: TensorDictModuleBase) -> TensorDictModuleBase:
    return copy.deepcopy(actor).to("cpu").requires_grad_(False)


def _random_action(group: Group, mask: np.ndarray | None, rows: np.ndarray) -> Tensor:
    shape = (len(rows), len(group.agents))
    space = group.action_space
    if isinstance(space, spaces.Box):
        low, high = map(torch.as_tensor, (space.low, space.high))
        return low + (high - low) * torch.rand(*shape, group.action_size)
    legal = torch.ones(*shape, group.action_size)
    if mask is not None:
        legal = torch.from_numpy(mask[rows]).float()
    return torch.multinomial(legal.flatten(0, 1), 1).view(shape)
