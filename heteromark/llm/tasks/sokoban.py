"""Sokoban: a tool proposes moves and sees their outcome, a planner makes the moves."""

from __future__ import annotations

import random
from typing import NamedTuple

from heteromark.config.models.tasks import SokobanConfig
from heteromark.llm.tasks.base import MALFORMED, Reward, Role, Task, TurnProblem, last_line
from heteromark.llm.tasks.registry import TASKS
from heteromark.llm.tasks.sokoban_level import Level, State, draw_level

SOLVED_REWARD = 1.0
DEADLOCK_PENALTY = 0.1

_LEGEND = "# wall, - floor, $ box, . goal, * box on goal, @ you, + you on goal"
ROLES = {
    "tool": Role(
        (
            "{grid}\n"
            f"{_LEGEND}\n"
            "Last proposal: {last}\n"
            "Propose moves (U D L R, at most {limit}) that push all boxes onto goals:\n",
            "Help to solve this Sokoban level.\n"
            "{grid}\n"
            f"{_LEGEND}\n"
            "Think if you like. The last line must be moves, such as UULR, {limit} at most:\n",
            "Sokoban ({boxes} on goals)\n"
            "{grid}\n"
            "Last proposal: {last}\n"
            "Which moves out of U D L R solve it? A box in a corner is stuck. Moves, last line:\n",
        )
    ),
    "planner": Role(
        (
            "{grid}\n"
            f"{_LEGEND}\n"
            "Proposal: {proposal} -> {outcome}\n"
            "Moves (U D L R, at most {limit}) that push all boxes onto goals:\n",
            "Solve this Sokoban level.\n"
            "{grid}\n"
            f"{_LEGEND}\n"
            "A helper proposes {proposal}, which leads to {outcome}.\n"
            "Check it, then write your moves, such as UULR, {limit} at most, as the last line. "
            "A move into a wall, or of a box that cannot go, ends them:\n",
            "Sokoban now:\n"
            "{grid}\n"
            "After the proposal {proposal} ({outcome}):\n"
            "{foreseen}\n"
            "Repeat it if it is good, else write better moves out of U D L R, last line:\n",
        )
    ),
}


class Proposal(NamedTuple):
    """Proposed moves and the state that they lead to."""

    moves: str
    state: State


class SokobanProblem(TurnProblem):
    """A level, the positions of its boxes and player, and the last proposal.

    Args:
        level: the walls and goals.
        state: the initial positions of the boxes and the player.
    """

    roles = ROLES

    def __init__(self, level: Level, state: State) -> None:
        self._level, self._start, self._state = level, state, state
        self._last: Proposal | None = None
        # whether the planner has not moved since the last proposal
        self._is_fresh = False

    @property
    def key(self) -> str:
        return self._level.text(self._start)

    @property
    def is_done(self) -> bool:
        return self.is_solved or self._level.is_deadlocked(self._state)

    @property
    def is_solved(self) -> bool:
        return self._level.is_solved(self._state)

    @property
    def max_moves(self) -> int:
        """The maximum number of moves in a response."""
        return self._level.size**2 * len(self._level.goals)

    def fields(self, role: str) -> dict[str, str]:
        self.check_role(role)
        common = {
            "grid": self._level.text(self._state),
            "boxes": self._share(self._state),
            "limit": str(self.max_moves),
        }
        if role == "tool":
            last = self._last
            return common | {"last": f"{last.moves} -> {self._outcome(last)}" if last else "none"}
        proposal = self._last if self._is_fresh else None
        return common | {
            "proposal": proposal.moves if proposal else "none",
            "outcome": self._outcome(proposal) if proposal else "none",
            "foreseen": self._level.text(proposal.state if proposal else self._state),
        }

    def act(self, role: str, response: str) -> Reward:
        self.check_turn(role)
        moves = self._moves(response)
        self._is_fresh = role == "tool" and moves is not None
        if moves is None:
            return MALFORMED
        before, after = self._state, self._level.apply_moves(self._state, moves)
        if role == "tool":
            self._last = Proposal(moves, after)
        else:
            self._state = after
        return Reward(self._value(after) - self._value(before), local=0.0)

    def demonstration(self, role: str) -> str:
        self.check_role(role)
        solution = self._level.solution(self._state)
        # without a solution, the best that an agent can do is a valid answer
        return "U" if solution is None else solution[: self.max_moves]

    def _moves(self, response: str) -> str | None:
        """Return the moves of the last line; None if it is empty, too long or not only moves."""
        moves = "".join(last_line(response).split())
        if not 0 < len(moves) <= self.max_moves or not set(moves) <= set("UDLRudlr"):
            return None
        return moves.upper()

    def _value(self, state: State) -> float:
        """Return the value of a state. Rewards are differences of values: detours earn nothing."""
        value = self._level.on_goals(state) / len(self._level.goals)
        if self._level.is_solved(state):
            return value + SOLVED_REWARD
        return value - DEADLOCK_PENALTY * self._level.is_deadlocked(state)

    def _share(self, state: State) -> str:
        return f"{self._level.on_goals(state)}/{len(self._level.goals)}"

    def _outcome(self, proposal: Proposal) -> str:
        if self._level.is_solved(proposal.state):
            return "solved"
        if self._level.is_deadlocked(proposal.state):
            return "deadlock"
        return f"{self._share(proposal.state)} on goals"


@TASKS.register("sokoban")
class SokobanTask(Task):
    """Random solvable levels, surrounded by walls.

    Args:
        config: the size and difficulty of the levels.
    """

    name = "sokoban"
    roles = ROLES

    def __init__(self, config: SokobanConfig) -> None:
        self._config = config

    def draw(self, generator: random.Random) -> SokobanProblem:
        config = self._config
        return SokobanProblem(
            *draw_level(generator, config.size, config.boxes, config.walls, config.pulls)
        )
