"""The list of runs: filters, order and table."""

from __future__ import annotations

import numpy as np
import pytest
from made_history import FIRST_START, RunSpec, agent, make_run, run_config, run_specs

from heteromark.runs.record import RECORD_FILE, Status
from heteromark.ui.data.history import UNREADABLE, History
from heteromark.ui.data.listing import ORDERS, Filters, options, ordered, table_of


@pytest.fixture
def runs(store, tmp_path):
    """Twelve runs of four configs, and one that cannot be read."""
    for spec in run_specs(12):
        make_run(store, spec)
    broken = store.folder("0123456789ab")
    broken.mkdir()
    (broken / RECORD_FILE).write_text("{")
    return History(store, tmp_path / "none").runs()


def names(runs, **filters):
    return {run.name for run in runs if Filters(**filters).matches(run)}


def test_empty_filter_matches_every_run(runs):
    assert all(Filters().matches(run) for run in runs)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"agent_id": ["ppo_agent"]}, {"ppo_agent_lr_001", "ppo_agent_lr_003"}),
        ({"algorithm": ["HAPPO"]}, {"happo_agent_lr_000", "happo_agent_lr_002"}),
        ({"environment": ["speaker_listener"]}, {"happo_agent_lr_002", "ppo_agent_lr_003"}),
        ({"environment": ["skirmish"], "algorithm": ["HAPPO"]}, {"happo_agent_lr_000"}),
        ({"status": [UNREADABLE]}, {"0123456789ab"}),
        ({"status": ["failed"]}, set()),
        ({"text": "LR_000"}, {"happo_agent_lr_000"}),
        ({"text": "happo  listener"}, {"happo_agent_lr_002"}),
        ({"text": "config/agents/ppo_agent_sweep_lr_003.yaml"}, {"ppo_agent_lr_003"}),
        ({"text": "happo_agent with learning"}, {"happo_agent_lr_000", "happo_agent_lr_002"}),
        ({"text": "0123456789ab"}, {"0123456789ab"}),
        ({"text": "nowhere"}, set()),
    ],
)
def test_filters(runs, filters, expected):
    assert names(runs, **filters) == expected


def test_run_is_found_by_its_reason(store, tmp_path):
    config = run_config(agent("happo_agent_v1"))
    make_run(store, RunSpec(config, status=Status.DIVERGED, reason="the loss is NaN"))
    runs = History(store, tmp_path / "none").runs()
    assert names(runs, text="nan") == {"happo_agent_v1"}


def test_options_are_the_values_that_occur(runs):
    assert options(runs, "environment") == ["skirmish", "speaker_listener"]
    assert options(runs, "algorithm") == ["HAPPO", "MaskablePPO"]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_keeps_all_runs_and_puts_missing_values_last(runs, order):
    found = ordered(runs, order)
    assert sorted(run.key for run in found) == sorted(run.key for run in runs)
    value, descending = ORDERS[order]
    known = [value(run) for run in found if value(run) is not None]
    assert known == sorted(known, reverse=descending)
    assert all(value(run) is None for run in found[len(known) :])


def test_table_has_numbers_and_missing_values(runs):
    table = table_of(runs)
    assert len(table) == 13
    broken = table[table["run"] == "0123456789ab"].iloc[0]
    assert broken["status"] == "? unreadable"
    assert broken[["algorithm", "seed", "evaluation_return", "started"]].isna().all()
    first = table[table["config"] == "happo_agent_lr_000"].iloc[-1]
    assert first["started"] == FIRST_START.astimezone().replace(tzinfo=None)
    assert first["duration"].total_seconds() == 20
    assert 0 <= first["win_rate"] <= 100
    assert np.isnan(table[table["environment"] == "speaker_listener"]["win_rate"]).all()


def test_empty_table_has_the_same_columns(runs):
    assert list(table_of([]).columns) == list(table_of(runs).columns)


def test_progress_of_a_training_run(store, training, tmp_path):
    training()
    row = table_of(History(store, tmp_path / "none").runs()).iloc[0]
    assert row["status"] == "▶ running"
    assert row["progress"] == pytest.approx(2048 / 40960)
