"""Test estimates from several passes over each problem."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest

from heteromark.llm.evaluation import pass_at_k, solve_statistics


@pytest.mark.parametrize("passes", range(1, 8))
def test_pass_at_k_is_the_share_of_choices_that_solve(passes):
    for solved in range(passes + 1):
        outcomes = [number < solved for number in range(passes)]
        for k in range(1, passes + 1):
            shares = fmean(any(chosen) for chosen in combinations(outcomes, k))
            assert pass_at_k(passes, solved, k) == pytest.approx(shares, abs=1e-12)


def test_pass_at_k_of_many_passes_is_exact():
    assert pass_at_k(5000, 1, 2500) == 0.5
    assert pass_at_k(5000, 2501, 2500) == 1.0
    assert pass_at_k(5000, 0, 2500) == 0.0


@pytest.mark.parametrize(("passes", "solved", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_contradictory_numbers_are_rejected(passes, solved, k):
    with pytest.raises(ValueError, match=f"pass@{k} with {solved} of {passes}"):
        pass_at_k(passes, solved, k)


@pytest.mark.parametrize(
    ("passes", "ks"), [(1, "1"), (3, "1 2"), (4, "1 2 4"), (7, "1 2 4"), (8, "1 2 4 8")]
)
def test_k_is_every_power_of_two_up_to_the_passes(passes, ks):
    assert list(solve_statistics([0, 1], passes)["pass_at_k"]) == ks.split()


def test_solve_rate_and_standard_error_by_hand():
    statistics = solve_statistics([4, 2, 0], 4)
    assert statistics["solve_rate"] == statistics["pass_at_k"]["1"] == 0.5
    assert statistics["solve_rate_standard_error"] == pytest.approx(0.5 / 3**0.5)
    assert statistics["pass_at_k"]["2"] == pytest.approx((1 + 5 / 6 + 0) / 3)
    assert statistics["pass_at_k"]["4"] == pytest.approx(2 / 3)


def test_one_problem_has_no_standard_error():
    assert solve_statistics([2], 4)["solve_rate_standard_error"] is None
