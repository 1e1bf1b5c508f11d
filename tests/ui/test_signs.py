"""Good and warning signs, each with a run that shows it and one that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_history import RunSpec, agent, rows_of, run_config

from heteromark.runs.record import AgentIdentity, RunRecord, Status
from heteromark.ui.data.history import HistoryRun
from heteromark.ui.data.signs import signs_of, stability_of


def run(status: Status = Status.COMPLETED, reason: str | None = None, seed: int = 0) -> HistoryRun:
    record = RunRecord(
        digest="d",
        config_digest="c",
        agent=AgentIdentity(
            agent_id="a",
            name="a",
            short_name="a_v1",
            algorithm="HAPPO",
            version=1,
            sweep_variant=None,
            config_path=None,
        ),
        environment="skirmish",
        mode="smoke",
        seed=seed,
        status=status,
        started="2026-01-01T00:00:00+00:00",
        host="host",
    )
    return HistoryRun("d", Path("d"), status.value, reason, record)


@pytest.fixture(scope="module")
def healthy() -> pd.DataFrame:
    return pd.DataFrame(rows_of(RunSpec(run_config(agent("happo_agent_v1")))))


def sign_texts(table: pd.DataFrame, kind: str, **of_run) -> str:
    return "\n".join(sign.text for sign in signs_of(run(**of_run), table) if sign.kind == kind)


def test_healthy_run_has_only_good_signs(healthy):
    assert sign_texts(healthy, "warning") == ""
    good = sign_texts(healthy, "good")
    assert "return steady: the return rises" in good
    assert "KL divergence within bounds" in good
    assert "still exploring" in good
    assert "the critic explains" in good


@pytest.mark.parametrize(
    ("column", "value", "sign"),
    [
        (
            "kl_approx/marine",
            0.05,
            r"KL divergence high (marine): each update moves the policy by 0.050",
        ),
        ("clip_fraction/medivac", 0.4, "clip fraction high (medivac): 40% of the actions"),
        ("entropy/marine", 0.01, "entropy collapsed (marine): 0."),
        ("explained_variance", -0.3, "the critic predicts worse than the mean return"),
    ],
)
def test_bad_values_in_the_last_iterations_are_a_warning(healthy, column, value, sign):
    table = healthy.copy()
    table.loc[table.index[-2:], column] = value
    assert sign in sign_texts(table, "warning")


@pytest.mark.parametrize(
    ("column", "value"),
    [("kl_approx/marine", 0.05), ("clip_fraction/medivac", 0.4), ("explained_variance", -0.3)],
)
def test_bad_values_in_early_iterations_are_not_a_warning(healthy, column, value):
    table = healthy.copy()
    table.loc[table.index[:5], column] = value
    assert sign_texts(table, "warning") == ""


def test_negative_entropy_of_continuous_actions_is_not_a_warning(healthy):
    table = healthy.copy()
    table["entropy/marine"] = np.linspace(2.8, -1.0, len(table))
    assert "entropy" not in sign_texts(table, "warning")


@pytest.mark.parametrize(
    ("returns", "kind", "verdict"),
    [
        (np.linspace(0, 10, 20), "good", "return steady"),
        (np.linspace(10, 0, 20), "warning", "return falling"),
        (np.full(20, 3.0), "note", "return flat"),
        (np.tile([0.0, 10.0], 10), "warning", "return noisy"),
        (np.full(20, np.nan), "note", "return unknown"),
    ],
)
def test_verdict_on_the_return(healthy, returns, kind, verdict):
    assert verdict in sign_texts(healthy.assign(episode_return=returns), kind)


def test_seeds_that_disagree_are_noisy(healthy):
    frames = healthy["frames"]
    tables = [healthy.assign(episode_return=slope * frames / frames.max()) for slope in (0, 0, 10)]
    stability = stability_of([run(seed=seed) for seed in range(3)], tables)
    assert stability.verdict == "noisy"
    assert "3 seeds average 0 to" in stability.reason


def test_divergence_is_reported_once(healthy):
    warnings = sign_texts(healthy, "warning", status=Status.DIVERGED, reason="the loss is NaN")
    assert warnings == "diverged: the loss is NaN"


@pytest.mark.parametrize("status", [Status.FAILED, Status.INTERRUPTED])
def test_unfinished_run_shows_its_reason(status):
    warnings = sign_texts(pd.DataFrame(), "warning", status=status, reason="the disk is full")
    assert warnings.startswith(f"{status}: the disk is full")


def test_warnings_come_first(healthy):
    table = healthy.assign(**{"kl_approx/marine": 1.0})
    kinds = [sign.kind for sign in signs_of(run(), table)]
    assert kinds == sorted(kinds, key=("warning", "note", "good").index)
    assert kinds[0] == "warning"
