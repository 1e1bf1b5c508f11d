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
_NOBODY = -1  # number of the snapshot that plays if there is none: uniformly random legal actions


class OpponentPool:
    """The newest snapshots of a policy, which play the seats that do not learn.

    Each copy of the environment draws a snapshot for every episode, and keeps it to the end, even
    if the pool drops it meanwhile. A snapshot acts for all its copies at once, on the CPU, and
    samples actions from the pool's own random state. Episodes that begin before the first snapshot
    is added are played with uniformly random legal actions.

    Args:
        size: maximum number of snapshots to draw from; the oldest is dropped first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # by number, counted from 0; the last `size` of them can be drawn, earlier ones still play
        self._snapshots: dict[int, dict[str, TensorDictModuleBase]] = {}
        self._added = 0
        self._random_state = torch.Generator().get_state()
        self._playing: np.ndarray | None = None  # int64 [N], the number of each copy's snapshot
        # hidden states of recurrent snapshots by group, [N, n, hidden_size]
        self._hidden: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._drawable)

    @property
    def _drawable(self) -> range:
        """Numbers of the snapshots that an episode can draw."""
        return range(max(0, self._added - self.size), self._added)

    def add(self, actors: Actors) -> None:
        """Add a snapshot of the current actors, by group."""
        self._snapshots[self._added] = {group: _frozen_copy(a) for group, a in actors.items()}
        self._added += 1
        needed = {*self._drawable, *([] if self._playing is None else self._playing.tolist())}
        self._snapshots = {n: each for n, each in self._snapshots.items() if n in needed}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the snapshots that can be drawn, as tensors and containers."""
        return {"snapshots": [_weights(self._snapshots[number]) for number in self._drawable]}

    def load_state_dict(self, state: Mapping[str, Any], actors: Actors) -> None:
        """Replace the snapshots with those of a `state_dict`.

        Args:
            state: from `state_dict`.
            actors: by group; templates for the snapshots. They are not changed.

        Raises:
            ValueError: the weights do not fit the actors. The pool is then unchanged.
        """
        snapshots = [_snapshot(weights, actors) for weights in state["snapshots"]]
        self._snapshots = dict(enumerate(snapshots))
        self._added = len(snapshots)
        self._playing = None

    def running_episodes(self) -> dict[str, Any]:
        """Return what the running episodes need, as tensors and plain containers."""
        playing = None if self._playing is None else torch.from_numpy(self._playing.copy())
        return {
            "added": self._added,
            "playing": playing,
            "dropped": {
                number: _weights(snapshot)
                for number, snapshot in self._snapshots.items()
                if number not in self._drawable
            },
            "random": self._random_state,
            "hidden": {name: hidden.clone() for name, hidden in self._hidden.items()},
        }

    def continue_episodes(self, episodes: Mapping[str, Any]) -> None:
        """Continue the episodes of a `running_episodes`, after the pool's state was loaded."""
        actors = next(iter(self._snapshots.values()), {})
        first = episodes["added"] - len(self._snapshots)
        kept = {first + number: each for number, each in self._snapshots.items()}
        dropped = episodes["dropped"]
        self._snapshots = {n: _snapshot(weights, actors) for n, weights in dropped.items()} | kept
        self._added = episodes["added"]
        playing = episodes["playing"]
        self._playing = None if playing is None else playing.numpy().copy()
        self._random_state = episodes["random"].cpu()
        self._hidden = {name: hidden.clone() for name, hidden in episodes["hidden"].items()}

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
        chosen = self._draw(waiting & (requests["turns"][:, 0] == 0), requests["draw"][:, 0])
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            set_exploration_type(ExplorationType.RANDOM),
        ):
            torch.set_rng_state(self._random_state)
            for number in np.unique(chosen[waiting]).tolist():
                rows = np.flatnonzero(waiting & (chosen == number))
                for name, group in groups.items():
                    active = requests[name, "active"][rows]
                    if not active.any():
                        continue
                    if number == _NOBODY:
                        action = _random_action(group, requests.get((name, "action_mask")), rows)
                    else:
                        action = self._action(self._snapshots[number][name], name, requests, rows)
                    copies, agents = np.nonzero(active)
                    actions[name, "action"][rows[copies], agents] = action.numpy()[copies, agents]
            self._random_state = torch.get_rng_state()
        return True

    def _draw(self, begins: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Draw a snapshot for the copies whose episode begins; return all copies' snapshots."""
        if self._playing is None:
            self._playing = np.full(len(begins), _NOBODY)
        numbers = np.array([*self._drawable] or [_NOBODY])
        self._playing[begins] = numbers[(draw[begins] * len(numbers)).astype(np.int64)]
        for hidden in self._hidden.values():
            hidden[torch.from_numpy(begins)] = 0
        return self._playing

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


def _weights(snapshot: Actors) -> dict[str, Any]:
    return {group: actor.state_dict() for group, actor in snapshot.items()}


def _snapshot(weights: Mapping[str, Any], actors: Actors) -> dict[str, TensorDictModuleBase]:
    """Return copies of actors with these weights, by group."""
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
    return snapshot


def _frozen_copy(actor: TensorDictModuleBase) -> TensorDictModuleBase:
    return copy.deepcopy(actor).to("cpu").requires_grad_(False)


def _random_action(group: Group, mask: np.ndarray | None, rows: np.ndarray) -> Tensor:
    shape = (len(rows), len(group.agents))
    space = group.action_space
    if isinstance(space, spaces.Box):
        low, high = map(torch.as_tensor, (space.low, space.high))
        return low + (high - low) * torch.rand(*shape, group.action_size)
    if isinstance(space, spaces.MultiDiscrete):
        return torch.stack([torch.randint(n, shape) for n in group.choices], -1)
    legal = torch.ones(*shape, group.action_size)
    if mask is not None:
        legal = torch.from_numpy(mask[rows]).float()
    return torch.multinomial(legal.flatten(0, 1), 1).view(shape)
