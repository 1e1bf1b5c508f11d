"""No history of edits, runs, losses and crashes leaves a stale result; see `histories`."""

from __future__ import annotations

import itertools
import os

import pytest
from histories import FOLDERS, HELPER, MUTANTS, Histories
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
def test_any_two_folders_of_results_may_be_lost():
    """A step finds what it reads: each file is an input of the rule, or it is not read."""
    history = Histories()
    try:
        history.start()
        history.write_variant("b", "3e-3")
        history.edit_params(("sweep.strategy", "halving"))
        project = history.project
        project.run("snakemake", "--cores", "2")
        for lost in itertools.combinations(FOLDERS, 2):
            for folder in lost:
                history.remove(folder)
            project.run("snakemake", "--cores", "2", "published")
        history.check(project)
        for folder in ("results/selected", "results/report.html"):
            history.remove(folder)
        project.run("snakemake", "--cores", "2")
    finally:
        history.remove_all()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(FIRST_SEED, FIRST_SEED + NUMBER))
def test_no_history_leaves_a_stale_result(number):
    Histories.skips_first = True  # Hypothesis begins with the simplest, the same for all seeds
    run_state_machine_as_test(
        seed(number)(Histories),
        settings=settings(
            max_examples=1,
            stateful_step_count=8,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if MUTANT else [Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
        _min_steps=6,
    )


# The shortest history that notices each fault of an earlier version.
SHORTEST = {
    "R1": [("dvc_repro",), ("edit_params", ("gamma", 0.9)), ("dvc_repro",)],
    "R3": [("dvc_repro",), ("edit_params", ("full.total_frames", 320)), ("dvc_repro",)],
    "R4": [("snakemake",), ("edit_file", HELPER), ("snakemake",)],
    "R7": [("killed_between_files", ("gamma", 0.9), "tables")],
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", MUTANTS)
def test_a_history_notices_an_old_fault(fault, monkeypatch):
    def play() -> None:
        history = Histories()
        try:
            history.start()
            for step, *arguments in SHORTEST[fault]:
                getattr(history, step)(*arguments)
        finally:
            history.remove_all()

    play()
    monkeypatch.setenv("MUTANT", fault)
    with pytest.raises(AssertionError):
        play()
