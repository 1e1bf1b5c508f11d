"""Copies of a PettingZoo AEC environment: agents act one after the other. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from heteromark.environment.errors import IncompatibleOpponent
from heteromark.environment.opponents.choice import Player, make_player
from heteromark.environment.pettingzoo.conformity import number, refuse_info, refuse_reward
from heteromark.environment.pettingzoo.copies import UNKNOWN, AgentSlot, Copies, mask_in, mean
from heteromark.environment.pettingzoo.direct import without_checks
from heteromark.seeds import stream_seed

_MAX_ATTEMPTS = 100  # consecutive games that may end before the learner's first turn


class TurnCopies(Copies):
    """See `Copies`, and `PettingZooAECEnv` for what the arrays mean.

    Random and heuristic opponents play within this class. For past policies, a copy requests their
    actions through `requests` and continues with `answer`.

    Raises:
        ValueError: see `Copies`; or an agent acts that is not in `possible_agents` or had left the
            episode, an opponent takes an illegal action, or the game always ends before the
            learner's first turn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings, n_copies = self._settings, len(self._envs)
        self._direct = [without_checks(env) for env in self._envs]
        self._group_of = {a: group for group in settings.groups.values() for a in group.agents}
        self._agents = settings.description.agents
        self._player: Player | None = None
        self._first_actions: dict[str, int] = {}
        if settings.opponent.kind in ("random", "heuristic"):
            self._first_actions = self._require_discrete()
            game = getattr(self._envs[0], "metadata", {}).get("name", settings.name)
            self._player = make_player(settings.opponent, game)
        self._request_slots = [
            self._make_slots(self._requests, i) if self._requests else {} for i in range(n_copies)
        ]
        self._generators = [np.random.default_rng() for _ in range(n_copies)]
        self._learners: list[tuple[str, ...]] = [()] * n_copies
        # the agent whose turn it is: a learner's, or a past policy's
        self._turn: list[AgentSlot | None] = [None] * n_copies
        self._waiting: list[AgentSlot | None] = [None] * n_copies
        # agents that have left the episode
        self._gone: list[set[str]] = [set() for _ in range(n_copies)]
        # each agent's rewards since the last frame, and in the whole episode
        self._pending = [dict.fromkeys(self._agents, 0.0) for _ in range(n_copies)]
        self._sums = [dict.fromkeys(self._agents, 0.0) for _ in range(n_copies)]
        self._attempts = [0] * n_copies

    # --- episodes ------------------------------------------------------------------------------

    def _reset_copy(self, i: int, seed: int) -> None:
        if self._settings.opponent.kind != "self":
            self._generators[i] = np.random.default_rng(stream_seed(seed, "opponent"))
        self._learners[i] = self._seats(i)
        self._attempts[i] = 0
        self._begin(i, seed)

    def _seats(self, i: int) -> tuple[str, ...]:
        """Return the agents that learn in copy i's current episode."""
        opponent = self._settings.opponent
        if opponent.kind == "self":
            return self._agents
        seat = {"first": 0, "second": 1}.get(opponent.seat)
        if seat is None:
            # copies start on different seats, so that even a few episodes are balanced
            seat = (self._first + i + self._episodes[i]) % 2
        return (self._agents[seat],)

    def _begin(self, i: int, seed: int | None) -> None:
        """Start a game and play it up to a learner's first turn."""
        self._attempts[i] += 1
        if self._attempts[i] > _MAX_ATTEMPTS:
            raise ValueError(
                f"{_MAX_ATTEMPTS} consecutive episodes ended in copy {self._first + i} of "
                f"environment {self._settings.name!r} before the first turn of "
                f"{', '.join(self._learners[i])}; choose another environment.opponent.seat"
            )
        self._envs[i].reset(seed=seed)
        self._gone[i] = set()
        self._turn[i] = self._waiting[i] = None
        self._pending[i] = dict.fromkeys(self._agents, 0.0)
        self._sums[i] = dict.fromkeys(self._agents, 0.0)
        if self._requests:
            for slot in self._request_slots[i].values():
                self._clear(slot)
            self._requests["draw"][i] = self._generators[i].random()
            self._requests["turns"][i] = 0
        self._advance(i)

    def _step_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        if self._waiting[i] is not None:
            self._answer_copy(i, actions)
            return
        slot = self._turn[i]
        if slot is None:  # over, and not reset
            return
        self._turn[i] = None
        self._clear(slot)
        self._outputs["step_count"][i, 0] += 1
        self._play(i, actions[slot.agent][i])
        self._advance(i)

    def answer(self) -> None:
        """Continue the copies that wait for an action, with the actions in the arrays."""
        waits = np.array([slot is not None for slot in self._waiting])
        self._log.add(waits)
        self._step_copies(waits.nonzero()[0].tolist())

    def _answer_copy(self, i: int, actions: Mapping[str, Sequence[Any]]) -> None:
        slot, self._waiting[i] = self._waiting[i], None
        assert slot is not None, "`answer` continues only copies that wait"
        self._clear(slot)
        self._requests["turns"][i, 0] += 1
        self._play(i, actions[slot.agent][i])
        self._advance(i)

    def _play(self, i: int, action: Any) -> None:
        """Let the agent whose turn it is act."""
        env, pending = self._direct[i], self._pending[i]
        env.step(action)
        for agent, reward in env.rewards.items():
            if agent not in pending:
                self._raise_unexpected(i, agent)
            value = number(reward)
            if value is None:
                refuse_reward(agent, reward, self._settings.name, self._first + i)
            pending[agent] += value

    def _advance(self, i: int) -> None:
        """Play copy i up to the next frame: a learner's turn, or the end.

        Random and heuristic opponents act on the way. At a past policy's turn, request its action.
        """
        env = self._direct[i]
        while not all(env.terminations[a] or env.truncations[a] for a in env.agents):
            agent = env.agent_selection
            if env.terminations[agent] or env.truncations[agent]:
                if agent in self._gone[i]:
                    raise ValueError(
                        f"environment {self._settings.name!r} did not remove agent {agent!r}, "
                        f"which had left copy {self._first + i}: its step(None) must remove an "
                        "agent that has terminated or was truncated, as PettingZoo's "
                        "_was_dead_step does"
                    )
                env.step(None)
                self._gone[i].add(agent)
                continue
            if agent not in self._group_of or agent in self._gone[i]:
                self._raise_unexpected(i, agent)
            if agent in self._learners[i]:
                self._turn[i] = self._write_acting(i, self._slots[i][agent])
                self._end_frame(i)
                return
            if self._player is None:
                self._waiting[i] = self._write_acting(i, self._request_slots[i][agent])
                return
            self._play(i, self._opponents_action(i, agent, self._player))
        if self._outputs["step_count"][i, 0] == 0:
            self._begin(i, None)  # no learner had a turn
        else:
            self._end(i)

    def _end(self, i: int) -> None:
        """End copy i's episode; truncated agents stay active."""
        env = self._direct[i]
        present = [a for a in env.agents if env.truncations[a] and not env.terminations[a]]
        self._outputs["done"][i] = True
        self._outputs["terminated"][i] = not present
        self._outputs["truncated"][i] = bool(present)
        for agent in present:
            if agent in self._learners[i]:
                self._write_acting(i, self._slots[i][agent])
        self._end_frame(i)
        self._outputs["won"][i] = self._won(i)

    def _won(self, i: int) -> int:
        """Return whether the learner won: 1 or 0, or UNKNOWN if all agents learn."""
        sums, learners = self._sums[i], self._learners[i]
        if len(learners) == len(sums) > 1:
            return UNKNOWN
        best = max(sums.values())
        winners = [agent for agent, total in sums.items() if total == best and best > 0]
        return int(len(winners) == 1 and winners[0] in learners)

    def _end_frame(self, i: int) -> None:
        """Write the state, the rewards and the return. Keep earlier rewards for the first frame."""
        self._write_state(i)
        if self._outputs["step_count"][i, 0] == 0:
            return
        pending, sums = self._pending[i], self._sums[i]
        self._write_rewards(i, pending)
        self._add_to_return(i, mean([pending[agent] for agent in self._learners[i]]))
        for agent, reward in pending.items():
            sums[agent] += reward
            pending[agent] = 0.0

    # --- agents --------------------------------------------------------------------------------

    def _write_acting(self, i: int, slot: AgentSlot) -> AgentSlot:
        env = self._direct[i]
        info = env.infos.get(slot.agent, {})
        if not isinstance(info, Mapping):
            refuse_info(slot.agent, info, self._settings.name, slot.copy)
        self._write_observation(slot, env.observe(slot.agent), info)
        slot.active[slot.row] = True
        return slot

    def _opponents_action(self, i: int, agent: str, player: Player) -> int:
        """Return the action of a random or heuristic opponent.

        Raises:
            ValueError: the action is illegal.
        """
        env, group = self._direct[i], self._group_of[agent]
        seen = env.observe(agent)
        mask = mask_in(seen, env.infos.get(agent, {}))
        legal = np.ones(group.action_size, bool) if mask is None else np.asarray(mask, bool)
        if isinstance(seen, dict):
            seen = seen["observation"]
        action = player(seen, legal, self._generators[i])
        if not (0 <= action < group.action_size and legal[action]):
            raise ValueError(
                f"the opponent in environment {self._settings.name!r} took illegal action {action} "
                f"for agent {agent!r}; legal are {np.flatnonzero(legal).tolist()}"
            )
        return action + self._first_actions[agent]

    def _require_discrete(self) -> dict[str, int]:
        """Return the first action of each agent's Discrete space.

        Raises:
            IncompatibleOpponent: an action space is continuous.
        """
        first_actions = {}
        for name, group in self._settings.groups.items():
            space = group.action_space
            if not isinstance(space, spaces.Discrete):
                raise IncompatibleOpponent(
                    self._settings.opponent.kind,
                    f"such an opponent plays only discrete actions, and group {name!r} of "
                    f"environment {self._settings.name!r} has action space {space}; "
                    "the opponent must be self or past_self",
                )
            first_actions.update(dict.fromkeys(group.agents, int(space.start)))
        return first_actions
