"""Signs of language models that train, each with a run that shows it and one that does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_history import Made, agent, make_run, rows_of, run_config

from heteromark.ui.data.history import History, HistoryRun
from heteromark.ui.data.signs import signs_of

CONFIG = run_config(agent("at_grpo_agent_v1", grpo={"beta": 0.04}), "math")


@pytest.fixture(scope="module")
def healthy() -> pd.DataFrame:
    return pd.DataFrame(rows_of(Made(CONFIG)))


@pytest.fixture
def run(store) -> HistoryRun:
    make_run(store, Made(CONFIG))
    (run,) = History(store, store.root / "none").runs()
    return run


def told(run: HistoryRun, table: pd.DataFrame, kind: str) -> str:
    return "\n".join(sign.text for sign in signs_of(run, table) if sign.kind == kind)


def late(table: pd.DataFrame, **columns: float) -> pd.DataFrame:
    """The table with other values in its last tenth."""
    table = table.copy()
    for name, value in columns.items():
        table.loc[table.index[-len(table) // 10 :], name.replace("__", "/")] = value
    return table


def test_a_healthy_run_has_good_signs_only(run, healthy):
    assert told(run, healthy, "warning") == told(run, healthy, "note") == ""
    good = told(run, healthy, "good")
    assert "the groups have something to teach" in good
    assert "near the model before training: at most 0.0" in good
    assert "entropy" not in good


def test_groups_without_differences(run, healthy):
    table = late(healthy, flat_share__tool=1.0, pass_at_1=0.0)
    assert "no group has anything to teach (tool): the rewards in 100% of them" in told(
        run, table, "warning"
    )
    table = late(healthy, flat_share__tool=0.95, pass_at_1=0.0)
    assert "few groups have anything to teach (tool)" in told(run, table, "warning")
    table = late(healthy, flat_share__tool=0.95, pass_at_1=0.9)
    assert "one attempt solves 90%, so harder problems" in told(run, table, "note")
    table = late(healthy, flat_share__tool=0.7)
    assert "at least 30% of the groups have something to teach (tool)" in told(run, table, "note")


def test_responses_at_the_limit(run, healthy):
    table = late(healthy, cut_off__reasoner=0.63)
    assert "responses at the limit (reasoner): 63% are cut off" in told(run, table, "warning")
    assert "limit" not in told(run, late(healthy, cut_off__reasoner=0.4), "warning")


def test_responses_that_become_short_are_a_warning_only_without_a_gain(run, healthy):
    table = late(healthy, response_length__tool=0.6, reward__tool=-1.0)
    table.loc[0, "response_length/tool"] = 6.0
    assert "responses collapse (tool): they have 10% of the length" in told(run, table, "warning")
    assert "collapse" not in told(run, late(healthy, response_length__tool=0.5), "warning")
    assert "collapse" not in told(run, late(healthy, reward__tool=-1.0), "warning")


def test_how_far_from_the_reference(run, healthy):
    frames = np.linspace(0, 1, len(healthy))
    table = healthy.assign(**{"kl_reference/tool": 0.8 * frames})
    assert "moves away from the model before training (tool): 0.7" in told(run, table, "note")
    table = healthy.assign(**{"kl_reference/tool": 0.8})
    assert "at most 0.800 nats per token (tool)" in told(run, table, "good")
    table = healthy.assign(**{"kl_reference/tool": 2 * frames})
    assert "far from the model before training (tool): 1.9" in told(run, table, "warning")


def test_one_optimizer_step_per_iteration_moves_nothing_by_definition(run, healthy):
    table = healthy.assign(**{"kl_approx/tool": 0.0, "kl_approx/reasoner": 0.0})
    assert "KL divergence" not in told(run, table, "good")
    assert "KL divergence in bounds: below 0.001 nats (tool)" in told(
        run, healthy.assign(**{"kl_approx/tool": 1e-4, "kl_approx/reasoner": 0.0}), "good"
    )


def test_tokens_are_clipped_rather_than_actions(run, healthy):
    assert "40% of the tokens are clipped" in told(
        run, late(healthy, clip_fraction__tool=0.4), "warning"
    )


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_run_that_has_just_begun(run, healthy, rows):
    assert "collapse" not in told(run, healthy.iloc[:rows], "warning")
