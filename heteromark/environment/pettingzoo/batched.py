"""N copies of an environment as one TorchRL environment."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from heteromark.config.models.components import OpponentConfig
from heteromark.environment.opponents.pool import OpponentPool
from heteromark.environment.pettingzoo.arrays import (
    action_layout,
    output_layout,
    request_layout,
    views_of,
)
from heteromark.environment.pettingzoo.copies import (
    Copies,
    CopySettings,
    copy_settings,
    make_copy,
)
from heteromark.environment.pettingzoo.episodes import RunningEpisode
from heteromark.environment.pettingzoo.workers import WorkerPool
from heteromark.environment.specs import make_specs
from heteromark.environment.stepping import SelfRestartingEnv
from heteromark.seeds import stream_seed


class BatchedEnv(SelfRestartingEnv):
    """N copies stepped together; batch size [N], keys and shapes of `make_specs`.

    Copies write their outputs to one block of memory. It is copied once per step, so returned data
    never changes. Finished copies are reset one by one through TorchRL's "_reset" mask, and `next`
    keeps the true final observation.

    Args:
        make_env: returns a fresh environment; must be picklable if `num_workers` is positive.
        num_envs: number of copies N.
        opponent: who plays the seats that do not learn, in turn-based environments.
        num_workers: worker processes that share the copies; 0: use this process. It changes the
            speed, not the result, even if copies draw from Python's or NumPy's global generator
            (but not from torch's); for the exception that causes a warning, see `GlobalStreams`.
        group_by, groups, split: see `group_agents`.
        team_reward: train every agent on the mean of all agents' rewards.
        with_state: read the environment's global state.
        name: the environment's name in error messages.
        render: create copy 0 with a render mode.
        first: index of copy 0 among all copies of the run.
        first_env: an existing fresh environment; it becomes copy 0, or is closed if workers create
            their own.

    Attributes:
        groups: by name.
        turn_based: agents act one after the other, and one frame is one turn.
        state_size: size of the root key "state"; None: there is no such key.
        opponent_pool: past policies that play against the learner; None: there are none.
        stepped_by_python: steps keep the CPU cores busy, so torch needs fewer threads.

    Raises:
        TypeError: `make_env` returns an unsupported type.
        ValueError, ModuleNotFoundError: groups, spaces, the state or the opponent do not fit; for
            errors while stepping, see the class of the copies.
        WorkerDied: a worker process ended.
    """

    opponent_pool: OpponentPool | None = None
    stepped_by_python = True
    # set by subclasses: the class that steps the copies, and PettingZoo's environment class
    _copies_class: type[Copies]
    _environment_class: type[Any]

    def __init__(
        self,
        make_env: Callable[..., Any],
        num_envs: int,
        *,
        opponent: OpponentConfig | None = None,
        num_workers: int = 0,
        group_by: str = "prefix",
        groups: Mapping[str, Sequence[str]] | None = None,
        split: bool = False,
        team_reward: bool = True,
        with_state: bool = False,
        name: str = "environment",
        render: bool = False,
        first: int = 0,
        first_env: Any = None,
    ) -> None:
        super().__init__(device="cpu", batch_size=[num_envs])
        first_env = first_env or make_copy(make_env, name, render=render, number=first)
        if not isinstance(first_env, self._environment_class):
            raise TypeError(
                f"the factory of environment {name!r} returned {type(first_env).__name__}, not a "
                f"pettingzoo.{self._environment_class.__name__}"
            )
        settings = copy_settings(
            make_env,
            first_env,
            name,
            opponent=opponent or OpponentConfig(),
            group_by=group_by,
            groups=groups,
            split=split,
            team_reward=team_reward,
            with_state=with_state,
            render=render,
            first=first,
        )
        self._check_opponent(settings)
        description = settings.description
        self.groups = dict(settings.groups)
        self.turn_based = description.turn_based
        self.state_size = description.state_size
        self._layout = output_layout(self.groups, num_envs, self.state_size)
        layouts = [self._layout, action_layout(self.groups, num_envs)]
        if settings.opponent.kind == "past_self":
            layouts.append(request_layout(self.groups, num_envs))
            self.opponent_pool = OpponentPool(settings.opponent.pool_size)
        self._copies: Copies | WorkerPool
        if num_workers:
            first_env.close()
            self._copies = WorkerPool(self._copies_class, settings, layouts, num_envs, num_workers)
            block: Any = self._copies.block
            arrays = views_of(layouts, block)
        else:
            block = bytearray(sum(layout.size for layout in layouts))
            arrays = views_of(layouts, block)
            self._copies = self._copies_class(settings, *arrays, envs=[first_env])
        self._outputs = np.frombuffer(block, np.uint8, self._layout.size)
        self._actions = arrays[1]
        self._requests = arrays[2] if len(arrays) > 2 else {}
        self._started, self._open = False, True
        self._set_specs(make_specs(self.groups, num_envs, self.state_size))

    @staticmethod
    @abstractmethod
    def _check_opponent(settings: CopySettings) -> None:
        """Raise `IncompatibleOpponent` if the opponent cannot play in this environment."""

    def reseed(self, seed: int, *stream: int | str) -> None:
        """Give copy i the seed stream_seed(seed, *stream, i) for its episodes after its next reset.

        An episode is determined by this seed, its number since then, and the actions in it.
        """
        self._copies.reseed([stream_seed(seed, *stream, i) for i in range(self.batch_size[0])])

    def running_episodes(self) -> dict[str, Any]:
        """See `heteromark.environment.contract`."""
        pool = self.opponent_pool
        return {
            "copies": [
                tuple(episode.converted(torch.from_numpy))
                for episode in self._copies.running_episodes()
            ],
            "past_policies": None if pool is None else pool.running_episodes(),
        }

    def continue_episodes(self, episodes: Mapping[str, Any]) -> tuple[TensorDict, dict[int, str]]:
        """See `heteromark.environment.contract`."""
        lost = self._copies.continue_episodes(
            [RunningEpisode(*copy).converted(torch.Tensor.numpy) for copy in episodes["copies"]]
        )
        if self.opponent_pool is not None:
            self.opponent_pool.continue_episodes(episodes["past_policies"])
        self._play_opponents()
        self._started = True
        why = {i: reason for i, reason in enumerate(lost) if reason is not None}
        return self._read_outputs(with_reward=False), why

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        n_envs = self.batch_size[0]
        if mask is None or not self._started:
            return self._restart(None)
        return self._restart(mask.reshape(n_envs, -1).any(-1))

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        for key, action in self._actions.items():
            action[...] = tensordict.get(key).numpy()
        self._copies.step()
        self._play_opponents()
        return self._read_outputs(with_reward=True)

    def _restart(self, where: Tensor | None) -> TensorDict:
        every = range(self.batch_size[0])
        self._copies.reset(every if where is None else where.nonzero()[:, 0].tolist())
        self._play_opponents()
        self._started = True
        return self._read_outputs(with_reward=False)

    def _play_opponents(self) -> None:
        """Play past policies until every copy has reached its next frame."""

    def _read_outputs(self, with_reward: bool) -> TensorDict:
        """Return the copies' current outputs in new memory."""
        nested: dict[str, Any] = {name: {} for name in self.groups}
        for key, array in self._layout.views(self._outputs.copy()).items():
            if isinstance(key, str):
                nested[key] = torch.from_numpy(array)
            elif with_reward or key[1] != "reward":
                nested[key[0]][key[1]] = torch.from_numpy(array)
        return TensorDict(nested, batch_size=self.batch_size, device=self.device)

    def render(self) -> np.ndarray:
        """Render copy 0, uint8 [height, width, 3].

        Raises:
            ValueError: the environment cannot render, or was created without render=True.
        """
        return self._copies.render()

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close every copy and end any workers. Does nothing if already closed."""
        if self._open:
            self._open = False
            self._copies.close()
        super().close(raise_if_closed=raise_if_closed)
