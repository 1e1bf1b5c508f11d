"""Skirmish as a TorchRL environment."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ValidationError
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor

from heteromark.config.errors import ConfigError, faults_of
from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.groups import Group, with_families
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.moments import View
from heteromark.environment.skirmish.orders import IllegalAction
from heteromark.environment.skirmish.places import Places, as_agents_see
from heteromark.environment.skirmish.policy_opponent import ActorPlayer
from heteromark.environment.skirmish.scenarios import opposite
from heteromark.environment.skirmish.state import Units
from heteromark.environment.specs import make_specs
from heteromark.environment.stepping import SelfRestartingEnv
from heteromark.seeds import stream_seed


class SkirmishEnv(SelfRestartingEnv):
    """Battles of two small teams, as in SMACv2: batch size [num_envs], all stepped together.

    The agents command one team; a script or a policy commands the other. Observations, state,
    actions, masks and rewards are laid out as SMACv2 does, see `heteromark.environment.skirmish`.
    Keys and shapes are those of `heteromark.environment.contract`. Battles that are over start
    anew through TorchRL's "_reset" mask, and `next` keeps the true final observation.

    Each battle has random numbers of its own, which follow from its seed: a batch plays what its
    battles would play alone.

    Args:
        scenario: name of a built-in scenario, or "custom" with `allies` and `enemies`.
        num_envs: battles, N.
        seed: of the first episodes; see also `reseed`.
        device: where battles are fought.
        group_by, groups, split: see `group_agents`.
        with_state: show the global state.
        first: number of battle 0 among all battles of the run.
        settings: the fields of `SkirmishConfig`, e.g. `compile=True`, `opponent="kite"`.

    Attributes:
        groups: by name.
        turn_based: False.
        state_size: numbers in the root key "state"; None: there is no such key.
        battles: the battles themselves.
        config: the settings.

    Raises:
        ValueError: a setting is unknown or out of range, there is no such scenario or device, or
            groups do not fit its agents.
    """

    turn_based = False
    opponent_pool: None = None

    def __init__(
        self,
        scenario: str = "10gen_terran",
        num_envs: int = 1,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        *,
        group_by: str = "prefix",
        groups: Mapping[str, Sequence[str]] | None = None,
        split: bool = False,
        with_state: bool = True,
        first: int = 0,
        **settings: Any,
    ) -> None:
        if not isinstance(num_envs, int) or num_envs < 1:
            raise ValueError(f"num_envs is {num_envs!r}; it must be a whole number of at least 1")
        _require_device(torch.device(device))
        super().__init__(device=device, batch_size=[num_envs])
        self.config = config = checked_settings({"scenario": scenario, **settings})
        self.battles = Battles(config, num_envs, self.device, conceal=True)
        layout = self.battles.layout
        self._places = Places(self.battles.scenario, config.units == "type")
        self._seats: Any = None
        agents = self._places.agents
        actions = spaces.Discrete(layout.n_actions)
        self.groups = {
            name: Group(name, members, layout.observation_size, actions, True, family)
            for name, members, family in with_families(agents, group_by, groups, split)
        }
        self._rows = {
            name: _rows([agents.index(agent) for agent in group.agents], self.device)
            for name, group in self.groups.items()
        }
        self.state_size = layout.state_size if with_state else None
        self._first = first
        self._show_as(make_specs(self.groups, num_envs, self.state_size))
        self._return = torch.zeros(num_envs, 1, device=self.device)
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64, device=self.device)
        self._nobody_won = torch.full((num_envs, 1), -1, dtype=torch.int8, device=self.device)
        self._not_over = torch.zeros(num_envs, 1, dtype=torch.bool, device=self.device)
        self._before: Units | None = None
        self.reseed(0 if seed is None else seed)

    def compile(self, **_: Any) -> SkirmishEnv:
        """Compile the simulation; TorchRL calls this where `compile` was set."""
        self.battles.compile()
        return self

    def oppose(
        self,
        actors: Mapping[str, ProbabilisticTensorDictSequential],
        groups: Mapping[str, Group],
    ) -> None:
        """Let a trained policy command the other side, where `opponent` is "policy".

        It sees and may do what agents in its place would, and samples its actions.

        Args:
            actors: by group, on the device of this environment.
            groups: of the environment that it was trained in.

        Raises:
            ValueError: the policy does not fit the other side.
        """
        battles = self.battles
        theirs = {agent for group in groups.values() for agent in group.agents}
        by_type = not any(agent.startswith("ally_") for agent in theirs)
        places = Places(opposite(battles.scenario), by_type)
        battles.oppose(ActorPlayer(actors, groups, places, battles.their_layout))

    def reseed(self, seed: int, *stream: int | str) -> None:
        """Give battle i the seed stream_seed(seed, *stream, first + i), used by its next reset.

        Everything after that follows from it and the actions.
        """
        numbers = range(self._first, self._first + self.batch_size[0])
        self.battles.reseed([stream_seed(seed, *stream, number) for number in numbers])

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        return self._restart_where(None if mask is None else mask.reshape(self.batch_size[0]))

    def _restart_where(self, where: Tensor | None) -> TensorDict:
        view, self._before = self.battles.reset(where), None
        if where is None:
            self._return = torch.zeros_like(self._return)
            self._steps = torch.zeros_like(self._steps)
        else:
            self._return = self._return * ~where.unsqueeze(1)
            self._steps = self._steps * ~where.unsqueeze(1)
        if not self._places.is_fixed:
            kinds = self.battles.episode.roster.kind[: self.battles.scenario.n_agents]
            self._seats = self._places.seats(kinds)
        shown = self._shown(view)
        over = self._not_over
        shown.update({"won": self._nobody_won, "done": over, "terminated": over, "truncated": over})
        return TensorDict(shown, batch_size=self.batch_size, device=self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        actions = torch.empty(
            self.batch_size[0], len(self._places.agents), dtype=torch.int64, device=self.device
        )
        for name, rows in self._rows.items():
            actions[:, rows] = tensordict.get((name, "action"))
        if self._seats is not None:
            actions = self._seats.by_unit(actions)
        self._before = self.battles.moment.units
        try:
            view, outcome = self.battles.step(actions)
        except IllegalAction as error:
            raise error.named(self._name_of(error.environment, error.unit)) from None
        reward = outcome.reward.unsqueeze(1)
        self._return = self._return + reward
        self._steps = self._steps + 1
        shown = self._shown(view)
        for name, group in self.groups.items():
            shown[name]["reward"] = reward.unsqueeze(1).expand(-1, len(group.agents), -1)
        over = outcome.terminated | outcome.truncated
        shown.update(
            {
                "won": torch.where(over, outcome.won.to(torch.int8), -1).unsqueeze(1),
                "done": over.unsqueeze(1),
                "terminated": outcome.terminated.unsqueeze(1),
                "truncated": outcome.truncated.unsqueeze(1),
            }
        )
        return TensorDict(shown, batch_size=self.batch_size, device=self.device)

    def render(self) -> np.ndarray:
        """What battle 0 looks like now, with the shots of the last step; uint8 [480, 480, 3]."""
        # by name, because how a battle is drawn is no part of a run's identity
        drawing = importlib.import_module(f"{__package__}.draw")
        return drawing.draw_battle(
            self.battles.moment.units,
            self._before,
            self.battles.episode.roster,
            self.battles.scenario,
            self._steps,
        )

    def _name_of(self, environment: int, unit: int) -> str:
        number = unit if self._seats is None else int(self._seats.place[environment, unit])
        return self._places.agents[number]

    def _shown(self, view: View) -> dict[str, Any]:
        """What agents see, nested by group; nothing where they have left the battle."""
        observation, offered, active = as_agents_see(view, self._seats)
        shown: dict[str, Any] = {
            name: {
                "observation": observation[:, rows],
                "active": active[:, rows],
                "action_mask": offered[:, rows],
            }
            for name, rows in self._rows.items()
        }
        if self.state_size is not None:
            shown["state"] = view.state
        shown["episode_return"], shown["step_count"] = self._return, self._steps
        return shown


def checked_settings(settings: dict[str, Any]) -> SkirmishConfig:
    """The settings as a config.

    Raises:
        ConfigError: lists all that is wrong with them.
    """
    try:
        return SkirmishConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(faults_of(error, SkirmishConfig, "SkirmishEnv")) from None


def _rows(numbers: list[int], device: torch.device) -> slice | Tensor:
    """An index of these rows; a slice, which copies nothing, where they lie together."""
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return slice(numbers[0], numbers[-1] + 1)
    return torch.tensor(numbers, device=device)


def _require_device(device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {str(device)!r}, but this machine has no GPU that torch can use; use "
            "device='cpu'"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device is {str(device)!r}, but there are only {torch.cuda.device_count()} GPUs"
        )
