"""What a team of text policies achieves, over independent passes on each of several problems.

In a pass every role gives one response per turn, whichever way the team was trained: to choose
among candidates takes their rewards, which are not known where a problem is to be solved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import torch

from heteromark.llm.rollout import Episode, Rollout, Team, roll_out
from heteromark.llm.sampling import Generation
from heteromark.llm.tasks.base import Problem
from heteromark.seeds import stream_seed

STREAM = "evaluation of text"  # of seeds


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
    # by role: how many tokens each response had, and whether it was cut off
    said: dict[str, list[tuple[int, bool]]] = {role: [] for role in team.turn_order}
    transcripts: list[dict[str, Any]] = []
    for start in range(0, len(problems), settings.chunk_size):
        chunk = problems[start : start + settings.chunk_size]
        rollout = _work_on(team, chunk, settings, stream_seed(settings.seed, STREAM, start))
        episodes += rollout.episodes
        for step in rollout.steps:
            lengths = step.batch["response_mask"].sum(-1).tolist()
            said[step.role] += zip(lengths, step.batch["is_cut_off"].tolist(), strict=True)
        for number, problem in enumerate(chunk[: max(0, settings.num_transcripts - start)]):
            line = number * settings.num_passes
            transcripts.append({"key": problem.key, **_transcript(rollout, line, team.team_weight)})
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
        "roles": {
            role: {
                "responses": len(each),
                "response_length": fmean(length for length, _ in each) if each else None,
                "cut_off": fmean(is_cut_off for _, is_cut_off in each) if each else None,
            }
            for role, each in said.items()
        },
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


def _work_on(
    team: Team, problems: Sequence[Problem], settings: EvaluationSettings, seed: int
) -> Rollout:
    """The rollout of a chunk of problems; a line of work is one pass."""
    return roll_out(
        team,
        [problem for problem in problems for _ in range(settings.num_passes)],
        samples=1,
        sampling="chain",
        generation=settings.generation,
        generator=torch.Generator(settings.device).manual_seed(seed),
    )


def _transcript(rollout: Rollout, line: int, team_weight: float) -> dict[str, Any]:
    """What was said in one line of work, and how it ended."""
    episode = rollout.episodes[line]
    steps = []
    for step in rollout.steps:
        if line in step.problems:
            row = step.problems.index(line)
            steps.append(
                {
                    "turn": step.turn,
                    "role": step.role,
                    "prompt": step.prompts[row],
                    "response": step.texts[row],
                    # the batch has it as well, in single precision
                    "reward": team_weight * step.team[row] + step.local[row],
                    "team": step.team[row],
                    "local": step.local[row],
                }
            )
    return {"solved": episode.is_solved, "reward": episode.reward, "steps": steps}


def pass_at_k(passes: int, solved: int, k: int) -> float:
    """Probability that one of k passes solves a problem, estimated without bias from more of them.

    It is the share of all choices of k among the passes that have one in them that solves.

    Args:
        passes: how often the problem was worked on.
        solved: how many of these passes solved it.
        k: at most `passes`.

    Raises:
        ValueError: the numbers contradict each other.

    Source: Chen et al., Evaluating Large Language Models Trained on Code, 2021, section 2.1.
    """
    if not (0 <= solved <= passes and 1 <= k <= passes):
        raise ValueError(
            f"pass@{k} with {solved} of {passes} passes solved: needs 0 <= solved <= passes "
            "and 1 <= k <= passes"
        )
    # whole numbers until the division: no term can overflow or lose a digit
    return 1 - math.comb(passes - solved, k) / math.comb(passes, k)


def solving(solved: Sequence[int], passes: int) -> dict[str, float | dict[str, float] | None]:
    """The solve rate and pass@k over problems.

    Args:
        solved: by problem, how many of its passes solved it; of one problem at least.
        passes: over each problem.

    Returns:
        solve_rate: over all passes of all problems; solve_rate_standard_error: of its estimate for
        all problems of the kind, so from how much problems differ, since passes over one problem
        are not independent of each other; None with a single problem; pass_at_k: by k as text, for
        1, 2, 4, … up to `passes`.
    """
    rates = [count / passes for count in solved]
    ks = [2**power for power in range(passes.bit_length())]
    return {
        "solve_rate": fmean(rates),
        "solve_rate_standard_error": (
            stdev(rates) / math.sqrt(len(rates)) if len(rates) > 1 else None
        ),
        "pass_at_k": {str(k): fmean(pass_at_k(passes, count, k) for count in solved) for k in ks},
    }
