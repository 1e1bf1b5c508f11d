"""No history of edits, runs, losses and crashes leaves a stale result; see `histories`."""

from __future__ import annotations

import os

import pytest
from histories import HELPER, Histories
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

# `make histories N=500` sets it.
NUMBER = int(os.environ.get("HISTORIES", "2"))
FIRST_SEED = int(os.environ.get("HISTORIES_SEED", "0"))


MUTANT = os.environ.get("MUTANT")


def test_a_short_history_leaves_no_stale_result():
    history = Histories()
    try:
        history.start()
        history.snakemake()
        history.edit_file(HELPER)
        history.remove("results/tables")
        history.snakemake()
    finally:
        history.teardown()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(FIRST_SEED, FIRST_SEED + NUMBER))
def test_no_history_leaves_a_stale_result(number):
    run_state_machine_as_test(
        seed(number)(Histories),
        settings=settings(
            max_examples=2,  # hypothesis begins with the simplest history
            stateful_step_count=8,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if MUTANT else [Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
        _min_steps=6,
    )
