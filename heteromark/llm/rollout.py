"""A team of agents that read and write text works on problems, and every response is scored.

Rounds: in each, every role of `turn_order` acts once, in order, and sees what those before it did.
Each of a role's candidate responses is scored on a copy of the problem of its own.

- tree: to each problem a role gives several candidates, all to the same prompt; the team goes on
  from the best of them.
- chain: each problem is worked on several times over, independently.

Source: AT-GRPO ("Stronger-MAS", arXiv 2510.11062), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from tensordict import TensorDict

from heteromark.llm.sampling import PRESETS, Generation, Request
from heteromark.llm.tasks.base import Problem

Sampling = Literal["tree", "chain"]


class Responder(Protocol):
    """What answers prompts; `TextPolicy` does."""

    def respond(self, prompts: Sequence[str], request: Request) -> tuple[TensorDict, list[str]]: ...


@dataclass(frozen=True)
class Team:
    """Who acts in which order, by which policy, and how responses are rewarded.

    Attributes:
        turn_order: roles of a round; a role may act more than once in it.
        policies: by role; roles may share one.
        templates: each role's prompt.
        max_turns: rounds after which the team stops.
        team_weight: alpha; the reward of a response is `alpha * team + local`.
        max_prompt_length, max_response_length: in tokens.
    """

    turn_order: Sequence[str]
    policies: Mapping[str, Responder]
    templates: Mapping[str, str]
    max_turns: int
    team_weight: float
    max_prompt_length: int
    max_response_length: int


@dataclass(frozen=True)
class Step:
    """One role's responses to all open problems at one point of a round.

    Attributes:
        turn: the round, from 0.
        role: who acted.
        batch: `[responses]`, as `TextPolicy.respond` makes it, with reward and group_id; the same
            group_id means the same prompt.
        prompts: `[responses]`.
        texts: the responses.
        problems: `[responses]`: which problem each belongs to.
        team, local: `[responses]`: the parts of the reward.
        solved: `[responses]`: whether each solved the problem.
    """

    turn: int
    role: str
    batch: TensorDict
    prompts: list[str]
    texts: list[str]
    problems: list[int]
    team: list[float]
    local: list[float]
    solved: list[bool]


@dataclass(frozen=True)
class Episode:
    """How the work on one problem went.

    Attributes:
        problem: its number.
        is_solved, turns: whether it was solved, and in how many rounds.
        reward: the sum of the rewards of the responses that the team went on from.
        judgement: what the task says of it at the end, see `Problem.judgement`.
    """

    problem: int
    is_solved: bool
    turns: int
    reward: float
    judgement: Mapping[str, float]


@dataclass(frozen=True)
class Rollout:
    """All that was said, and what came of it."""

    steps: list[Step]
    episodes: list[Episode]


class _Thread:
    """One line of work on a problem."""

    def __init__(self, number: int, problem: Problem) -> None:
        self.number, self.problem = number, problem
        self.turns, self.reward = 0, 0.0


def roll_out(
    team: Team,
    problems: Sequence[Problem],
    *,
    samples: int,
    sampling: Sampling,
    generation: Generation = PRESETS["sampled"],
    generator: torch.Generator | None = None,
) -> Rollout:
    """Let a team work on problems until each is solved or `max_turns` rounds are over.

    The problems are copied, not changed.

    Args:
        samples: candidates of a role per problem, or with chain: lines of work per problem.
        generation: how responses are sampled; training takes the default.
        generator: of the responses, on the policies' device.
    """
    copies = samples if sampling == "chain" else 1
    request = Request(
        samples=samples if sampling == "tree" else 1,
        max_prompt_length=team.max_prompt_length,
        max_response_length=team.max_response_length,
        generation=generation,
        generator=generator,
    )
    threads = [
        _Thread(number, problem.clone())
        for number, problem in enumerate(problems)
        for _ in range(copies)
    ]
    steps: list[Step] = []
    groups = 0
    for turn in range(team.max_turns):
        for role in team.turn_order:
            acting = [thread for thread in threads if not thread.problem.is_done]
            if not acting:
                break
            step = _act(team, acting, turn, role, request, groups)
            groups = int(step.batch["group_id"].max()) + 1
            steps.append(step)
    episodes = [
        Episode(
            thread.number,
            thread.problem.is_solved,
            thread.turns,
            thread.reward,
            thread.problem.judgement(),
        )
        for thread in threads
    ]
    return Rollout(steps, episodes)


def joined(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts on different problems as one, its problems and groups numbered through."""
    steps: list[Step] = []
    episodes: list[Episode] = []
    problems = groups = 0
    for rollout in rollouts:
        for step in rollout.steps:
            batch = step.batch.copy()
            batch["group_id"] = batch["group_id"] + groups
            steps.append(
                replace(step, batch=batch, problems=[number + problems for number in step.problems])
            )
        episodes += [replace(each, problem=each.problem + problems) for each in rollout.episodes]
        groups = 1 + max((int(step.batch["group_id"].max()) for step in steps), default=-1)
        problems = 1 + max(episode.problem for episode in episodes)
    return Rollout(steps, episodes)


def _act(
    team: Team,
    threads: Sequence[_Thread],
    turn: int,
    role: str,
    request: Request,
    first_group: int,
) -> Step:
    """One role responds to every thread, and each thread goes on from its best response."""
    prompts = [thread.problem.prompt(role, team.templates[role]) for thread in threads]
    batch, texts = team.policies[role].respond(prompts, request)
    candidates = request.samples
    rewards, teams, locals_, solved = [], [], [], []
    for row, thread in enumerate(threads):
        tried = []
        for text in texts[row * candidates : (row + 1) * candidates]:
            problem = thread.problem.clone()
            told = problem.act(role, text)
            teams.append(told.team)
            locals_.append(told.local)
            solved.append(problem.is_solved)
            tried.append((team.team_weight * told.team + told.local, problem))
        rewards += [reward for reward, _ in tried]
        best, thread.problem = max(tried, key=lambda candidate: candidate[0])
        thread.reward += best
        thread.turns = turn + 1
    numbers = [thread.number for thread in threads for _ in range(candidates)]
    repeated = [prompt for prompt in prompts for _ in range(candidates)]
    # Lines of work on one problem share a group for as long as they read the same.
    known: dict[tuple[int, str], int] = {}
    for key in zip(numbers, repeated, strict=True):
        known.setdefault(key, first_group + len(known))
    device = batch["action"].device
    batch["reward"] = torch.tensor(rewards, dtype=torch.float32, device=device)
    batch["group_id"] = torch.tensor(
        [known[key] for key in zip(numbers, repeated, strict=True)], device=device
    )
    return Step(turn, role, batch, repeated, texts, numbers, teams, locals_, solved)
