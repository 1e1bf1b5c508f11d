"""What a team of text policies achieves, over independent passes on each of several problems.

In a pass every role gives one response per turn, whichever way the team was trained: to choose
among candidates takes their rewards, which are not known where a problem is to be solved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

import torch

from heteromark.llm.measures import solving
from heteromark.llm.rollout import Episode, Rollout, Team, roll_out
from heteromark.llm.sampling import Generation
from heteromark.llm.tasks.base import Problem
from heteromark.seeds import stream_seed


@dataclass(frozen=True)
class EvaluationSettings:
    """How a team is evaluated.

    Attributes:
        generation: how responses are sampled.
        num_passes: how often each problem is worked on, from the start each time.
        chunk_size: problems that are worked on at once, `chunk_size * num_passes` responses. It
            bounds the memory. It also decides which responses share a generator: with another one
            other responses are sampled, of the same distribution. Greedy ones stay the same, but
            for ties within rounding.
        seed: of the responses.
        num_transcripts: of how many problems, the first ones, the first pass is written down.
        device: that the policies are on; generators are made there.

    Raises:
        ValueError: one of them is too low.
    """

    generation: Generation
    num_passes: int = 1
    chunk_size: int = 32
    seed: int = 0
    num_transcripts: int = 0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        for name, least in (("num_passes", 1), ("chunk_size", 1), ("num_transcripts", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")


@dataclass
class _Said:
    """How long one role's responses were, in tokens, and which were cut off."""

    lengths: list[int] = field(default_factory=list)
    cut_off: list[bool] = field(default_factory=list)


def evaluate(
    team: Team, problems: Sequence[Problem], settings: EvaluationSettings
) -> dict[str, Any]:
    """Let a team work on problems, and say how that went.

    The problems are copied, not changed, and no global random stream is drawn from. A chunk of
    problems has a generator of its own, so that the same call gives the same report, whatever ran
    before it. Policies are to be in evaluation mode.

    Returns:
        A report that JSON can hold; None stands for what was not measured.

        - problems, passes, chunk_size, seed, generation: what was evaluated, and how;
        - solve_rate, solve_rate_standard_error, pass_at_k: see `solving`;
        - solved_passes: by problem;
        - passes_of_problems: `[reward, turns, solved]` of each pass, those of a problem next to
          each other;
        - reward, turns: means over all passes, of the sum of rewards and the number of rounds;
        - roles: by name, responses (how many), response_length (mean, in tokens, the end of
          sequence among them) and cut_off (share ended by `max_response_length`);
        - judgement: mean over all passes of what the task says of how they ended, see
          `Problem.judgement`;
        - transcripts: key, solved, reward and steps of problems; of a step its turn, role, prompt
          and response, the reward, and its parts team and local.

    Raises:
        ValueError: there are no problems, or a prompt is longer than the team allows.
    """
    if not problems:
        raise ValueError("there are no problems to evaluate on: give one at least")
    episodes: list[Episode] = []
    said = {role: _Said() for role in team.turn_order}
    transcripts: list[dict[str, Any]] = []
    for start, rollout in _chunks(team, problems, settings):
        episodes += rollout.episodes
        _count(rollout, said)
        for number in range(start, min(start + settings.chunk_size, settings.num_transcripts)):
            if number < len(problems):
                line = (number - start) * settings.num_passes
                transcripts.append(_transcript(problems[number].key, rollout, line, team))
    passes = settings.num_passes
    solved = [
        sum(episode.is_solved for episode in episodes[first : first + passes])
        for first in range(0, len(episodes), passes)
    ]
    return {
        "problems": len(problems),
        "passes": passes,
        "chunk_size": settings.chunk_size,
        "seed": settings.seed,
        "generation": asdict(settings.generation),
        **solving(solved, passes),
        "solved_passes": solved,
        "passes_of_problems": [[each.reward, each.turns, each.is_solved] for each in episodes],
        "reward": fmean(episode.reward for episode in episodes),
        "turns": fmean(episode.turns for episode in episodes),
        "roles": {role: _summary(each) for role, each in said.items()},
        "judgement": {
            name: fmean(episode.judgement[name] for episode in episodes)
            for name in episodes[0].judgement
        },
        "transcripts": transcripts,
    }


def single_agent(team: Team, role: str) -> Team:
    """One role of a team on its own, with as many rounds: what a team is to be compared with.

    Args:
        role: one that can solve the problem alone; the last one of a task can.

    Raises:
        ValueError: the team has no such role.
    """
    if role not in team.policies:
        raise ValueError(f"no role {role!r} in this team; its roles are {', '.join(team.policies)}")
    return replace(team, turn_order=(role,))


def _chunks(
    team: Team, problems: Sequence[Problem], settings: EvaluationSettings
) -> Iterator[tuple[int, Rollout]]:
    """Number of the first problem, and rollout, of each chunk; a line of work is one pass."""
    for start in range(0, len(problems), settings.chunk_size):
        seed = stream_seed(settings.seed, "evaluation of text", start)
        lines = [
            problem
            for problem in problems[start : start + settings.chunk_size]
            for _ in range(settings.num_passes)
        ]
        generator = torch.Generator(settings.device).manual_seed(seed)
        rollout = roll_out(
            team,
            lines,
            samples=1,
            sampling="chain",
            generation=settings.generation,
            generator=generator,
        )
        yield start, rollout


def _count(rollout: Rollout, said: Mapping[str, _Said]) -> None:
    for step in rollout.steps:
        said[step.role].lengths += step.batch["response_mask"].sum(-1).tolist()
        said[step.role].cut_off += step.batch["is_cut_off"].tolist()


def _summary(said: _Said) -> dict[str, float | None]:
    return {
        "responses": len(said.lengths),
        "response_length": fmean(said.lengths) if said.lengths else None,
        "cut_off": fmean(said.cut_off) if said.cut_off else None,
    }


def _transcript(key: str, rollout: Rollout, line: int, team: Team) -> dict[str, Any]:
    """What was said in one line of work, and how it ended."""
    steps = []
    for step in rollout.steps:
        if line not in step.problems:
            continue
        row = step.problems.index(line)
        steps.append(
            {
                "turn": step.turn,
                "role": step.role,
                "prompt": step.prompts[row],
                "response": step.texts[row],
                # the batch has it as well, in single precision
                "reward": team.team_weight * step.team[row] + step.local[row],
                "team": step.team[row],
                "local": step.local[row],
            }
        )
    episode = rollout.episodes[line]
    return {"key": key, "solved": episode.is_solved, "reward": episode.reward, "steps": steps}
