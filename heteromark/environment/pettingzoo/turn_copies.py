"""Copies of a PettingZoo AEC environment: agents act one after the other. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heteromark.environment.errors import OpponentMisfit
from heteromark.environment.opponents.choice import make_player
from heteromark.environment.pettingzoo.copies import UNKNOWN, Copies, Place, mask_in, mean
from heteromark.environment.pettingzoo.direct import without_checks
from heteromark.seeds import stream_seed

_MAX_ATTEMPTS = 100  # games in a row that may end before the learner's first turn


class TurnCopies(Copies):
    """See `Copies`, and `PettingZooAECEnv` for what the arrays mean.

    Opponents of kind random and heuristic play here. Where past policies play, a copy asks for
    their actions in `asked` and goes on with `answer`.

    Raises:
        ValueError: besides, an agent acts that is not among `possible_agents`, or that had left the
            episode; an opponent takes an illegal action; or the game is always over before the
            learner's first turn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings, n_copies = self._settings, len(self._envs)
        self._direct = [without_checks(env) for env in self._envs]
        self._group_of = {a: group for group in settings.groups.values() for a in group.agents}
        self._agents = settings.description.agents
        self._player = None
        if settings.opponent.kind in ("random", "heuristic"):
            self._require_discrete()
            game = getattr(self._envs[0], "metadata", {}).get("name", settings.name)
            self._player = make_player(settings.opponent, game)
        self._asking_places = [
            self._places_in(self._asked, i) if self._asked else {} for i in range(n_copies)
        ]
        self._generators = [np.random.default_rng() for _ in range(n_copies)]
        self._episodes = [0] * n_copies
        self._learners: list[tuple[str, ...]] = [()] * n_copies
        # whose turn it is: of a learner, or of a past policy
        self._turn: list[Place | None] = [None] * n_copies
        self._asking: list[Place | None] = [None] * n_copies
        # agents that were taken out of the episode
        self._gone: list[set[str]] = [set() for _ in range(n_copies)]
        # rewards since the last frame, and of the whole episode
        self._pending = [dict.fromkeys(self._agents, 0.0) for _ in range(n_copies)]
        self._sums = [dict.fromkeys(self._agents, 0.0) for _ in range(n_copies)]
        self._attempts = [0] * n_copies

    # --- episodes ------------------------------------------------------------------------------

    def _reset_copy(self, i: int, seed: int | None) -> None:
        if seed is not None:
            self._generators[i] = np.random.default_rng(stream_seed(seed, "opponent"))
            self._episodes[i] = 0
        self._learners[i] = self._seats(i)
        self._episodes[i] += 1
        self._attempts[i] = 0
        self._begin(i, seed)

    def _seats(self, i: int) -> tuple[str, ...]:
        """The agents that learn in copy i's coming episode."""
        opponent = self._settings.opponent
        if opponent.kind == "self":
            return self._agents
        seat = {"first": 0, "second": 1}.get(opponent.seat)
        if seat is None:
            # copies start on different seats, so that few episodes are balanced, too
            seat = (self._first + i + self._episodes[i]) % 2
        return (self._agents[seat],)

    def _begin(self, i: int, seed: int | None) -> None:
        """Start a game and play it until a learner's first turn."""
        self._attempts[i] += 1
        if self._attempts[i] > _MAX_ATTEMPTS:
            raise ValueError(
                f"{_MAX_ATTEMPTS} episodes in a row ended in copy {self._first + i} of environment "
                f"{self._settings.name!r} before the first turn of {', '.join(self._learners[i])}; "
                "set environment.opponent.seat to another seat"
            )
        self._envs[i].reset(seed=seed)
        self._gone[i] = set()
        self._turn[i] = self._asking[i] = None
        self._pending[i] = dict.fromkeys(self._agents, 0.0)
        self._sums[i] = dict.fromkeys(self._agents, 0.0)
        if self._asked:
            for place in self._asking_places[i].values():
                self._hide(place)
            self._asked["draw"][i] = self._generators[i].random()
            self._asked["turns"][i] = 0
        self._advance(i)

    def _step_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        place = self._turn[i]
        if place is None:  # over, and not reset
            return
        self._turn[i] = None
        self._hide(place)
        self._shown["step_count"][i, 0] += 1
        self._play(i, actions[place.agent][i])
        self._advance(i)

    def answer(self) -> None:
        """Go on in the copies that asked, with the actions that are now in the arrays."""
        actions = self._actions_by_agent()
        asking = [i for i, place in enumerate(self._asking) if place is not None]
        self._in_each(asking, lambda i: self._answer_copy(i, actions))
        self._check_shown()

    def _answer_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        place, self._asking[i] = self._asking[i], None
        self._hide(place)
        self._asked["turns"][i, 0] += 1
        self._play(i, actions[place.agent][i])
        self._advance(i)

    def _play(self, i: int, action: Any) -> None:
        """The agent whose turn it is acts."""
        env, pending = self._direct[i], self._pending[i]
        env.step(action)
        for agent, reward in env.rewards.items():
            if agent not in pending:
                self._raise_unexpected(i, agent)
            pending[agent] += float(reward)

    def _advance(self, i: int) -> None:
        """Play copy i on to the next frame: a learner's turn, or the end.

        Opponents that are played here act on the way; for one that is not, the copy asks.
        """
        env = self._direct[i]
        while not all(env.terminations[a] or env.truncations[a] for a in env.agents):
            agent = env.agent_selection
            if env.terminations[agent] or env.truncations[agent]:
                env.step(None)
                self._gone[i].add(agent)
                continue
            if agent not in self._group_of or agent in self._gone[i]:
                self._raise_unexpected(i, agent)
            if agent in self._learners[i]:
                self._turn[i] = self._show_acting(i, self._places[i][agent])
                self._end_frame(i)
                return
            if self._player is None:
                self._asking[i] = self._show_acting(i, self._asking_places[i][agent])
                return
            self._play(i, self._opponents_action(i, agent))
        if self._shown["step_count"][i, 0] == 0:
            self._begin(i, None)  # no learner had a turn
        else:
            self._end(i)

    def _end(self, i: int) -> None:
        """Copy i's episode is over; truncated agents are still there."""
        env = self._direct[i]
        present = [a for a in env.agents if env.truncations[a] and not env.terminations[a]]
        self._shown["done"][i] = True
        self._shown["terminated"][i] = not present
        self._shown["truncated"][i] = bool(present)
        for agent in present:
            if agent in self._learners[i]:
                self._show_acting(i, self._places[i][agent])
        self._end_frame(i)
        self._shown["won"][i] = self._won(i)

    def _won(self, i: int) -> int:
        """Whether who learns has beaten the others; where all learn, somebody always does."""
        sums, learners = self._sums[i], self._learners[i]
        if len(learners) == len(sums) > 1:
            return UNKNOWN
        best = max(sums.values())
        winners = [agent for agent, total in sums.items() if total == best and best > 0]
        return int(len(winners) == 1 and winners[0] in learners)

    def _end_frame(self, i: int) -> None:
        """Show what is not of one agent. Before the first frame rewards are kept for it."""
        self._show_state(i)
        if self._shown["step_count"][i, 0] == 0:
            return
        pending, sums = self._pending[i], self._sums[i]
        self._show_rewards(i, pending)
        self._add_to_return(i, mean([pending[agent] for agent in self._learners[i]]))
        for agent, reward in pending.items():
            sums[agent] += reward
            pending[agent] = 0.0

    # --- agents --------------------------------------------------------------------------------

    def _show_acting(self, i: int, place: Place) -> Place:
        env = self._direct[i]
        self._show(place, env.observe(place.agent), env.infos.get(place.agent, {}))
        place.active[place.row] = True
        return place

    def _opponents_action(self, i: int, agent: str) -> Any:
        """What an opponent that is played here does now.

        Raises:
            ValueError: it is not legal.
        """
        env, group = self._direct[i], self._group_of[agent]
        seen = env.observe(agent)
        mask = mask_in(seen, env.infos.get(agent, {}))
        legal = np.ones(group.action_size, bool) if mask is None else np.asarray(mask, bool)
        if isinstance(seen, dict):
            seen = seen["observation"]
        action = self._player(seen, legal, self._generators[i])
        if not (0 <= action < group.action_size and legal[action]):
            raise ValueError(
                f"the opponent of environment {self._settings.name!r} took action {action} for "
                f"agent {agent!r}, whose legal actions are {np.flatnonzero(legal).tolist()}"
            )
        return action + int(group.action_space.start)

    def _require_discrete(self) -> None:
        for name, group in self._settings.groups.items():
            if not group.is_discrete:
                raise OpponentMisfit(
                    self._settings.opponent.kind,
                    f"it plays discrete actions only, and group {name!r} of environment "
                    f"{self._settings.name!r} acts in {group.action_space}; it must be self or "
                    "past_self",
                )
