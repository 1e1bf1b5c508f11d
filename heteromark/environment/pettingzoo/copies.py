"""Base class for stepping copies of an environment in one process. Imports no torch."""

from __future__ import annotations

import functools
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces

from heteromark.config.models.components import OpponentConfig
from heteromark.environment.groups import Group, observed_part, observed_space
from heteromark.environment.pettingzoo.arrays import Arrays, Key
from heteromark.environment.pettingzoo.description import Description, describe
from heteromark.environment.pettingzoo.episodes import ActionLog, LazyGenerator, RunningEpisode
from heteromark.environment.pettingzoo.global_streams import GlobalStreams, call_with_streams
from heteromark.seeds import stream_seed

UNKNOWN = -1  # value of "won" if the environment does not report it
_MUST_BE_FINITE = (
    "Check the environment for a division by zero or an overflow, or replace undefined values with "
    "numbers, for example with numpy.nan_to_num"
)
_OPENGL = (
    "MuJoCo draws with OpenGL, and without a screen needs a library for that: install one and name "
    "it, for example `apt-get install libegl1` and MUJOCO_GL=egl, or libosmesa6 and "
    "MUJOCO_GL=osmesa"
)


@dataclass(frozen=True)
class CopySettings:
    """Settings of a process that steps copies; picklable.

    Other fields: see `BatchedEnv`.
    """

    make_env: Callable[..., Any]  # with `render_mode="rgb_array"`, returns one that can render
    name: str
    description: Description  # agents and spaces that all copies must have
    groups: Mapping[str, Group]  # by name
    team_reward: bool
    opponent: OpponentConfig = field(default_factory=OpponentConfig)
    render: bool = False
    first: int = 0


def copy_settings(
    make_env: Callable[..., Any],
    first_env: Any,
    name: str,
    *,
    opponent: OpponentConfig,
    group_by: str,
    groups: Mapping[str, Sequence[str]] | None,
    split: bool,
    team_reward: bool,
    with_state: bool,
    render: bool = False,
    first: int = 0,
) -> CopySettings:
    """Describe an environment, and return the settings of processes that step its copies.

    Args: see `BatchedEnv`.

    Raises:
        ValueError: groups, spaces or the state do not fit.
    """
    description = describe(first_env, name, with_state)
    return CopySettings(
        make_env=make_env,
        name=name,
        description=description,
        groups=description.group(group_by, groups, split),
        team_reward=team_reward,
        opponent=opponent,
        render=render,
        first=first,
    )


def make_copy(make_env: Callable[..., Any], name: str, render: bool, number: int = 0) -> Any:
    """Create a fresh environment, with a render mode if `render` is set.

    While its constructor runs, the global generators are seeded with the copy's number.

    Raises:
        ValueError: `render` is set, and the factory takes no render_mode or fails with it.
    """
    options = {"render_mode": "rgb_array"} if render else {}
    try:
        return call_with_streams(number, functools.partial(make_env, **options))
    except TypeError as error:
        if not render:
            raise
        raise ValueError(
            f"environment {name!r} cannot render: its factory takes no render_mode ({error})"
        ) from error
    except Exception as error:
        if not render:
            raise
        raise _cannot_render(name, error) from error


def _cannot_render(name: str, error: Exception) -> ValueError:
    hint = f"; {_OPENGL}" if "mujoco" in sys.modules else ""
    reason = f"{type(error).__name__}: {error}"
    return ValueError(f"environment {name!r} cannot render: {reason}{hint}")


@dataclass(frozen=True, slots=True)
class AgentSlot:
    """Views of the arrays for one agent of one copy."""

    agent: str
    group: str
    copy: int  # index of the copy among all copies
    space: spaces.Space[Any]  # of the environment's observation, without the action mask
    shape: tuple[int, ...] | None  # of a Box; None: `space` is something else
    observation: np.ndarray  # flat view [observation_size]
    mask: np.ndarray | None  # view [action_size]; None: all actions are always legal
    active: np.ndarray  # view [n] of the group; the agent's index in it is `row`
    row: int


def mask_in(observation: Any, info: Mapping[str, Any]) -> Any:
    """Return the action mask from the observation, or else from the info; None without one."""
    in_observation = isinstance(observation, dict) and "action_mask" in observation
    return (observation if in_observation else info).get("action_mask")


def mean(rewards: Collection[float]) -> float:
    """Return the mean, summed in order so that it does not depend on how copies are split."""
    return sum(rewards) / len(rewards)


class Copies(ABC):
    """Consecutive copies of an environment, all stepped in this process.

    Results are written to the given arrays and actions are read from them; nothing is returned.

    Args:
        settings: see `CopySettings`.
        outputs, actions, requests: arrays of `output_layout`, `action_layout` and
            `request_layout`, restricted to the rows of these copies; `requests` only with past
            policies.
        first: index of the first copy among those of the settings.
        envs: existing environments to use before new ones are created.

    Raises:
        ValueError: a copy differs from the others in its agents or spaces, or must render and
            cannot.
    """

    def __init__(
        self,
        settings: CopySettings,
        outputs: Arrays,
        actions: Arrays,
        requests: Arrays | None = None,
        *,
        first: int = 0,
        envs: Sequence[Any] = (),
    ) -> None:
        self._settings = settings
        self._outputs = outputs
        self._actions = actions
        self._requests: Arrays = {} if requests is None else requests
        self._first = settings.first + first
        n_copies = len(outputs["done"])
        # observation and action spaces that were already compared, because comparing is slow
        self._checked: list[list[Any] | None] = [None] * n_copies
        self._envs = list(envs)
        for i in range(len(envs), n_copies):
            render = settings.render and first + i == 0
            self._envs.append(make_copy(settings.make_env, settings.name, render, self._first + i))
            self._check_spaces(i)
        self._seeds = list(range(self._first, self._first + n_copies))
        self._streams = GlobalStreams(self._seeds, settings.name)
        self._episodes = [-1] * n_copies  # number of each copy's current episode
        self._log = ActionLog(actions)
        # Python floats (double precision), so that long episodes sum accurately
        self._returns = [0.0] * n_copies
        self._slots = [self._make_slots(outputs, i) for i in range(n_copies)]

    def _make_slots(self, arrays: Arrays, i: int) -> dict[str, AgentSlot]:
        slots = {}
        for name, group in self._settings.groups.items():
            mask = arrays.get((name, "action_mask"))
            for row, agent in enumerate(group.agents):
                space = observed_space(self._settings.description.observation_spaces[agent])
                slots[agent] = AgentSlot(
                    agent=agent,
                    group=name,
                    copy=self._first + i,
                    space=space,
                    shape=space.shape if isinstance(space, spaces.Box) else None,
                    observation=arrays[name, "observation"][i, row],
                    mask=None if mask is None else mask[i, row],
                    active=arrays[name, "active"][i],
                    row=row,
                )
        return slots

    # --- commands ------------------------------------------------------------------------------

    def reseed(self, seeds: Sequence[int]) -> None:
        """Give every copy a seed. Its episode n from now on has the seed (seed, "episode", n)."""
        self._seeds = list(seeds)
        self._streams = GlobalStreams(seeds, self._settings.name)
        self._episodes = [-1] * len(self._envs)
        for env, seed in zip(self._envs, seeds, strict=True):
            if hasattr(env, "seed_episode"):  # the adapter of StarCraft II
                env.reseed(seed)

    def reset(self, rows: Sequence[int]) -> None:
        """Start a new episode in the copies with indices `rows`; leave the others unchanged."""
        self._streams.episodes_ended(i for i in rows if self._outputs["done"][i, 0])
        self._for_each(rows, self._restart_copy)
        self._check_outputs()

    def step(self) -> None:
        """Step every copy with the actions in the arrays."""
        self._log.add()
        self._step_copies(range(len(self._envs)))

    def running_episodes(self) -> list[RunningEpisode]:
        """Return what `continue_episodes` needs, by copy."""
        return [
            RunningEpisode(self._episodes[i], acts, actions, self._outputs_of(i))
            for i, (acts, actions) in enumerate(self._log.of_copies())
        ]

    def continue_episodes(self, episodes: Sequence[RunningEpisode]) -> list[str | None]:
        """Play every copy's episode again up to where it was; call `reseed` before.

        Returns:
            By copy, None; or why its episode could not be continued, so that it began the next.
        """
        lost: list[str | None] = [self._why_lost(i, each) for i, each in enumerate(episodes)]
        for i, episode in enumerate(episodes):
            self._episodes[i] = episode.number - (lost[i] is None)
            if hasattr(self._envs[i], "seed_episode"):  # or its game repeats what it began with
                self._envs[i].reseed(stream_seed(self._seeds[i], "resumed", episode.number))
        self.reset(range(len(episodes)))
        played = {i: episode for i, episode in enumerate(episodes) if lost[i] is None}
        for rows in self._log.replay(played):
            actions = self._actions_by_agent()

            def play(i: int, actions: Mapping[str, Sequence[Any]] = actions) -> None:
                try:
                    if lost[i] is None:
                        self._step_copy(i, actions)
                except Exception as error:
                    lost[i] = f"the same seed and actions led to an error: {error}"

            self._for_each(rows, play)
        for i, episode in played.items():
            now = self._outputs_of(i)
            if any(not np.array_equal(now[key], then) for key, then in episode.outputs.items()):
                lost[i] = lost[i] or "the same seed and actions led to other outputs"
        self.reset([i for i in played if lost[i] is not None])
        return lost

    def _why_lost(self, i: int, episode: RunningEpisode) -> str | None:
        """Return why copy i's episode cannot be played again; None: it can."""
        if not getattr(self._envs[i], "repeatable", True):
            return "the environment cannot be seeded for each episode"
        return "the episode is too long to play again" if episode.acts is None else None

    def _outputs_of(self, i: int) -> dict[Key, np.ndarray]:
        return {
            key: array[i].copy()
            for key, array in self._outputs.items()
            if isinstance(key, str) or key[1] != "reward"
        }

    def render(self) -> np.ndarray:
        """Render the first copy, uint8 [height, width, 3].

        Raises:
            ValueError: the environment cannot render.
        """
        name = self._settings.name
        if not self._settings.render:
            raise ValueError(f"environment {name!r} cannot render: create it with render=True")
        try:
            picture = self._envs[0].render()
        except NotImplementedError as error:
            raise ValueError(f"environment {name!r} cannot render: it has no render()") from error
        except Exception as error:
            raise _cannot_render(name, error) from error
        if not isinstance(picture, np.ndarray) or picture.ndim != 3:
            raise ValueError(
                f"environment {name!r} cannot render: its render() returned "
                f"{type(picture).__name__}, not an array [height, width, 3]"
            )
        return np.ascontiguousarray(picture[..., :3], np.uint8)

    def close(self) -> None:
        """Close every copy."""
        for env in self._envs:
            env.close()

    @abstractmethod
    def _reset_copy(self, i: int, seed: int) -> None:
        """Start copy i's next episode and write its first outputs."""

    @abstractmethod
    def _step_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        """Step copy i and write its outputs; `actions` holds each agent's actions in all copies."""

    def _step_copies(self, rows: Iterable[int]) -> None:
        actions = self._actions_by_agent()
        self._for_each(rows, lambda i: self._step_copy(i, actions))
        self._check_outputs()

    def _for_each(self, rows: Iterable[int], act: Callable[[int], None]) -> None:
        """Call `act` for each copy; add the copy's index to exceptions as a note."""

        def act_with_note(i: int) -> None:
            try:
                act(i)
            except Exception as error:
                error.add_note(f"in copy {self._first + i} of environment {self._settings.name!r}")
                raise

        self._streams.run(act_with_note, rows)

    def _restart_copy(self, i: int) -> None:
        """Clear copy i's outputs, and start its next episode from a seed of its own."""
        self._check_spaces(i)
        for slot in self._slots[i].values():
            self._clear(slot)
        self._returns[i] = 0.0
        for key in ("episode_return", "step_count", "done", "terminated", "truncated"):
            self._outputs[key][i] = 0
        self._outputs["won"][i] = UNKNOWN
        self._episodes[i] += 1
        self._log.begin(i)
        seed = stream_seed(self._seeds[i], "episode", self._episodes[i])
        for space in self._action_spaces(i):  # environments may sample from them
            space._np_random = LazyGenerator(seed)
        self._streams.reseed(i, seed)
        self._reset_copy(i, seed)

    # --- reading actions, writing outputs ------------------------------------------------------

    def _actions_by_agent(self) -> dict[str, Sequence[Any]]:
        """Return each agent's actions in all copies: ints, or an array [copies, *shape].

        Raises:
            ValueError: an action is out of range.
        """
        by_agent: dict[str, Sequence[Any]] = {}
        for name, group in self._settings.groups.items():
            action = self._actions[name, "action"]
            space = group.action_space
            if isinstance(space, spaces.Discrete):
                if action.min() < 0 or action.max() >= group.action_size:
                    raise ValueError(
                        f"group {name!r} of environment {self._settings.name!r} received actions "
                        f"from {action.min()} to {action.max()}; actions must be from 0 to "
                        f"{group.action_size - 1}"
                    )
                # plain ints: indexing numpy scalars one by one is several times slower
                per_agent = (action.T + int(space.start)).tolist()
            else:
                # a copy, because an environment may keep its actions
                if isinstance(space, spaces.MultiDiscrete):
                    given = action + space.start
                else:
                    given = np.clip(action, space.low, space.high)
                shape = self._settings.description.action_spaces[group.agents[0]].shape or ()
                per_agent = given.swapaxes(0, 1).reshape(action.shape[1], len(action), *shape)
            by_agent.update(zip(group.agents, per_agent, strict=True))
        return by_agent

    @staticmethod
    def _clear(slot: AgentSlot) -> None:
        slot.observation[:] = 0
        slot.active[slot.row] = False
        if slot.mask is not None:
            slot.mask[:] = True

    def _write_observation(
        self, slot: AgentSlot, observation: Any, info: Mapping[str, Any]
    ) -> None:
        """Write an agent's observation and action mask; `active` is unchanged.

        Raises:
            ValueError: the observation or the action mask has the wrong shape.
        """
        if slot.mask is not None:
            legal = mask_in(observation, info)
            if legal is None or len(legal) != slot.mask.size:
                raise ValueError(
                    f"{self._describe(slot, f'the action mask {legal}')}; its action space has "
                    f"{slot.mask.size} actions. The mask must have one entry per action"
                )
            slot.mask[:] = legal
        observation = observed_part(observation, slot.space)
        if slot.shape is None:
            slot.observation[:] = self._flattened(slot, observation)
            return
        if type(observation) is not np.ndarray:
            observation = np.asarray(observation)
        if observation.shape != slot.shape:
            what = f"an observation of shape {observation.shape}"
            raise ValueError(
                f"{self._describe(slot, what)}: {observation}; its observation space has shape "
                f"{slot.shape}. Every observation must have the shape of its space; pad missing "
                "values with zeros"
            )
        slot.observation[:] = observation if observation.ndim == 1 else observation.reshape(-1)

    def _flattened(self, slot: AgentSlot, observation: Any) -> np.ndarray:
        """Return an observation that is no array as numbers, as Gymnasium flattens its space."""
        try:
            flat = np.asarray(spaces.flatten(slot.space, observation))
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError):
            flat = np.empty(0)
        if flat.shape != slot.observation.shape:
            raise ValueError(
                f"{self._describe(slot, 'an observation outside its space')}: {observation}; its "
                f"observation space is {slot.space}. Every observation must lie in its space"
            )
        return flat

    def _describe(self, slot: AgentSlot, what: str) -> str:
        """Return the beginning of a message about faulty data for an agent."""
        return (
            f"environment {self._settings.name!r} gave agent {slot.agent!r} of copy {slot.copy} "
            f"{what} (group {slot.group!r})"
        )

    def _raise_unexpected(self, i: int, agent: str) -> NoReturn:
        """Raise a ValueError for an agent of copy i that has no group or had left the episode."""
        where = f"copy {self._first + i} of environment {self._settings.name!r}"
        slot = self._slots[i].get(agent)
        if slot is not None:
            raise ValueError(
                f"agent {agent!r} of group {slot.group!r} returned to {where} after leaving it; an "
                "agent that leaves must stay away until the episode ends. Keep waiting agents in "
                "the episode"
            )
        groups = ", ".join(
            f"{name!r} of {', '.join(group.agents)}"
            for name, group in self._settings.groups.items()
        )
        raise ValueError(
            f"agent {agent!r} appeared unexpectedly in {where} and belongs to no group; the groups "
            f"are {groups}. Add the agent to the environment's possible_agents"
        )

    def _write_state(self, i: int) -> None:
        """Write copy i's global state, if it is read at all."""
        if "state" not in self._outputs:
            return
        state = np.asarray(self._envs[i].state())
        expected = self._settings.description.state_shape
        if state.shape != expected:
            raise ValueError(
                f"copy {self._first + i} of environment {self._settings.name!r} returned a state "
                f"of shape {state.shape}, but the first state had shape {expected}. state() must "
                "always return the same shape; otherwise set environment.state=false"
            )
        self._outputs["state"][i] = state.reshape(-1)

    def _write_rewards(self, i: int, own: Mapping[str, float]) -> None:
        """Write the training rewards of copy i, given each agent's own reward."""
        if not self._settings.team_reward:
            for name, group in self._settings.groups.items():
                self._outputs[name, "reward"][i, :, 0] = [own[agent] for agent in group.agents]
            return
        team = mean(own.values())
        for name in self._settings.groups:
            self._outputs[name, "reward"][i] = team

    def _add_to_return(self, i: int, reward: float) -> None:
        self._returns[i] += reward
        self._outputs["episode_return"][i, 0] = self._returns[i]

    # --- checks --------------------------------------------------------------------------------

    def _check_spaces(self, i: int) -> None:
        env, agents = self._envs[i], self._settings.description.agents
        current = [env.observation_space(agent) for agent in agents]
        current += [env.action_space(agent) for agent in agents]
        checked = self._checked[i]
        if checked is None or not all(map(operator.is_, current, checked)):
            settings = self._settings
            settings.description.check(env, settings.name, self._first + i, settings.groups)
            self._checked[i] = current

    def _action_spaces(self, i: int) -> list[Any]:
        checked = self._checked[i]
        assert checked is not None, "`_check_spaces` comes first"
        return checked[len(checked) // 2 :]

    def _check_outputs(self) -> None:
        """Raise ValueError for non-finite numbers and for agents without a legal action."""
        for name, group in self._settings.groups.items():
            observed = self._outputs[name, "observation"]
            if not np.isfinite(observed).all():
                self._raise_not_finite(group, observed)
            if group.masked:
                mask = self._outputs[name, "action_mask"]
                if not mask.any(-1).all():
                    self._check_stuck(group, mask)
        state = self._outputs.get("state")
        if state is not None and not np.isfinite(state).all():
            i = int(np.argwhere(~np.isfinite(state))[0, 0])
            raise ValueError(
                f"copy {self._first + i} of environment {self._settings.name!r} returned a state "
                f"with NaN or infinity: {state[i]}. {_MUST_BE_FINITE}"
            )

    def _raise_not_finite(self, group: Group, observed: np.ndarray) -> None:
        i, row = np.argwhere(~np.isfinite(observed).all(-1))[0].tolist()
        slot = self._slots[i][group.agents[row]]
        what = "an observation with NaN or infinity"
        raise ValueError(f"{self._describe(slot, what)}: {observed[i, row]}. {_MUST_BE_FINITE}")

    def _check_stuck(self, group: Group, mask: np.ndarray) -> None:
        """Raise ValueError if an agent has no legal action before the end; then allow all."""
        stuck = ~mask.any(-1)
        for i, row in np.argwhere(stuck & ~self._outputs["done"]).tolist():
            slot = self._slots[i][group.agents[row]]
            raise ValueError(
                f"{self._describe(slot, 'no legal action')}: its action mask is all zeros, but it "
                "is still in the episode. Add a no-op action, or let the agent leave"
            )
        mask[stuck] = True
