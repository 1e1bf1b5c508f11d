"""Past policies that play against the learner."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.environment.groups import Group
from heteromark.environment.pettingzoo.arrays import Arrays

Actors = Mapping[str, TensorDictModuleBase]


class OpponentPool:
    """The newest snapshots of a policy, which play the seats that do not learn.

    Each copy of the environment draws a snapshot for every episode. Snapshots act for all copies
    that they play in at once, on the CPU, and sample their actions from a random state of the
    pool's own. Before the first snapshot is added, actions are random, all legal ones equally
    likely.

    Args:
        size: number of snapshots that are kept; the oldest leaves first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._snapshots: list[dict[str, TensorDictModuleBase]] = []
        self._random_state = torch.Generator().get_state()
        # by group, what recurrent snapshots remember: [N, n, memory_size]
        self._memory: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._snapshots)

    def add(self, actors: Actors) -> None:
        """Take a snapshot of the actors, by group, as they are now.

        Call it where the environments are restarted: which snapshot plays an episode follows from
        their number.
        """
        snapshot = {group: _frozen_copy(actor) for group, actor in actors.items()}
        self._snapshots = [*self._snapshots, snapshot][-self.size :]

    def state_dict(self) -> dict[str, Any]:
        """The snapshots' weights, oldest first, as tensors and plain containers."""
        return {
            "snapshots": [
                {group: actor.state_dict() for group, actor in snapshot.items()}
                for snapshot in self._snapshots
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any], actors: Actors) -> None:
        """Replace the snapshots by those of a `state_dict`.

        Args:
            state: from `state_dict`.
            actors: by group; how the snapshots are built. They are not changed.

        Raises:
            ValueError: the weights do not fit the actors.
        """
        snapshots = []
        for weights in state["snapshots"]:
            snapshot = {group: _frozen_copy(actor) for group, actor in actors.items()}
            if set(weights) != set(snapshot):
                raise ValueError(
                    f"a past policy has actors of {', '.join(weights)}, but the groups are "
                    f"{', '.join(snapshot)}"
                )
            for group, actor in snapshot.items():
                try:
                    actor.load_state_dict(weights[group])
                except RuntimeError as error:
                    raise ValueError(
                        f"a past policy does not fit group {group!r}: {error}"
                    ) from error
            snapshots.append(snapshot)
        self._snapshots = snapshots[-self.size :]

    def reseed(self, seed: int) -> None:
        """Seed the sampling of actions."""
        self._random_state = torch.Generator().manual_seed(seed).get_state()

    def act(self, asked: Arrays, actions: Arrays, groups: Mapping[str, Group]) -> bool:
        """Answer every copy that asks.

        Args:
            asked: arrays of `asked_layout`; where an agent is active, its action is wanted.
            actions: arrays of `action_layout`; receive the actions of these agents.
            groups: by name.

        Returns:
            Whether any copy asked.
        """
        asking = np.concatenate([asked[name, "active"] for name in groups], axis=1).any(1)
        if not asking.any():
            return False
        begins = torch.from_numpy(asking & (asked["turns"][:, 0] == 0))
        for memory in self._memory.values():
            memory[begins] = 0
        chosen = (asked["draw"][:, 0] * len(self._snapshots)).astype(np.int64)
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            set_exploration_type(ExplorationType.RANDOM),
        ):
            torch.set_rng_state(self._random_state)
            for index in np.unique(chosen[asking]):
                rows = np.flatnonzero(asking & (chosen == index))
                for name, group in groups.items():
                    active = asked[name, "active"][rows]
                    if not active.any():
                        continue
                    if self._snapshots:
                        action = self._action(self._snapshots[index][name], name, asked, rows)
                    else:
                        action = _random_action(group, asked.get((name, "action_mask")), rows)
                    copies, agents = np.nonzero(active)
                    actions[name, "action"][rows[copies], agents] = action.numpy()[copies, agents]
            self._random_state = torch.get_rng_state()
        return True

    def _action(
        self, actor: TensorDictModuleBase, name: str, asked: Arrays, rows: np.ndarray
    ) -> Tensor:
        """What one group's actor does in the copies `rows`, [rows, n] or [rows, n, action_size]."""
        seen = TensorDict(
            {
                name: {
                    key: torch.from_numpy(asked[name, key][rows])
                    for key in ("observation", "active", "action_mask")
                    if (name, key) in asked
                },
                "step_count": torch.from_numpy(asked["turns"][rows]),
            },
            batch_size=[len(rows)],
        )
        if (name, "hidden") not in actor.in_keys:
            return actor(seen)[name, "action"]
        memory = self._remembered(actor, name, asked)
        seen[name, "hidden"] = memory[rows]
        acted = actor(seen)
        memory[rows] = acted["next", name, "hidden"]
        return acted[name, "action"]

    def _remembered(self, actor: TensorDictModuleBase, name: str, asked: Arrays) -> Tensor:
        if name not in self._memory:
            sizes = (m.hidden_size for m in actor.modules() if hasattr(m, "hidden_size"))
            self._memory[name] = torch.zeros(*asked[name, "active"].shape, next(sizes))
        return self._memory[name]


def _frozen_copy(actor: TensorDictModuleBase) -> TensorDictModuleBase:
    return copy.deepcopy(actor).to("cpu").requires_grad_(False)


def _random_action(group: Group, mask: np.ndarray | None, rows: np.ndarray) -> Tensor:
    shape = (len(rows), len(group.agents))
    if not group.is_discrete:
        low, high = map(torch.as_tensor, (group.action_space.low, group.action_space.high))
        return low + (high - low) * torch.rand(*shape, group.action_size)
    legal = torch.ones(*shape, group.action_size)
    if mask is not None:
        legal = torch.from_numpy(mask[rows]).float()
    return torch.multinomial(legal.flatten(0, 1), 1).view(shape)
