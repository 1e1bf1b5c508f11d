"""Select the config of the sweep that is trained long.

`select` is a pure function of tables and params. It returns a `Selection`, which is written to
`selection.json`. It lists every candidate with its rank and the reason why it won, lost or was left
out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from heteromark.config.fields import Frozen
from heteromark.config.models.params import SelectionParams, TieBreak
from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import LOG_FILE, Status
from heteromark.workflow.aggregate import Tables
from heteromark.workflow.errors import WorkflowError
from heteromark.workflow.plan import Candidate
from heteromark.workflow.stability import describe_reasons
from heteromark.workflow.statistics import (
    CONFIDENCE,
    RANGE_SEEDS,
    Interval,
    bootstrap_interval,
    probability_of_improvement,
    score,
)
from heteromark.workflow.words import counted

SELECTION_FILE = "selection.json"
BRACKET_FILE = "bracket.svg"  # only with sweep.strategy "halving"

# For each tie-break criterion: the preferred direction, and its sign in an ascending sort.
_PREFERENCE: dict[TieBreak, tuple[str, int]] = {
    "slope": ("larger", -1),
    "coefficient_of_variation": ("smaller", +1),
    "frames_per_second": ("larger", -1),
}


class NoWinner(WorkflowError):
    """No candidate is eligible. The message lists each with the reason, and what to do."""


class Winner(Frozen):
    """The config that is trained long."""

    name: str
    config_digest: str
    config_path: str
    score: float
    why: str


class RankedCandidate(Frozen):
    """The result of one candidate. `score` is in units of the metric; None: nothing to score."""

    names: tuple[str, ...]
    config_digest: str
    config_path: str
    rung: int  # the last rung that it trained in; 1 without halving
    frames: int  # per run
    rank: int  # 1 is best; candidates that were left out follow, diverged ones last
    eligible: bool
    score: float | None
    interval: Interval | None  # bootstrap 95 % interval of the score
    # Probability that a run of the winner beats a run of this config by the metric: the share of
    # pairs of runs, counting ties half. None for the winner, for candidates that were left out, and
    # for shorter runs.
    improvement: float | None
    seeds: int
    completed: int
    values: dict[int, float]  # seed -> metric, for completed runs that measured it
    why: str

    @property
    def label(self) -> str:
        return " = ".join(self.names)


class Selection(Frozen):
    """The content of `selection.json`."""

    winner: Winner
    settings: SelectionParams
    candidates: tuple[RankedCandidate, ...]  # by rank

    @classmethod
    def read(cls, path: Path) -> Selection:
        """Read a `selection.json`.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: it is not a selection (pydantic's ValidationError is a ValueError).
        """
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Write `selection.json` atomically."""
        write_text_atomic(Path(path), self.model_dump_json(indent=2) + "\n")


@dataclass(frozen=True)
class _Contender:
    """A candidate with everything that its rank depends on."""

    candidate: Candidate
    runs: pd.DataFrame  # its rows of the runs table
    values: dict[int, float]
    score: float | None
    interval: Interval | None
    tie_breakers: dict[str, float]  # NaN: not measured
    obstacle: str | None  # why it is left out

    @property
    def eligible_score(self) -> float:
        """The score of an eligible contender, which has at least `selection.min_seeds` values."""
        assert self.score is not None, "only eligible contenders are sure to have a score"
        return self.score

    @property
    def completed(self) -> int:
        return _count(self.runs, Status.COMPLETED)

    @property
    def has_diverged(self) -> bool:
        return _count(self.runs, Status.DIVERGED) > 0

    def sort_key(self, tie_break: Sequence[TieBreak]) -> tuple[float | str, ...]:
        """Smaller is better. Values that were not measured come last; the name breaks ties."""
        key: list[float | str] = [math.inf if self.score is None else -self.score]
        for criterion in tie_break:
            if criterion == "name":
                break
            _, sign = _PREFERENCE[criterion]
            value = self.tie_breakers[criterion]
            key.append(math.inf if math.isnan(value) else sign * value)
        return (*key, self.candidate.name)


def select(tables: Tables, candidates: Sequence[Candidate], params: SelectionParams) -> Selection:
    """Rank the candidates by `params.statistic` of `params.metric` over their completed seeds.

    Candidates that reached a higher rung come first. A diverged run counts as not completed. Equal
    scores are decided by the criteria of `params.tie_break` in order, then by name. The result does
    not depend on the order of `candidates`.

    Raises:
        NoWinner: every candidate is left out.
    """
    contenders = [_contender(tables, candidate, params) for candidate in candidates]
    contenders.sort(
        key=lambda contender: (
            contender.obstacle is not None,
            contender.obstacle is not None and contender.has_diverged,
            -contender.candidate.rung,
            contender.sort_key(params.tie_break),
        )
    )
    eligible = [contender for contender in contenders if contender.obstacle is None]
    if not eligible:
        raise NoWinner(_no_winner_message(contenders, params))
    ranked = [
        RankedCandidate(
            names=contender.candidate.names,
            config_digest=contender.candidate.config_digest,
            config_path=contender.candidate.config_path,
            rung=contender.candidate.rung,
            frames=contender.candidate.frames,
            rank=rank + 1,
            eligible=contender.obstacle is None,
            score=contender.score,
            interval=contender.interval,
            improvement=_improvement(eligible[0], contender),
            seeds=len(contender.runs),
            completed=contender.completed,
            values=contender.values,
            why=contender.obstacle or _explanation(rank, eligible, params),
        )
        for rank, contender in enumerate(contenders)
    ]
    best = ranked[0]
    winner = Winner(
        name=best.names[0],
        config_digest=best.config_digest,
        config_path=best.config_path,
        score=eligible[0].eligible_score,
        why=best.why,
    )
    return Selection(winner=winner, settings=params, candidates=tuple(ranked))


# --- one candidate ----------------------------------------------------------------------------


def _contender(tables: Tables, candidate: Candidate, params: SelectionParams) -> _Contender:
    runs = tables.runs[tables.runs["config"] == candidate.label]
    summary = tables.summary[tables.summary["config"] == candidate.label].iloc[0]
    values = values_by_seed(runs, params)
    numbers = list(values.values())
    return _Contender(
        candidate=candidate,
        runs=runs,
        values=values,
        score=score(numbers, params.statistic),
        interval=bootstrap_interval(numbers, params.statistic),
        tie_breakers={criterion: float(summary[criterion]) for criterion in _PREFERENCE},
        obstacle=_obstacle(runs, values, params),
    )


def values_by_seed(runs: pd.DataFrame, params: SelectionParams) -> dict[int, float]:
    """Return seed -> `params.metric` for the completed runs that measured it.

    Args:
        runs: rows of the runs table.
    """
    completed = runs[runs["status"] == Status.COMPLETED].dropna(subset=[params.metric])
    return {
        int(seed): float(value)
        for seed, value in zip(completed["seed"], completed[params.metric], strict=True)
    }


def _obstacle(runs: pd.DataFrame, values: dict[int, float], params: SelectionParams) -> str | None:
    if len(values) >= params.min_seeds:
        return None
    reasons = {
        int(run.seed): run.status + ("" if pd.isna(run.reason) else f", {run.reason}")
        for run in runs[runs["status"] != Status.COMPLETED].itertuples()
    }
    is_unmeasured = _count(runs, Status.COMPLETED) > len(values)
    return (
        f"{'diverged: ' if _count(runs, Status.DIVERGED) else ''}"
        f"{len(values)} of {len(runs)} seeds completed"
        f"{f' and measured {params.metric}' if is_unmeasured else ''}, "
        f"selection.min_seeds is {params.min_seeds}"
        f"{f' ({describe_reasons(reasons)})' if reasons else ''}"
    )


def _count(runs: pd.DataFrame, status: Status) -> int:
    return int((runs["status"] == status).sum())


def _improvement(winner: _Contender, other: _Contender) -> float | None:
    is_as_long = other.candidate.rung == winner.candidate.rung
    if other is winner or other.obstacle is not None or not is_as_long:
        return None
    return probability_of_improvement(list(winner.values.values()), list(other.values.values()))


# --- explanations -----------------------------------------------------------------------------


def _explanation(rank: int, eligible: Sequence[_Contender], params: SelectionParams) -> str:
    """Explain the position of the eligible contender at `rank` (from 0)."""
    own = eligible[rank]
    subject = (
        f"{params.statistic} of {params.metric} over {counted(len(own.values), 'seed')} is "
        f"{own.score:.4g}"
    )
    if lost := len(own.runs) - len(own.values):
        subject += f" ({lost} of {len(own.runs)} seeds did not count)"
    if len(eligible) == 1:
        return f"won: {subject}; no other candidate is eligible"
    rival = eligible[1] if rank == 0 else eligible[0]
    here, there = own.candidate, rival.candidate
    if here.rung < there.rung:
        comparison = f"after {here.frames:,} frames, and it did not advance"
    elif here.rung > there.rung:
        comparison = f"and no other config trained beyond {there.frames:,} frames"
    elif own.score == rival.score:
        comparison = _describe_tie(own, rival, params.tie_break)
    else:
        lead = own.eligible_score - rival.eligible_score
        comparison = (
            f"{abs(lead):.4g} {'above' if lead > 0 else 'below'} {rival.candidate.label} "
            f"({rival.score:.4g}); {_describe_overlap(own, rival)}"
        )
    # Give no probability from a single seed, which says nothing about the next run, or between runs
    # of different lengths.
    if min(len(own.values), len(rival.values)) > 1 and here.rung == there.rung:
        other, name = (rival, rival.candidate.label) if rank == 0 else (own, "this config")
        comparison += (
            f"; a run of the winner beats a run of {name} with probability "
            f"{_improvement(eligible[0], other):.2g}, over {len(own.values) * len(rival.values)} "
            "pairs"
        )
    return f"{'won' if rank == 0 else f'ranked {rank + 1}'}: {subject}, {comparison}"


def _describe_tie(own: _Contender, rival: _Contender, tie_break: Sequence[TieBreak]) -> str:
    own_key, rival_key = own.sort_key(tie_break), rival.sort_key(tie_break)
    # The first part is the score, which ties; the last is the name, which never does.
    decisive = next(index for index in range(1, len(own_key)) if own_key[index] != rival_key[index])
    won = own_key < rival_key
    tie = f"equal to {rival.candidate.label}"
    if decisive == len(own_key) - 1:
        return f"{tie}; alphabetical order {'decides' if won else 'decides against it'}"
    criterion = tie_break[decisive - 1]
    preference, _ = _PREFERENCE[criterion]
    better, worse = (own, rival) if won else (rival, own)
    return (
        f"{tie}; {'its' if won else 'the winner has the'} {preference} {criterion} decides "
        f"({better.tie_breakers[criterion]:.4g} against {worse.tie_breakers[criterion]:.4g})"
    )


def _describe_overlap(own: _Contender, rival: _Contender) -> str:
    if own.interval is None or rival.interval is None:
        return "a single seed gives no interval, so chance cannot be ruled out"
    # With so few seeds, "95% interval" alone would promise too much.
    is_range = min(len(own.values), len(rival.values)) <= RANGE_SEEDS
    intervals = (
        f"the {CONFIDENCE:.0%} intervals{' (with few seeds: their range)' if is_range else ''}"
    )
    if own.interval.overlaps(rival.interval):
        return f"{intervals} overlap, so more seeds may change the order"
    return f"{intervals} do not overlap"


def _no_winner_message(contenders: Sequence[_Contender], params: SelectionParams) -> str:
    if not contenders:
        return "no config can be selected: there are no candidates. Set sweep.agents in params.yaml"
    lines = [
        f"no config can be selected from {counted(len(contenders), 'candidate')}; each needs "
        f"{counted(params.min_seeds, 'completed seed')} with {params.metric}:"
    ]
    lines += [f"  {item.candidate.label}: left out, {item.obstacle}" for item in contenders]
    return "\n".join([*lines, "What to do next:", *_advice(contenders, params)])


def _advice(contenders: Sequence[_Contender], params: SelectionParams) -> list[str]:
    """Return one line of advice for each kind of fault."""
    advice = []
    diverged = [contender.candidate for contender in contenders if contender.has_diverged]
    if diverged:
        rates: set[float] = {
            candidate.hyperparameters["learning_rate"]
            for candidate in diverged
            if candidate.hyperparameters.get("learning_rate") is not None
        }
        now = f" (now {', '.join(f'{rate:g}' for rate in sorted(rates))})" if rates else ""
        advice.append(f"  diverged: lower learning_rate{now} or ppo.max_grad_norm")
    failed = [
        contender.candidate.folders[int(run.seed)]
        for contender in contenders
        for run in contender.runs.itertuples()
        if run.status not in (Status.COMPLETED, Status.DIVERGED)
    ]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        advice.append(
            f"  not finished: read {(failed[0] / LOG_FILE).as_posix()}{more} (or logs/, if it does "
            "not exist) and run the workflow again; finished runs are not repeated"
        )
    if any(contender.completed > len(contender.values) for contender in contenders):
        advice.append(
            f"  {params.metric} not measured: raise smoke.total_frames, so that episodes end, or "
            "choose another selection.metric (win_rate needs an environment that reports wins)"
        )
    if all(len(contender.runs) < params.min_seeds for contender in contenders):
        advice.append("  too few seeds: add to smoke.seeds or lower selection.min_seeds")
    return advice
