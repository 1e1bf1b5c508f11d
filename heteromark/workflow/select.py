"""The selection: which config of the sweep is trained long, and whether the smoke was right.

`select` is pure: tables and params in, a `Selection` out, whose JSON is `selection.json`. Every
candidate is in it, with its rank and with why it won, lost or was left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from heteromark.config.fields import Frozen
from heteromark.config.params import SelectionParams, TieBreak
from heteromark.runs.files import write_text_atomic
from heteromark.runs.record import LOG_FILE, Status
from heteromark.workflow.aggregate import Tables
from heteromark.workflow.errors import WorkflowError
from heteromark.workflow.plan import Candidate
from heteromark.workflow.statistics import (
    CONFIDENCE,
    Interval,
    bootstrap_interval,
    reasons_in_words,
    score,
)

SELECTION_FILE = "selection.json"
RANK_CHECK_FILE = "rank_check.json"

# How a tie-break criterion reads, and its sign in a sort where smaller comes first.
_PREFERENCE: dict[TieBreak, tuple[str, int]] = {
    "slope": ("larger", -1),
    "coefficient_of_variation": ("smaller", +1),
    "frames_per_second": ("larger", -1),
}


class NoWinner(WorkflowError):
    """No candidate is eligible. The message lists each, why it was left out, and what to do."""


class Winner(Frozen):
    """The config that is trained long."""

    name: str
    config_digest: str
    config_path: str
    score: float
    why: str


class RankedCandidate(Frozen):
    """One candidate's standing. `score` is in units of the metric; None: nothing to score."""

    names: tuple[str, ...]
    config_digest: str
    config_path: str
    rank: int  # 1 is best; those left out follow, diverged ones last
    eligible: bool
    score: float | None
    interval: Interval | None  # bootstrap 95 % interval of the score
    seeds: int
    completed: int
    values: dict[int, float]  # seed -> metric, of the completed runs that measured it
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
            FileNotFoundError: there is none.
            ValueError: it is not a selection (pydantic's ValidationError is a ValueError).
        """
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Write `selection.json` atomically."""
        write_text_atomic(Path(path), self.model_dump_json(indent=2) + "\n")


@dataclass(frozen=True)
class _Contender:
    """A candidate with all that its rank depends on."""

    candidate: Candidate
    runs: pd.DataFrame  # its rows of the runs table
    values: dict[int, float]
    score: float | None
    interval: Interval | None
    tie_breakers: dict[str, float]  # NaN: not measured
    obstacle: str | None  # why it is left out

    @property
    def completed(self) -> int:
        return int((self.runs["status"] == Status.COMPLETED).sum())

    @property
    def has_diverged(self) -> bool:
        return bool((self.runs["status"] == Status.DIVERGED).any())

    def sort_key(self, tie_break: Sequence[TieBreak]) -> tuple[float | str, ...]:
        """Smaller is better; what was not measured comes last; the name settles what is left."""
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

    A diverged run counts as not completed. Equal scores are decided by `params.tie_break` in its
    order, at last by name; the result does not depend on the order of `candidates`.

    Raises:
        NoWinner: every candidate is left out.
    """
    contenders = [_contender(tables, candidate, params) for candidate in candidates]
    contenders.sort(
        key=lambda contender: (
            contender.obstacle is not None,
            contender.obstacle is not None and contender.has_diverged,
            contender.sort_key(params.tie_break),
        )
    )
    eligible = [contender for contender in contenders if contender.obstacle is None]
    if not eligible:
        raise NoWinner(_no_winner_message(contenders, params))
    explanations = [
        contender.obstacle or _explanation(rank, eligible, params)
        for rank, contender in enumerate(contenders)
    ]
    best = eligible[0]
    return Selection(
        winner=Winner(
            name=best.candidate.name,
            config_digest=best.candidate.config_digest,
            config_path=best.candidate.config_path,
            score=best.score,
            why=explanations[0],
        ),
        settings=params,
        candidates=tuple(
            RankedCandidate(
                names=contender.candidate.names,
                config_digest=contender.candidate.config_digest,
                config_path=contender.candidate.config_path,
                rank=rank,
                eligible=contender.obstacle is None,
                score=contender.score,
                interval=contender.interval,
                seeds=len(contender.runs),
                completed=contender.completed,
                values=contender.values,
                why=why,
            )
            for rank, (contender, why) in enumerate(
                zip(contenders, explanations, strict=True), start=1
            )
        ),
    )


# --- one candidate ----------------------------------------------------------------------------


def _contender(tables: Tables, candidate: Candidate, params: SelectionParams) -> _Contender:
    runs = tables.runs[tables.runs["config"] == candidate.label]
    summary = tables.summary[tables.summary["config"] == candidate.label].iloc[0]
    values = _values(runs, params)
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


def _values(runs: pd.DataFrame, params: SelectionParams) -> dict[int, float]:
    """Seed -> metric of the completed runs that measured it."""
    completed = runs[runs["status"] == Status.COMPLETED].dropna(subset=[params.metric])
    return {
        int(seed): float(value)
        for seed, value in zip(completed["seed"], completed[params.metric], strict=True)
    }


def _obstacle(runs: pd.DataFrame, values: dict[int, float], params: SelectionParams) -> str | None:
    if len(values) >= params.min_seeds:
        return None
    is_completed = runs["status"] == Status.COMPLETED
    reasons = {
        int(run.seed): run.status + ("" if pd.isna(run.reason) else f", {run.reason}")
        for run in runs[~is_completed].itertuples()
    }
    is_unmeasured = int(is_completed.sum()) > len(values)
    return (
        f"{'diverged: ' if (runs['status'] == Status.DIVERGED).any() else ''}"
        f"{len(values)} of {len(runs)} seeds completed"
        f"{f' and measured {params.metric}' if is_unmeasured else ''}, "
        f"selection.min_seeds is {params.min_seeds}"
        f"{f' ({reasons_in_words(reasons)})' if reasons else ''}"
    )


# --- in words ---------------------------------------------------------------------------------


def _explanation(rank: int, eligible: Sequence[_Contender], params: SelectionParams) -> str:
    """Why the eligible contender at `rank` (from 0) stands there, against its neighbour."""
    own = eligible[rank]
    subject = (
        f"{params.statistic} of {params.metric} over {_count(len(own.values), 'seed')} is "
        f"{own.score:.4g}"
    )
    if lost := len(own.runs) - len(own.values):
        subject += f" ({lost} of {len(own.runs)} did not count)"
    if len(eligible) == 1:
        return f"won: {subject}; no other candidate is eligible"
    rival = eligible[1] if rank == 0 else eligible[0]
    if own.score == rival.score:
        comparison = _tie_words(own, rival, params.tie_break)
    else:
        side = "above" if own.score > rival.score else "below"
        comparison = (
            f"{abs(own.score - rival.score):.4g} {side} {rival.candidate.label} "
            f"({rival.score:.4g}); {_overlap_words(own.interval, rival.interval)}"
        )
    return f"{'won' if rank == 0 else f'ranked {rank + 1}'}: {subject}, {comparison}"


def _tie_words(own: _Contender, rival: _Contender, tie_break: Sequence[TieBreak]) -> str:
    own_key, rival_key = own.sort_key(tie_break), rival.sort_key(tie_break)
    # The first part is the score, which ties; the last is the name, which never does.
    decisive = next(index for index in range(1, len(own_key)) if own_key[index] != rival_key[index])
    won = own_key < rival_key
    tie = f"equal to {rival.candidate.label}"
    if decisive == len(own_key) - 1:
        return f"{tie}; the alphabet {'decides' if won else 'decided against it'}"
    criterion = tie_break[decisive - 1]
    preference, _ = _PREFERENCE[criterion]
    better, worse = (own, rival) if won else (rival, own)
    return (
        f"{tie}; {'its' if won else 'the winner has the'} {preference} {criterion} decides "
        f"({better.tie_breakers[criterion]:.4g} against {worse.tie_breakers[criterion]:.4g})"
    )


def _overlap_words(own: Interval | None, rival: Interval | None) -> str:
    if own is None or rival is None:
        return "one seed has no interval, so chance cannot be ruled out"
    if own.overlaps(rival):
        return f"the {CONFIDENCE:.0%} intervals overlap, so more seeds may change the order"
    return f"the {CONFIDENCE:.0%} intervals do not overlap"


def _no_winner_message(contenders: Sequence[_Contender], params: SelectionParams) -> str:
    if not contenders:
        return "no config can be selected: there are no candidates. Set sweep.agents in params.yaml"
    lines = [
        f"no config can be selected from {_count(len(contenders), 'candidate')}; each needs "
        f"{_count(params.min_seeds, 'completed seed')} with {params.metric}:"
    ]
    lines += [f"  {item.candidate.label}: left out, {item.obstacle}" for item in contenders]
    return "\n".join([*lines, "What to do next:", *_advice(contenders, params)])


def _advice(contenders: Sequence[_Contender], params: SelectionParams) -> list[str]:
    """One line for each kind of fault that was met."""
    advice = []
    rates = sorted(
        {
            rate
            for contender in contenders
            if contender.has_diverged
            and (rate := contender.candidate.hyperparameters.get("learning_rate")) is not None
        }
    )
    if any(contender.has_diverged for contender in contenders):
        now = f" (now {', '.join(f'{rate:g}' for rate in rates)})" if rates else ""
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
            f"  not finished: read {(failed[0] / LOG_FILE).as_posix()}{more}, or logs/ where "
            "there is none, and run the workflow again: finished runs are not repeated"
        )
    if any(contender.completed > len(contender.values) for contender in contenders):
        advice.append(
            f"  {params.metric} not measured: raise smoke.total_frames, so that episodes end, or "
            "choose another selection.metric (win_rate needs an environment that reports wins)"
        )
    if all(len(contender.runs) < params.min_seeds for contender in contenders):
        advice.append("  too few seeds: add to smoke.seeds or lower selection.min_seeds")
    return advice


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


# --- after the long run -----------------------------------------------------------------------


class LongRun(Frozen):
    """One config's score in the smoke and after the long run, in units of the metric."""

    config: str
    smoke: float | None
    long: float | None


class RankCheck(Frozen):
    """Did the smoke predict the long run? Scores are by the selection's metric and statistic."""

    verdict: Literal["confirmed", "questioned", "unknown"]
    why: str
    runs: tuple[LongRun, ...]  # of the configs that were trained long, by smoke rank
    # Rank correlation of smoke and long scores, in [-1, 1]; None below two scored long configs or
    # where all scores of one side are equal.
    spearman: float | None
    kendall: float | None

    def write(self, path: Path) -> None:
        """Write the check as JSON, atomically."""
        write_text_atomic(Path(path), self.model_dump_json(indent=2) + "\n")


def rank_check(selection: Selection, long: Tables) -> RankCheck:
    """Compare the long runs with the smokes they were selected by.

    The verdict is `confirmed` when the winner's long score is at least every smoke score and every
    other long score, else `questioned`; the sentence gives the numbers. Nothing more can be said
    where only the winner was trained long: another config's long run might still be better.

    Args:
        long: tables of the long runs (`aggregate`); configs are matched by their label.
    """
    scores = {
        label: score(list(_values(rows, selection.settings).values()), selection.settings.statistic)
        for label, rows in long.runs.groupby("config", sort=False)
    }
    runs = tuple(
        LongRun(config=candidate.label, smoke=candidate.score, long=scores[candidate.label])
        for candidate in selection.candidates
        if candidate.label in scores
    )
    spearman, kendall = _rank_correlations(runs)
    verdict, why = _compare(selection, runs)
    if spearman is not None:
        why += (
            f". Over {sum(_is_scored(run) for run in runs)} configs, the smoke's order and the "
            f"long runs' order correlate with Spearman {spearman:.2f}, Kendall {kendall:.2f}"
        )
    return RankCheck(verdict=verdict, why=why, runs=runs, spearman=spearman, kendall=kendall)


def _compare(selection: Selection, runs: Sequence[LongRun]) -> tuple[str, str]:
    winner = selection.candidates[0]
    own = next((run.long for run in runs if run.config == winner.label), None)
    if own is None:
        return "unknown", f"{winner.label} has no completed long run that measured its score"
    gain = own - winner.score
    change = "equal to" if gain == 0 else f"{abs(gain):.4g} {'above' if gain > 0 else 'below'}"
    words = (
        f"the long run of {winner.label} scores {own:.4g}, {change} its smoke's {winner.score:.4g}"
    )
    rivals = [
        (run.long, f"the long run of {run.config}")
        for run in runs
        if run.long is not None and run.config != winner.label
    ] + [
        (candidate.score, f"the smoke of {candidate.label}")
        for candidate in selection.candidates[1:]
        if candidate.score is not None
    ]
    better = [rival for rival in rivals if rival[0] > own]
    if better:
        best, source = max(better)
        return (
            "questioned",
            f"{words}, and {source} is better by {best - own:.4g}: train that config long too",
        )
    if gain < 0:
        return "questioned", f"{words}: longer training made it worse; see its learning curve"
    if not rivals:
        return "confirmed", f"{words}; there is no other config to compare with"
    best, source = max(rivals)
    return "confirmed", f"{words}, and {own - best:.4g} above the best rival, {source}"


def _is_scored(run: LongRun) -> bool:
    return run.smoke is not None and run.long is not None


def _rank_correlations(runs: Sequence[LongRun]) -> tuple[float | None, float | None]:
    smoke = [run.smoke for run in runs if _is_scored(run)]
    long = [run.long for run in runs if _is_scored(run)]
    if len(set(smoke)) < 2 or len(set(long)) < 2:
        return None, None
    import scipy.stats  # takes longer than a selection, and only long runs need it

    return (
        float(scipy.stats.spearmanr(smoke, long).statistic),
        float(scipy.stats.kendalltau(smoke, long).statistic),
    )
