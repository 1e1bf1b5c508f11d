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
from heteromark.environment.skirmish.moments import View, join_battles, split_battles
from heteromark.environment.skirmish.orders import IllegalAction
from heteromark.environment.skirmish.places import AgentMap, as_agents_see
from heteromark.environment.skirmish.policy_opponent import ActorPlayer
from heteromark.environment.skirmish.scenarios import opposite
from heteromark.environment.skirmish.state import Units
from heteromark.environment.specs import make_specs
from heteromark.environment.stepping import SelfRestartingEnv
from heteromark.seeds import stream_seed


class SkirmishEnv(SelfRestartingEnv):
    """Battles of two small teams, as in SMACv2: batch size [num_envs], all stepped together.

    The agents command one team; a script or a policy commands the other. Observations, state,
    actions, masks and rewards have SMACv2's layout; see `heteromark.environment.skirmish.layout`.
    Keys and shapes are those of `heteromark.environment.contract`. Finished battles restart through
    TorchRL's "_reset" mask, and `next` keeps the true final observation.

    Each battle has a separate random stream, derived from its seed, so results do not depend on the
    batch size.

    Args:
        scenario: name of a built-in scenario, or "custom" with `allies` and `enemies`.
        num_envs: number of battles N.
        seed: seed of the first episodes; see also `reseed`.
        device: device of the simulation.
        group_by: see `group_agents`.
        groups: see `group_agents`.
        split: see `group_agents`.
        with_state: include the global state.
        first: index of battle 0 among all battles of the run.
        settings: the fields of `SkirmishConfig`, e.g. `compile=True`, `opponent="kite"`.

    Attributes:
        groups: by name.
        turn_based: False.
        state_size: size of the root key "state"; None: there is no such key.
        battles: the simulation.
        config: the settings.

    Raises:
        ValueError: a setting is unknown or out of range, the scenario or device does not exist, or
            the groups do not fit the agents.
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
            raise ValueError(f"num_envs is {num_envs!r}; it must be an integer of at least 1")
        _require_device(torch.device(device))
        super().__init__(device=device, batch_size=[num_envs])
        self.config = config = checked_settings({"scenario": scenario, **settings})
        self.battles = Battles(config, num_envs, self.device, conceal=True)
        layout = self.battles.layout
        self._agent_map = AgentMap(self.battles.scenario, config.units == "type")
        self._assignment: Any = None
        agents = self._agent_map.agents
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
        self._set_specs(make_specs(self.groups, num_envs, self.state_size))
        self._return = torch.zeros(num_envs, 1, device=self.device)
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64, device=self.device)
        self._nobody_won = torch.full((num_envs, 1), -1, dtype=torch.int8, device=self.device)
        self._not_over = torch.zeros(num_envs, 1, dtype=torch.bool, device=self.device)
        self._before: Units | None = None
        self.reseed(0 if seed is None else seed)

    def compile(self, **_: Any) -> SkirmishEnv:
        """Compile the simulation; TorchRL calls this if `compile` is set."""
        self.battles.compile()
        return self

    def oppose(
        self,
        actors: Mapping[str, ProbabilisticTensorDictSequential],
        groups: Mapping[str, Group],
    ) -> None:
        """Let a trained policy command the other side; requires `opponent` "policy".

        The policy gets the observations and action masks that agents on that side would get. It
        samples its actions.

        Args:
            actors: by group, on the device of this environment.
            groups: groups of the environment that the policy was trained in.

        Raises:
            ValueError: the policy does not fit the other side.
        """
        battles = self.battles
        theirs = {agent for group in groups.values() for agent in group.agents}
        by_type = not any(agent.startswith("ally_") for agent in theirs)
        agent_map = AgentMap(opposite(battles.scenario), by_type)
        battles.oppose(ActorPlayer(actors, groups, agent_map, battles.their_layout))

    def reseed(self, seed: int, *stream: int | str) -> None:
        """Give battle i the seed stream_seed(seed, *stream, first + i), used by its next reset.

        The seed and the actions determine everything after that reset.
        """
        self.reseed_shares([(seed, *stream)])

    def reseed_shares(self, streams: Sequence[tuple[Any, ...]]) -> None:
        """Divide the battles evenly between several runs, and seed each run's share.

        Args:
            streams: of each run: the arguments that `reseed` of its own environment would get.
        """
        numbers = range(self._first, self._first + self.batch_size[0] // len(streams))
        self.battles.reseed(
            [stream_seed(*stream, number) for stream in streams for number in numbers]
        )

    def running_episodes(self) -> dict[str, Any]:
        """See `heteromark.environment.contract`."""
        return {
            "battles": self.battles.state(),
            "episode_return": self._return,
            "step_count": self._steps,
        }

    def continue_episodes(self, episodes: Mapping[str, Any]) -> tuple[TensorDict, dict[int, str]]:
        """See `heteromark.environment.contract`; every battle can be continued."""
        self.battles.load_state(episodes["battles"])
        self._return = episodes["episode_return"].to(self.device)
        self._steps = episodes["step_count"].to(self.device)
        self._before = None
        return self._first_outputs(self.battles.view), {}

    def split_episodes(self, shares: int) -> list[dict[str, Any]]:
        """Return the running episodes of each of several equal shares of the battles."""
        size = self.batch_size[0] // shares
        of_battles = split_battles(self.battles.state(), self.batch_size[0], shares)
        return [
            {
                "battles": battles,
                "episode_return": self._return[number * size : (number + 1) * size].clone(),
                "step_count": self._steps[number * size : (number + 1) * size].clone(),
            }
            for number, battles in enumerate(of_battles)
        ]

    def join_episodes(self, shares: Sequence[dict[str, Any]]) -> TensorDict:
        """Continue the running episodes of equal shares of the battles; return the outputs."""
        of_battles = [share["battles"] for share in shares]
        joined = {
            "battles": join_battles(self.battles.state(), self.batch_size[0], of_battles),
            **{
                key: torch.cat([share[key].to(self.device) for share in shares])
                for key in ("episode_return", "step_count")
            },
        }
        return self.continue_episodes(joined)[0]

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        return self._restart(None if mask is None else mask.reshape(self.batch_size[0]))

    def _restart(self, where: Tensor | None) -> TensorDict:
        view, self._before = self.battles.reset(where), None
        if where is None:
            self._return = torch.zeros_like(self._return)
            self._steps = torch.zeros_like(self._steps)
        else:
            self._return = self._return * ~where.unsqueeze(1)
            self._steps = self._steps * ~where.unsqueeze(1)
        return self._first_outputs(view)

    def _first_outputs(self, view: View) -> TensorDict:
        """Return the outputs of battles none of which is over."""
        if not self._agent_map.is_fixed:
            kinds = self.battles.episode.roster.kind[: self.battles.scenario.n_agents]
            self._assignment = self._agent_map.assign(kinds)
        outputs = self._make_outputs(view)
        over = self._not_over
        outputs.update(
            {"won": self._nobody_won, "done": over, "terminated": over, "truncated": over}
        )
        return TensorDict(outputs, batch_size=self.batch_size, device=self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        actions = torch.empty(
            self.batch_size[0], len(self._agent_map.agents), dtype=torch.int64, device=self.device
        )
        for name, rows in self._rows.items():
            actions[:, rows] = tensordict.get((name, "action"))
        if self._assignment is not None:
            actions = self._assignment.by_unit(actions)
        self._before = self.battles.moment.units
        try:
            view, outcome = self.battles.step(actions)
        except IllegalAction as error:
            raise error.named(self._name_of(error.environment, error.unit)) from None
        reward = outcome.reward.unsqueeze(1)
        self._return = self._return + reward
        self._steps = self._steps + 1
        outputs = self._make_outputs(view)
        for name, group in self.groups.items():
            outputs[name]["reward"] = reward.unsqueeze(1).expand(-1, len(group.agents), -1)
        over = outcome.terminated | outcome.truncated
        outputs.update(
            {
                "won": torch.where(over, outcome.won.to(torch.int8), -1).unsqueeze(1),
                "done": over.unsqueeze(1),
                "terminated": outcome.terminated.unsqueeze(1),
                "truncated": outcome.truncated.unsqueeze(1),
            }
        )
        return TensorDict(outputs, batch_size=self.batch_size, device=self.device)

    def render(self) -> np.ndarray:
        """Render battle 0 with the shots of the last step, uint8 [480, 480, 3]."""
        # imported by name, so that drawing code is not part of a run's identity
        drawing = importlib.import_module(f"{__package__}.draw")
        return drawing.draw_battle(
            self.battles.moment.units,
            self._before,
            self.battles.episode.roster,
            self.battles.scenario,
            self._steps,
        )

    def _name_of(self, environment: int, unit: int) -> str:
        number = (
            unit if self._assignment is None else int(self._assignment.agent[environment, unit])
        )
        return self._agent_map.agents[number]

    def _make_outputs(self, view: View) -> dict[str, Any]:
        """Return the agents' outputs, nested by group; zeros for agents that left the battle."""
        observation, offered, active = as_agents_see(view, self._assignment)
        outputs: dict[str, Any] = {
            name: {
                "observation": observation[:, rows],
                "active": active[:, rows],
                "action_mask": offered[:, rows],
            }
            for name, rows in self._rows.items()
        }
        if self.state_size is not None:
            outputs["state"] = view.state
        outputs["episode_return"], outputs["step_count"] = self._return, self._steps
        return outputs


def checked_settings(settings: dict[str, Any]) -> SkirmishConfig:
    """Return the settings as a config.

    Raises:
        ConfigError: lists all invalid settings.
    """
    try:
        return SkirmishConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(faults_of(error, SkirmishConfig, "SkirmishEnv")) from None


def _rows(numbers: list[int], device: torch.device) -> slice | Tensor:
    """Return an index of these rows; a slice, which does not copy, if they are consecutive."""
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
            f"device is {str(device)!r}, but this machine has only {torch.cuda.device_count()} "
            "GPU(s), counted from cuda:0"
        )
