"""What several passes over each problem tell about solving. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev


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
