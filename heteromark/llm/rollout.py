"""Roll out a team of text agents on problems and score every response.

In each round, the roles of `turn_order` act in order. Each sees the effects of earlier actions.
Every candidate response is scored on its own copy of the problem.

- tree: a role gives several candidate responses to the same prompt; the team continues from the
  best one.
- chain: the team works on each problem several times, independently.

Source: AT-GRPO ("Stronger-MAS", arXiv 2510.11062), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from tensordict import TensorDict

from heteromark.llm.policies.base import Replies
from heteromark.llm.sampling import PRESETS, Generation, Request
from heteromark.llm.tasks.base import Problem

Sampling = Literal["tree", "chain"]


class Responder(Protocol):
    """Responds to prompts, such as `TextPolicy`."""

    def respond(self, prompts: Sequence[str], request: Request, system: str = "") -> Replies: ...


@dataclass(frozen=True)
class Team:
    """The roles of a team, their policies and prompts, and the weight of the team reward.

    Attributes:
        turn_order: roles in the order in which they act in a round; a role may occur repeatedly.
        policies: by role; roles may share a policy.
        templates: prompt template of each role.
        max_turns: maximum number of rounds.
        team_weight: alpha; the reward of a response is `alpha * team + local`.
        max_prompt_length, max_response_length: in tokens.
        systems: system prompt by role; a role may have none.
    """

    turn_order: Sequence[str]
    policies: Mapping[str, Responder]
    templates: Mapping[str, str]
    max_turns: int
    team_weight: float
    max_prompt_length: int
    max_response_length: int
    systems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One role's responses to all unfinished problems in one turn.

    Attributes:
        turn: the round, from 0.
        role: the role that acted.
        batch: `[responses]`, from `TextPolicy.respond`, plus reward and group_id; responses with
            the same group_id have the same prompt.
        prompts: `[responses]`; as they were sent.
        texts: `[responses]`; what the problem read.
        spoken: `[responses]`; the whole responses as text.
        problems: `[responses]`; number of the episode that each response belongs to.
        team, local: `[responses]`; the parts of the reward.
        solved: `[responses]`; whether the response solved the problem.
    """

    turn: int
    role: str
    batch: TensorDict
    prompts: list[str]
    texts: list[str]
    spoken: list[str]
    problems: list[int]
    team: list[float]
    local: list[float]
    solved: list[bool]


@dataclass(frozen=True)
class Episode:
    """The outcome of the work on one problem.

    Attributes:
        problem: number of the problem.
        is_solved: whether it was solved.
        turns: number of rounds.
        reward: sum of the rewards of the responses that the team continued from.
        judgement: the task's judgement of the final state, see `Problem.judgement`.
    """

    problem: int
    is_solved: bool
    turns: int
    reward: float
    judgement: Mapping[str, float]


@dataclass(frozen=True)
class Rollout:
    """All responses of a rollout, and the outcomes."""

    steps: list[Step]
    episodes: list[Episode]


class _Thread:
    """One independent attempt at a problem."""

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
    """Let a team work on problems until each is done or `max_turns` rounds are over.

    The problems are copied, not changed.

    Args:
        team: the team that responds.
        problems: the problems to work on.
        samples: tree: candidate responses per turn; chain: independent attempts per problem.
        sampling: see the module's description.
        generation: how responses are sampled; training uses the default.
        generator: random generator of the responses, on the policies' device.
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
    """Join rollouts on different problems; renumber the problems and groups consecutively."""
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
    """Let one role respond to every thread; each thread continues from its best response."""
    prompts = [thread.problem.prompt(role, team.templates[role]) for thread in threads]
    replies = team.policies[role].respond(prompts, request, team.systems.get(role, ""))
    batch, texts = replies.batch, replies.texts
    candidates = request.samples
    rewards, teams, locals_, solved = [], [], [], []
    for row, thread in enumerate(threads):
        scored = []
        for text in texts[row * candidates : (row + 1) * candidates]:
            problem = thread.problem.clone()
            earned = problem.act(role, text)
            teams.append(earned.team)
            locals_.append(earned.local)
            solved.append(problem.is_solved)
            scored.append((team.team_weight * earned.team + earned.local, problem))
        rewards += [reward for reward, _ in scored]
        best, thread.problem = max(scored, key=lambda candidate: candidate[0])
        thread.reward += best
        thread.turns = turn + 1
    numbers = [thread.number for thread in threads for _ in range(candidates)]
    repeated = [prompt for prompt in replies.prompts for _ in range(candidates)]
    # Attempts at the same problem share a group as long as their prompts are equal.
    known: dict[tuple[int, str], int] = {}
    for key in zip(numbers, repeated, strict=True):
        known.setdefault(key, first_group + len(known))
    device = batch["action"].device
    batch["reward"] = torch.tensor(rewards, dtype=torch.float32, device=device)
    batch["group_id"] = torch.tensor(
        [known[key] for key in zip(numbers, repeated, strict=True)], device=device
    )
    return Step(turn, role, batch, repeated, texts, replies.spoken, numbers, teams, locals_, solved)
