"""The rank check: do the long runs confirm the selection by the smoke runs?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from heteromark.config.fields import Frozen
from heteromark.runs.files import write_text_atomic
from heteromark.workflow.aggregate import Tables
from heteromark.workflow.select import Selection, values_by_seed
from heteromark.workflow.statistics import score

RANK_CHECK_FILE = "rank_check.json"

Verdict = Literal["confirmed", "questioned", "unknown"]


class LongRun(Frozen):
    """One config's score in the smoke and after the long run, in units of the metric."""

    config: str
    smoke: float | None
    long: float | None


class RankCheck(Frozen):
    """Did the smoke predict the long run? Scores are by the selection's metric and statistic."""

    verdict: Verdict
    why: str
    runs: tuple[LongRun, ...]  # the configs with long runs, by smoke rank
    # Rank correlation of smoke and long scores, in [-1, 1]. None with fewer than two scored
    # configs, or if all smoke scores or all long scores are equal.
    spearman: float | None
    kendall: float | None

    @classmethod
    def read(cls, path: Path) -> RankCheck:
        """Read a rank check.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not a rank check.
        """
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Write the check as JSON, atomically."""
        write_text_atomic(Path(path), self.model_dump_json(indent=2) + "\n")


def rank_check(selection: Selection, long: Tables) -> RankCheck:
    """Compare the long runs with the smoke runs that decided the selection.

    The verdict is `confirmed` if the winner's long score is at least as high as every smoke score
    and every other long score, else `questioned`. `why` gives the numbers. If only the winner was
    trained long, another config's long run might still be better.

    Args:
        long: tables of the long runs (`aggregate`); configs are matched by their label.
    """
    scores = {
        label: score(
            list(values_by_seed(rows, selection.settings).values()), selection.settings.statistic
        )
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
            f". Over {sum(_is_scored(run) for run in runs)} configs, the rank correlation of smoke "
            f"and long scores is {spearman:.2f} (Spearman) or {kendall:.2f} (Kendall)"
        )
    return RankCheck(verdict=verdict, why=why, runs=runs, spearman=spearman, kendall=kendall)


def _compare(selection: Selection, runs: Sequence[LongRun]) -> tuple[Verdict, str]:
    winner, smoke = selection.candidates[0], selection.winner.score
    own = next((run.long for run in runs if run.config == winner.label), None)
    if own is None:
        return "unknown", f"{winner.label} has no completed long run with a score"
    gain = own - smoke
    change = "equal to" if gain == 0 else f"{abs(gain):.4g} {'above' if gain > 0 else 'below'}"
    words = f"the long run of {winner.label} scores {own:.4g}, {change} its smoke's {smoke:.4g}"
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
    import scipy.stats  # slow to import, and needed only for long runs

    return (
        float(scipy.stats.spearmanr(smoke, long).statistic),
        float(scipy.stats.kendalltau(smoke, long).statistic),
    )
