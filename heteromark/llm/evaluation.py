"""Evaluate a team of text policies over several independent passes on each problem.

In a pass, every role gives one response per turn, regardless of how the team was trained: choosing
among several candidates requires their rewards, which are unknown at test time.
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

STREAM = "evaluation of text"  # name of the seed stream


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Attributes:
        generation: how responses are sampled.
        num_passes: passes over each problem; every pass starts from the beginning.
        chunk_size: problems that are evaluated in parallel, with `chunk_size * num_passes`
            responses. It limits the memory. It also changes the sampled responses, because a chunk
            shares one random generator; their distribution stays the same. Greedy responses do not
            depend on it, except for ties within rounding.
        seed: seed of the responses.
        num_transcripts: number of problems, from the first, whose first pass is recorded.
        device: device of the policies and of the random generators.

    Raises:
        ValueError: num_passes, chunk_size or num_transcripts is too low.
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
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least {least}")


def evaluate(
    team: Team, problems: Sequence[Problem], settings: EvaluationSettings
) -> dict[str, Any]:
    """Evaluate a team on problems.

    The problems are copied, not changed. The global random state is neither used nor changed: each
    chunk of problems has its own generator, so the same call always gives the same report. The
    policies must be in evaluation mode.

    Returns:
        A JSON-serializable report; None marks values that were not measured.

        - problems, passes, chunk_size, seed, generation: the settings;
        - solve_rate, solve_rate_standard_error, pass_at_k: see `solve_statistics`;
        - solved_passes: number of solved passes, per problem;
        - passes_of_problems: `[reward, turns, solved]` of each pass, grouped by problem;
        - reward, turns: total reward and number of rounds of a pass, averaged over all passes;
        - roles: per role, responses (count), response_length (mean in tokens, including the end of
          sequence) and cut_off (share truncated at `max_response_length`);
        - judgement: the values of `Problem.judgement`, averaged over all passes;
        - transcripts: key, solved, reward and steps per problem; each step has turn, role, prompt
          and response as they were sent and spoken, reward, and the reward's parts team and local.

    Raises:
        ValueError: There are no problems, or a prompt is longer than the team allows.
    """
    if not problems:
        raise ValueError("no problems to evaluate: pass at least one")
    episodes: list[Episode] = []
    # by role: the length of each response in tokens, and whether it was cut off
    responses: dict[str, list[tuple[int, bool]]] = {role: [] for role in team.turn_order}
    transcripts: list[dict[str, Any]] = []
    for start in range(0, len(problems), settings.chunk_size):
        chunk = problems[start : start + settings.chunk_size]
        rollout = _run_passes(team, chunk, settings, stream_seed(settings.seed, STREAM, start))
        episodes += rollout.episodes
        for step in rollout.steps:
            lengths = step.batch["response_mask"].sum(-1).tolist()
            responses[step.role] += zip(lengths, step.batch["is_cut_off"].tolist(), strict=True)
        for number, problem in enumerate(chunk[: max(0, settings.num_transcripts - start)]):
            first_pass = number * settings.num_passes
            transcript = _transcript(rollout, first_pass, team.team_weight)
            transcripts.append({"key": problem.key, **transcript})
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
        **solve_statistics(solved, passes),
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
            for role, each in responses.items()
        },
        "judgement": {
            name: fmean(episode.judgement[name] for episode in episodes)
            for name in episodes[0].judgement
        },
        "transcripts": transcripts,
    }


def single_agent(team: Team, role: str) -> Team:
    """Return a team of one role with the same number of rounds, as a baseline for the team.

    Args:
        role: a role that can solve the problem alone, such as the task's last role.

    Raises:
        ValueError: The team has no such role.
    """
    if role not in team.policies:
        raise ValueError(f"no role {role!r} in this team; its roles are {', '.join(team.policies)}")
    return replace(team, turn_order=(role,))


def _run_passes(
    team: Team, problems: Sequence[Problem], settings: EvaluationSettings, seed: int
) -> Rollout:
    """Roll out all passes over a chunk of problems; each episode is one pass."""
    return roll_out(
        team,
        [problem for problem in problems for _ in range(settings.num_passes)],
        samples=1,
        sampling="chain",
        generation=settings.generation,
        generator=torch.Generator(settings.device).manual_seed(seed),
    )


def _transcript(rollout: Rollout, number: int, team_weight: float) -> dict[str, Any]:
    """Return the transcript of the episode with this number."""
    episode = rollout.episodes[number]
    steps = []
    for step in rollout.steps:
        if number in step.problems:
            row = step.problems.index(number)
            steps.append(
                {
                    "turn": step.turn,
                    "role": step.role,
                    "prompt": step.prompts[row],
                    "response": step.spoken[row],
                    # not taken from the batch, which has single precision
                    "reward": team_weight * step.team[row] + step.local[row],
                    "team": step.team[row],
                    "local": step.local[row],
                }
            )
    return {"solved": episode.is_solved, "reward": episode.reward, "steps": steps}


def pass_at_k(passes: int, solved: int, k: int) -> float:
    """Return the unbiased estimate of the probability that at least one of k passes solves.

    The estimate is the share of all subsets of k passes that contain a solving pass.

    Args:
        passes: number of passes over the problem.
        solved: number of passes that solved it.
        k: at most `passes`.

    Raises:
        ValueError: The numbers contradict each other.

    Source: Chen et al., Evaluating Large Language Models Trained on Code, 2021, section 2.1.
    """
    if not (0 <= solved <= passes and 1 <= k <= passes):
        raise ValueError(
            f"pass@{k} with {solved} of {passes} passes solved: needs 0 <= solved <= passes "
            "and 1 <= k <= passes"
        )
    # integers until the division: no overflow and no loss of precision
    return 1 - math.comb(passes - solved, k) / math.comb(passes, k)


def solve_statistics(
    solved: Sequence[int], passes: int
) -> dict[str, float | dict[str, float] | None]:
    """Return the solve rate and pass@k over problems.

    Args:
        solved: number of passes that solved each problem; at least one problem.
        passes: number of passes over each problem.

    Returns:
        - solve_rate: over all passes of all problems;
        - solve_rate_standard_error: computed over problems, because passes over the same problem
          are not independent; None for a single problem;
        - pass_at_k: keyed by k as text, for k = 1, 2, 4, … up to `passes`.
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
