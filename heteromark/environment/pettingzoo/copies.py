"""Copies of an environment in one process: what stepping them has in common. Imports no torch."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from heteromark.config.models.components import OpponentConfig
from heteromark.environment.groups import Group, observed_space
from heteromark.environment.pettingzoo.arrays import Arrays
from heteromark.environment.pettingzoo.description import Description
from heteromark.environment.pettingzoo.global_streams import GlobalStreams, with_streams

UNKNOWN = -1  # value of "won" where the environment does not say
_MUST_BE_FINITE = (
    "Nothing can be learnt from it: look for a division by zero or an overflow in the environment, "
    "or replace what has no value by a number, as numpy.nan_to_num does"
)


@dataclass(frozen=True)
class CopySettings:
    """What every process that steps copies has to know; it can be sent to another process.

    What is not explained here: see `BatchedEnv`.
    """

    make_env: Callable[..., Any]  # given `render_mode="rgb_array"`, one that can draw
    name: str
    description: Description  # what every copy must look like
    groups: Mapping[str, Group]  # by name
    team_reward: bool
    opponent: OpponentConfig = field(default_factory=OpponentConfig)
    render: bool = False
    first: int = 0


def make_copy(make_env: Callable[..., Any], name: str, drawing: bool, number: int = 0) -> Any:
    """A fresh environment; one that can draw, if it has to.

    What its constructor draws from the global generators follows from its number among all copies.

    Raises:
        ValueError: the factory of environment `name` makes none that can draw.
    """
    options = {"render_mode": "rgb_array"} if drawing else {}
    try:
        return with_streams(number, functools.partial(make_env, **options))
    except TypeError as error:
        if not drawing:
            raise
        raise ValueError(
            f"environment {name!r} cannot draw: its factory takes no render_mode ({error})"
        ) from error


@dataclass(frozen=True, slots=True)
class Place:
    """Where one agent of one copy is shown."""

    agent: str
    group: str
    copy: int  # the copy's number among all
    shape: tuple[int, ...]  # of an observation as the environment gives it
    observation: np.ndarray  # flat view [observation_size]
    mask: np.ndarray | None  # view [action_size], or None where all actions are always legal
    active: np.ndarray  # view [n] of the group, in which the agent is number `row`
    row: int


def mask_in(observation: Any, info: Mapping[str, Any]) -> Any:
    """The action mask, from the observation or else the info; None: there is none."""
    in_observation = isinstance(observation, dict) and "action_mask" in observation
    return (observation if in_observation else info).get("action_mask")


def mean(rewards: Collection[float]) -> float:
    """Summed one after the other, so that it does not depend on how copies are split up."""
    return sum(rewards) / len(rewards)


class Copies(ABC):
    """Consecutive copies of an environment, all stepped in this process.

    Results appear in the given arrays, and actions are read from them; nothing is returned.

    Args:
        settings: see there.
        shown, actions, asked: arrays of `shown_layout`, `action_layout` and `asked_layout`, these
            copies' rows only; `asked` only where past policies play.
        first: number of the first copy among those of the settings.
        envs: environments to take before new ones are made.

    Raises:
        ValueError: a copy differs from the others in its agents or spaces; or it has to draw and
            cannot.
    """

    def __init__(
        self,
        settings: CopySettings,
        shown: Arrays,
        actions: Arrays,
        asked: Arrays | None = None,
        *,
        first: int = 0,
        envs: Sequence[Any] = (),
    ) -> None:
        self._settings = settings
        self._shown = shown
        self._actions = actions
        self._asked = asked
        self._first = settings.first + first
        n_copies = len(shown["done"])
        # the space objects that have been compared already, which takes long
        self._checked: list[list[Any] | None] = [None] * n_copies
        self._envs = list(envs)
        for i in range(len(envs), n_copies):
            drawing = settings.render and first + i == 0
            self._envs.append(make_copy(settings.make_env, settings.name, drawing, self._first + i))
            self._check_spaces(i)
        self._streams = GlobalStreams(range(self._first, self._first + n_copies), settings.name)
        self._seeds: list[int | None] = [None] * n_copies
        # in double precision, so that long episodes add up
        self._returns = [0.0] * n_copies
        self._places = [self._places_in(shown, i) for i in range(n_copies)]

    def _places_in(self, arrays: Arrays, i: int) -> dict[str, Place]:
        places = {}
        for name, group in self._settings.groups.items():
            mask = arrays.get((name, "action_mask"))
            for row, agent in enumerate(group.agents):
                space = self._settings.description.observation_spaces[agent]
                places[agent] = Place(
                    agent=agent,
                    group=name,
                    copy=self._first + i,
                    shape=observed_space(space).shape,
                    observation=arrays[name, "observation"][i, row],
                    mask=None if mask is None else mask[i, row],
                    active=arrays[name, "active"][i],
                    row=row,
                )
        return places

    # --- what a process is asked to do ---------------------------------------------------------

    def reseed(self, seeds: Sequence[int]) -> None:
        """Give every copy a seed for its next reset; its global streams follow from it, too."""
        self._seeds = list(seeds)
        self._streams = GlobalStreams(seeds, self._settings.name)
        for env, seed in zip(self._envs, seeds, strict=True):
            for agent in env.possible_agents:
                env.action_space(agent).seed(seed)

    def reset(self, rows: Sequence[int]) -> None:
        """Start a new episode in the copies numbered `rows` among these; the others stay."""
        self._streams.episodes_ended(i for i in rows if self._shown["done"][i, 0])
        self._in_each(rows, self._restart_copy)
        self._check_shown()

    def step(self) -> None:
        """Step every copy with the actions that are in the arrays."""
        actions = self._actions_by_agent()
        self._in_each(range(len(self._envs)), lambda i: self._step_copy(i, actions))
        self._check_shown()

    def render(self) -> np.ndarray:
        """What the first copy looks like now, uint8 [height, width, 3].

        Raises:
            ValueError: the environment cannot draw.
        """
        name = self._settings.name
        if not self._settings.render:
            raise ValueError(f"environment {name!r} cannot draw: create it with render=True")
        try:
            picture = self._envs[0].render()
        except NotImplementedError as error:
            raise ValueError(f"environment {name!r} cannot draw: it has no render()") from error
        if not isinstance(picture, np.ndarray) or picture.ndim != 3:
            raise ValueError(
                f"environment {name!r} cannot draw: its render() returned "
                f"{type(picture).__name__} instead of a picture"
            )
        return np.ascontiguousarray(picture[..., :3], np.uint8)

    def close(self) -> None:
        """Close every copy."""
        for env in self._envs:
            env.close()

    @abstractmethod
    def _reset_copy(self, i: int, seed: int | None) -> None:
        """Start copy i's next episode and show who is there."""

    @abstractmethod
    def _step_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        """Step copy i with each agent's actions in all copies, and show what came of it."""

    def _in_each(self, rows: Iterable[int], act: Callable[[int], None]) -> None:
        """Act on copies one by one; an exception is told in which copy it happened."""

        def act_or_tell(i: int) -> None:
            try:
                act(i)
            except Exception as error:
                error.add_note(f"in copy {self._first + i} of environment {self._settings.name!r}")
                raise

        self._streams.run(act_or_tell, rows)

    def _restart_copy(self, i: int) -> None:
        """Show copy i without agents, as at an episode's start, and reset it."""
        self._check_spaces(i)
        for place in self._places[i].values():
            self._hide(place)
        self._returns[i] = 0.0
        for key in ("episode_return", "step_count", "done", "terminated", "truncated"):
            self._shown[key][i] = 0
        self._shown["won"][i] = UNKNOWN
        seed, self._seeds[i] = self._seeds[i], None
        self._reset_copy(i, seed)

    # --- reading actions, showing agents -------------------------------------------------------

    def _actions_by_agent(self) -> dict[str, Sequence[Any]]:
        """Each agent's actions in all copies: a list of ints, or an array [copies, action_size].

        Raises:
            ValueError: an action is out of range.
        """
        by_agent: dict[str, Sequence[Any]] = {}
        for name, group in self._settings.groups.items():
            action = self._actions[name, "action"]
            if group.is_discrete:
                if action.min() < 0 or action.max() >= group.action_size:
                    raise ValueError(
                        f"group {name!r} of environment {self._settings.name!r} was given actions "
                        f"from {action.min()} to {action.max()}; they are counted from 0 to "
                        f"{group.action_size - 1}"
                    )
                # plain ints: indexing numpy scalars one by one is several times slower
                per_agent = (action.T + int(group.action_space.start)).tolist()
            else:
                # in new memory, because an environment may keep what it was given
                per_agent = action.swapaxes(0, 1).copy()
            by_agent.update(zip(group.agents, per_agent, strict=True))
        return by_agent

    @staticmethod
    def _hide(place: Place) -> None:
        place.observation[:] = 0
        place.active[place.row] = False
        if place.mask is not None:
            place.mask[:] = True

    def _show(self, place: Place, observation: Any, info: Mapping[str, Any]) -> None:
        """Write what an agent sees and may do; whether it is active is left as it is.

        Raises:
            ValueError: the observation or the action mask does not have the announced shape.
        """
        if place.mask is not None:
            legal = mask_in(observation, info)
            if legal is None or len(legal) != place.mask.size:
                raise ValueError(
                    f"{self._gave(place, f'the action mask {legal}')}; its action space has "
                    f"{place.mask.size} actions. Let the mask have one entry for each"
                )
            place.mask[:] = legal
        if isinstance(observation, dict):
            observation = observation["observation"]
        if type(observation) is not np.ndarray:
            observation = np.asarray(observation)
        if observation.shape != place.shape:
            what = f"an observation of shape {observation.shape}"
            raise ValueError(
                f"{self._gave(place, what)}: {observation}; its observation space has shape "
                f"{place.shape}. Let the space and what is observed agree; what is missing for now "
                "can be padded with zeros"
            )
        place.observation[:] = observation if observation.ndim == 1 else observation.reshape(-1)

    def _gave(self, place: Place, what: str) -> str:
        """The beginning of a message about what an agent was given."""
        return (
            f"environment {self._settings.name!r} gave agent {place.agent!r} of copy {place.copy} "
            f"{what} (group {place.group!r})"
        )

    def _raise_unexpected(self, i: int, agent: str) -> NoReturn:
        """Tell of an agent in copy i that is in no group, or that had left the episode."""
        where = f"copy {self._first + i} of environment {self._settings.name!r}"
        place = self._places[i].get(agent)
        if place is not None:
            raise ValueError(
                f"agent {agent!r} of group {place.group!r} came back to {where} after it had left; "
                "an agent that leaves stays away until the episode ends. Keep it in the episode "
                "while it only waits"
            )
        groups = ", ".join(
            f"{name!r} of {', '.join(group.agents)}"
            for name, group in self._settings.groups.items()
        )
        raise ValueError(
            f"agent {agent!r} appeared unannounced in {where}, and belongs to no group; there are "
            f"{groups}. Name it in the environment's possible_agents from the start"
        )

    def _show_state(self, i: int) -> None:
        """Write copy i's global state, if it is asked for."""
        if "state" not in self._shown:
            return
        state = np.asarray(self._envs[i].state())
        expected = self._settings.description.state_shape
        if state.shape != expected:
            raise ValueError(
                f"environment {self._settings.name!r} gave copy {self._first + i} a state of shape "
                f"{state.shape}; its first state had shape {expected}. Let state() always return "
                "as many numbers, or set environment.state=false"
            )
        self._shown["state"][i] = state.reshape(-1)

    def _show_rewards(self, i: int, own: Mapping[str, float]) -> None:
        """Write what copy i's agents are trained on, given what each agent got."""
        if not self._settings.team_reward:
            for name, group in self._settings.groups.items():
                self._shown[name, "reward"][i, :, 0] = [own[agent] for agent in group.agents]
            return
        team = mean(own.values())
        for name in self._settings.groups:
            self._shown[name, "reward"][i] = team

    def _add_to_return(self, i: int, reward: float) -> None:
        self._returns[i] += reward
        self._shown["episode_return"][i, 0] = self._returns[i]

    # --- checks --------------------------------------------------------------------------------

    def _check_spaces(self, i: int) -> None:
        env, agents = self._envs[i], self._settings.description.agents
        spaces = [env.observation_space(agent) for agent in agents]
        spaces += [env.action_space(agent) for agent in agents]
        checked = self._checked[i]
        if checked is None or not all(map(operator.is_, spaces, checked)):
            settings = self._settings
            settings.description.check(env, settings.name, self._first + i, settings.groups)
            self._checked[i] = spaces

    def _check_shown(self) -> None:
        """Raise ValueError for numbers that are not finite and agents that may do nothing."""
        for name, group in self._settings.groups.items():
            observed = self._shown[name, "observation"]
            if not np.isfinite(observed).all():
                self._raise_not_finite(group, observed)
            if group.masked:
                mask = self._shown[name, "action_mask"]
                if not mask.any(-1).all():
                    self._check_stuck(group, mask)
        state = self._shown.get("state")
        if state is not None and not np.isfinite(state).all():
            i = int(np.argwhere(~np.isfinite(state))[0, 0])
            raise ValueError(
                f"environment {self._settings.name!r} gave copy {self._first + i} a state that "
                f"holds NaN or infinity: {state[i]}. {_MUST_BE_FINITE}"
            )

    def _raise_not_finite(self, group: Group, observed: np.ndarray) -> None:
        i, row = np.argwhere(~np.isfinite(observed).all(-1))[0].tolist()
        place = self._places[i][group.agents[row]]
        what = "an observation that holds NaN or infinity"
        raise ValueError(f"{self._gave(place, what)}: {observed[i, row]}. {_MUST_BE_FINITE}")

    def _check_stuck(self, group: Group, mask: np.ndarray) -> None:
        """An agent that has to act needs a legal action; after the end nobody acts."""
        stuck = ~mask.any(-1)
        for i, row in np.argwhere(stuck & ~self._shown["done"]).tolist():
            place = self._places[i][group.agents[row]]
            raise ValueError(
                f"{self._gave(place, 'no legal action')}: its action mask is all zeros while it "
                "takes part. Let it do nothing by an action of its own, or leave"
            )
        mask[stuck] = True
