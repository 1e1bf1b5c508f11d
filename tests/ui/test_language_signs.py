"""Signs of language-model runs, each with a run that shows it and one that does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_history import RunSpec, agent, make_run, rows_of, run_config

from heteromark.ui.data.history import History, HistoryRun
from heteromark.ui.data.signs import signs_of

CONFIG = run_config(agent("at_grpo_agent_v1", grpo={"beta": 0.04}), "math")


@pytest.fixture(scope="module")
def healthy() -> pd.DataFrame:
    return pd.DataFrame(rows_of(RunSpec(CONFIG)))


@pytest.fixture
def run(store) -> HistoryRun:
    make_run(store, RunSpec(CONFIG))
    (run,) = History(store, store.root / "none").runs()
    return run


def sign_texts(run: HistoryRun, table: pd.DataFrame, kind: str) -> str:
    return "\n".join(sign.text for sign in signs_of(run, table) if sign.kind == kind)


def late(table: pd.DataFrame, **columns: float) -> pd.DataFrame:
    """Return the table with other values in its last tenth."""
    table = table.copy()
    for name, value in columns.items():
        table.loc[table.index[-len(table) // 10 :], name.replace("__", "/")] = value
    return table


def test_healthy_run_has_only_good_signs(run, healthy):
    assert sign_texts(run, healthy, "warning") == sign_texts(run, healthy, "note") == ""
    good = sign_texts(run, healthy, "good")
    assert "learning signal in at least" in good
    assert "close to the initial model: at most 0.0" in good
    assert "entropy" not in good


def test_groups_with_equal_rewards(run, healthy):
    table = late(healthy, flat_share__tool=1.0, pass_at_1=0.0)
    assert "no learning signal (tool): all rewards are equal in 100% of the groups" in sign_texts(
        run, table, "warning"
    )
    table = late(healthy, flat_share__tool=0.95, pass_at_1=0.0)
    assert "little learning signal (tool)" in sign_texts(run, table, "warning")
    table = late(healthy, flat_share__tool=0.95, pass_at_1=0.9)
    assert "one attempt solves 90%, so use harder problems" in sign_texts(run, table, "note")
    table = late(healthy, flat_share__tool=0.7)
    assert "learning signal in at least 30% of the groups (tool)" in sign_texts(run, table, "note")


def test_responses_hit_the_length_limit(run, healthy):
    table = late(healthy, cut_off__reasoner=0.63)
    assert "responses hit the length limit (reasoner): 63% are cut off" in sign_texts(
        run, table, "warning"
    )
    assert "limit" not in sign_texts(run, late(healthy, cut_off__reasoner=0.4), "warning")


def test_shorter_responses_are_a_warning_only_without_a_higher_reward(run, healthy):
    table = late(healthy, response_length__tool=0.6, reward__tool=-1.0)
    table.loc[0, "response_length/tool"] = 6.0
    assert "responses collapse (tool): 10% of their initial length" in sign_texts(
        run, table, "warning"
    )
    assert "collapse" not in sign_texts(run, late(healthy, response_length__tool=0.5), "warning")
    assert "collapse" not in sign_texts(run, late(healthy, reward__tool=-1.0), "warning")


def test_divergence_from_the_initial_model(run, healthy):
    frames = np.linspace(0, 1, len(healthy))
    table = healthy.assign(**{"kl_reference/tool": 0.8 * frames})
    assert "moving away from the initial model (tool): 0.7" in sign_texts(run, table, "note")
    table = healthy.assign(**{"kl_reference/tool": 0.8})
    assert "at most 0.800 nats per token (tool)" in sign_texts(run, table, "good")
    table = healthy.assign(**{"kl_reference/tool": 2 * frames})
    assert "far from the initial model (tool): 1.9" in sign_texts(run, table, "warning")


def test_zero_divergence_with_one_optimizer_step_is_not_a_sign(run, healthy):
    table = healthy.assign(**{"kl_approx/tool": 0.0, "kl_approx/reasoner": 0.0})
    assert "KL divergence" not in sign_texts(run, table, "good")
    assert "KL divergence within bounds: below 0.001 nats (tool)" in sign_texts(
        run, healthy.assign(**{"kl_approx/tool": 1e-4, "kl_approx/reasoner": 0.0}), "good"
    )


def test_clipped_tokens_instead_of_actions(run, healthy):
    assert "40% of the tokens are clipped" in sign_texts(
        run, late(healthy, clip_fraction__tool=0.4), "warning"
    )


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_run_that_has_just_started(run, healthy, rows):
    assert "collapse" not in sign_texts(run, healthy.iloc[:rows], "warning")
