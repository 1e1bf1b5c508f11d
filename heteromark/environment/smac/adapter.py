"""Objects with the API of the StarCraft Multi-Agent Challenge as PettingZoo environments."""

from __future__ import annotations

import functools
import inspect
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from heteromark.config.models.components import SMACConfig
from heteromark.environment.smac.seeding import SeededBattle
from heteromark.import_paths import STARCRAFT, WITHOUT_STARCRAFT, Task

SMAC_API = ("reset", "step", "get_obs", "get_state", "get_avail_actions", "close")
NO_OP = 0
# the attributes `marine_id`, … of SMAC and SMACv2 define the numbers in `unit_type`
_TERRAN = ("marine", "marauder", "medivac")
_PROTOSS = ("stalker", "zealot", "colossus")
_ZERG = ("hydralisk", "zergling", "baneling")
# the modules of pysc2 that find the game and its maps, and start it
_STARTUP = ("pysc2.run_configs", "pysc2.maps", "pysc2.lib.sc_process")
logger = logging.getLogger("heteromark")


def missing_from_smac_api(candidate: Any) -> list[str]:
    """Return the methods of the SMAC API that an object lacks."""
    missing = [method for method in SMAC_API if not callable(getattr(candidate, method, None))]
    if not hasattr(candidate, "get_env_info"):
        # SMAClite provides sizes as attributes instead
        sizes = ("n_agents", "n_actions", "obs_size", "state_size")
        missing += ["get_env_info"] * (not all(hasattr(candidate, size) for size in sizes))
    return missing


class SMACParallelEnv(ParallelEnv):
    """One battle with the SMAC API as a PettingZoo Parallel environment.

    Supports SMAC, SMACv2, SMAClite, and any other object with these methods:
        reset(); step([action of each agent]) -> (reward, terminated, info), or as in SMAClite
        (observations, reward, terminated, truncated, info); get_obs(), get_avail_actions(): one
        row per agent; get_state(); close(); get_env_info() with n_agents, n_actions, obs_shape,
        state_shape and episode_limit, or the attributes n_agents, n_actions, obs_size, state_size.
    Seeding: see `SeededBattle`.

    Agents are named by unit type and numbered within it, in the environment's order: `marauder_0`,
    `marauder_1`, `marine_0`, …; so groups by prefix are groups by unit type. Without types they are
    the slots `ally_0`, `ally_1`, …. SMACv2 draws a new team for each episode and sorts it by type:
    the type in a slot then changes between episodes, and a policy reads it from the observation.

    A unit whose only legal action is the no-op is dead; this is the API's own rule. It has
    terminated and leaves `agents`, unless dead agents stay active. The team has a single reward,
    which every agent receives, including dead ones.

    An episode that ends because time ran out is truncated; `info["episode_limit"]` reports it. SMAC
    and SMACv2 set it only if constructed with `continuing_episode=True`; otherwise running out of
    time terminates the episode, like a defeat. A crash of StarCraft II also truncates the episode.

    Infos: "action_mask", int8 [n_actions], and everything in the object's info, e.g. "battle_won".

    Args:
        make: creates objects with the SMAC API; see `SeededBattle` for their seed.
        unit_types: each agent's type, or None for slots.
        dead_agents: "inactive" or "active". Active ones stay in `agents` with only the no-op legal,
            as in HARL's SMACv2.
        episode_limit: steps after which an episode is truncated; None: the object's own limit.
        name: the environment's name in error messages.
        render_mode: "rgb_array" to render, or None.

    Raises:
        TypeError: the object lacks a part of the SMAC API, or cannot be seeded.
        ValueError: the types do not fit the units, or the length of an episode is unlimited.
        RuntimeError: StarCraft II cannot be started.
    """

    metadata = {"name": "smac", "render_modes": ["rgb_array"]}  # noqa: RUF012 - PettingZoo's way

    def __init__(
        self,
        make: Task,
        *,
        unit_types: Sequence[str] | None = None,
        dead_agents: str = "inactive",
        episode_limit: int | None = None,
        name: str = "environment",
        render_mode: str | None = None,
    ) -> None:
        self._name = name
        self.render_mode = render_mode
        self._seeded = SeededBattle(make, name, render=render_mode is not None)
        battle = self._seeded.battle
        if missing := missing_from_smac_api(battle):
            raise TypeError(
                f"the factory of environment {name!r} returned {type(battle).__name__}, which "
                f"lacks {', '.join(missing)} from the SMAC API"
            )
        info = _env_info(battle)
        self._n_agents = int(info["n_agents"])
        if unit_types is not None and len(unit_types) != self._n_agents:
            raise ValueError(
                f"environment.smac.unit_types has {len(unit_types)} entries, but environment "
                f"{name!r} has {self._n_agents} agents; list one type per agent, or set it to auto"
            )
        if info["episode_limit"] is None and episode_limit is None:
            raise ValueError(
                f"environment {name!r} does not report its maximum episode length; set "
                "environment.smac.episode_limit"
            )
        self._unit_types = None if unit_types is None else tuple(unit_types)
        self._dead_stay_active = dead_agents == "active"
        self._episode_limit = episode_limit
        self._steps = 0
        self._state = np.zeros(_shape(info["state_shape"]), np.float32)
        self.possible_agents = _named(self._unit_types or ("ally",) * self._n_agents)
        self.agents: list[str] = []
        observation = spaces.Box(-np.inf, np.inf, _shape(info["obs_shape"]), np.float32)
        self.state_space = spaces.Box(-np.inf, np.inf, self._state.shape, np.float32)
        self._observation_spaces = {agent: observation for agent in self.possible_agents}
        self._action_spaces = {
            agent: spaces.Discrete(int(info["n_actions"])) for agent in self.possible_agents
        }

    def observation_space(self, agent: str) -> spaces.Box:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        return self._action_spaces[agent]

    @property
    def battle(self) -> Any:
        """The current object with the SMAC API; seeding may replace it."""
        return self._seeded.battle

    @property
    def repeatable(self) -> bool:
        """Whether an episode's seed and actions determine it, even without a restart."""
        return self._seeded.repeatable

    def reseed(self, seed: int) -> None:
        """Seed all further episodes; restarts StarCraft II."""
        self._seeded.reseed(seed)

    def seed_episode(self, seed: int) -> None:
        """Seed the next episode without a restart, see `SeededBattle`."""
        self._seeded.seed_episode(seed)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Start an episode, after seeding if `seed` is not None."""
        if seed is not None:
            self._seeded.reseed(seed)
        self._steps = 0
        self._start_battle()
        self._check_unit_types()
        observations, legal = self._observe()
        living = self._living(legal)
        self.agents = [a for k, a in enumerate(self.possible_agents) if living[k]]
        return self._by_agent(observations), {
            agent: {"action_mask": mask} for agent, mask in self._by_agent(legal).items()
        }

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Step all agents; those without an action take the no-op."""
        self._steps += 1
        reward, terminated, truncated, info = self._advance(
            [int(actions.get(agent, NO_OP)) for agent in self.possible_agents]
        )
        observations, legal = self._observe()
        living = dict(zip(self.possible_agents, self._living(legal), strict=True))
        terminations = {agent: terminated or not living[agent] for agent in self.agents}
        truncations = {agent: truncated and living[agent] for agent in self.agents}
        infos = {
            agent: {**info, "action_mask": mask} for agent, mask in self._by_agent(legal).items()
        }
        stepped = (
            self._by_agent(observations),
            dict.fromkeys(self.possible_agents, reward),
            terminations,
            truncations,
            infos,
        )
        over = terminated or truncated
        self.agents = [] if over else [agent for agent in self.agents if living[agent]]
        return stepped

    def state(self) -> np.ndarray:
        """Return the global state, float32 [state_size]."""
        return self._state

    def render(self) -> np.ndarray:
        """Render the battle, uint8 [height, width, 3].

        Raises:
            NotImplementedError: the object has no method render().
        """
        if not callable(getattr(self.battle, "render", None)):
            raise NotImplementedError(f"{type(self.battle).__name__} has no render()")
        # SMAC and SMACv2 take the mode at each call, SMAClite in its constructor
        if "mode" in inspect.signature(self.battle.render).parameters:
            return self.battle.render(mode="rgb_array")
        return self.battle.render()

    def close(self) -> None:
        """Close the object and its StarCraft II."""
        self.battle.close()

    # --- the object ----------------------------------------------------------------------------

    def _start_battle(self) -> None:
        try:
            # The result is not used: SMAC, SMACv2's wrapper and SMAClite return different ones.
            self.battle.reset()
        except Exception as error:
            # pysc2 raises various errors here: its own, FileNotFoundError, and ValueError
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            if not any(f.f_globals.get("__name__", "").startswith(_STARTUP) for f in frames):
                raise
            raise RuntimeError(
                f"environment {self._name!r}: StarCraft II could not be started "
                f"({type(error).__name__}: {error}); install {STARCRAFT}; {WITHOUT_STARCRAFT}"
            ) from error

    def _advance(self, actions: list[int]) -> tuple[float, bool, bool, dict[str, Any]]:
        """Step the object; return the team's reward, terminated, truncated, and the info."""
        restarts = getattr(self.battle, "force_restarts", 0)
        result = self.battle.step(actions)
        if len(result) == 3:
            reward, over, info = result
            truncated = bool(info.get("episode_limit", False))
        else:
            _, reward, over, truncated, info = result
        if getattr(self.battle, "force_restarts", 0) != restarts:
            logger.warning(
                "StarCraft II in environment %r crashed and restarted; the episode is truncated",
                self._name,
            )
            truncated = True
        terminated = bool(over) and not truncated
        if self._steps == self._episode_limit:
            truncated = not terminated
        return float(reward), terminated, bool(truncated), info

    def _observe(self) -> tuple[np.ndarray, np.ndarray]:
        """Return observations float32 [n, size] and legal actions int8 [n, n_actions]."""
        self._state = np.asarray(self.battle.get_state(), np.float32)
        return (
            np.asarray(self.battle.get_obs(), np.float32),
            np.asarray(self.battle.get_avail_actions(), np.int8),
        )

    def _living(self, legal: np.ndarray) -> list[bool]:
        """Return which agents are active; all of them if dead agents stay active."""
        if self._dead_stay_active:
            return [True] * self._n_agents
        return [bool(mask.any()) for mask in legal[:, NO_OP + 1 :]]

    def _by_agent(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {a: rows[k] for k, a in enumerate(self.possible_agents) if a in self.agents}

    def _check_unit_types(self) -> None:
        types, named = unit_types_of(self.battle, self._n_agents), self._unit_types
        if types is not None and named is not None and types != named:
            raise ValueError(
                f"environment {self._name!r} has the units {', '.join(types)}, but its agents are "
                f"named after {', '.join(named)}; correct environment.smac.unit_types, or set it "
                "to slots if teams change between episodes"
            )


def smac_factory(make: Task, settings: SMACConfig, name: str) -> Callable[..., SMACParallelEnv]:
    """Return a factory of copies with the SMAC API; all copies have the same agent names.

    With `unit_types: auto` and a fixed team, one battle is started and closed to read its units; a
    list of types saves this time.

    Raises:
        TypeError, ValueError, RuntimeError: see `SMACParallelEnv`.
    """
    unit_types = None if isinstance(settings.unit_types, str) else tuple(settings.unit_types)
    create = functools.partial(
        SMACParallelEnv,
        make,
        dead_agents=settings.dead_agents,
        episode_limit=settings.episode_limit,
        name=name,
    )
    if settings.unit_types == "auto":
        probe = create()
        try:
            # SMACv2's attribute for a team that is redrawn for each episode
            if not getattr(probe.battle, "replace_teammates", False):
                probe.reset(seed=0)
                unit_types = unit_types_of(probe.battle, len(probe.possible_agents))
        finally:
            probe.close()
    return functools.partial(create, unit_types=unit_types)


def unit_types_of(battle: Any, n_agents: int) -> tuple[str, ...] | None:
    """Return each agent's unit type in a started battle, or None if it is unknown.

    SMAC and SMACv2 number the unit types; the battle's attributes `marine_id`, … define the
    numbers. SMAClite's units have a type with a name.
    """
    units = getattr(battle, "agents", None)
    if not isinstance(units, Mapping) or set(units) != set(range(n_agents)):
        return None
    names = {getattr(battle, f"{name}_id", 0): name for name in _TERRAN + _PROTOSS + _ZERG}
    types: list[str] = []
    for k in range(n_agents):
        if hasattr(units[k], "unit_type"):
            name = names.get(units[k].unit_type)
        else:
            stats = getattr(getattr(units[k], "type", None), "stats", None)
            name = getattr(stats, "name", None)
        if name is None:
            return None
        types.append(name)
    return tuple(types)


def _env_info(battle: Any) -> dict[str, Any]:
    if hasattr(battle, "get_env_info"):
        return {"episode_limit": None, **battle.get_env_info()}
    return {
        "n_agents": battle.n_agents,
        "n_actions": battle.n_actions,
        "obs_shape": battle.obs_size,
        "state_shape": battle.state_size,
        "episode_limit": None,
    }


def _shape(size: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(np.atleast_1d(size).tolist())


def _named(types: Sequence[str]) -> list[str]:
    """Number the agents within each type: `marine, marine` → `marine_0, marine_1`."""
    return [f"{name}_{types[:k].count(name)}" for k, name in enumerate(types)]
