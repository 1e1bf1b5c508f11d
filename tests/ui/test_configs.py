"""Configs over seeds, their labels, and their differences."""

from __future__ import annotations

import shutil

import pytest
from made_history import RunSpec, agent, make_run, run_config
from projects import ROOT

from heteromark.config.errors import ConfigError
from heteromark.runs.record import CONFIG_FILE
from heteromark.ui.data.configs import (
    compare_with_base,
    configs_of,
    differences,
    resolved_config,
)
from heteromark.ui.data.history import History


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def runs_of(store, *configs):
    for config in configs:
        make_run(store, RunSpec(config))
    return History(store, store.root / "none").runs()


def test_seeds_of_a_config_are_grouped_in_order(store, three_seeds):
    (config,) = configs_of(History(store, store.root / "none").runs())
    assert config.label == "happo_agent_v1"
    assert [run.record.seed for run in config.runs] == [0, 1, 2]


def test_labels_are_as_long_as_needed_to_be_unique(store):
    base = agent("happo_agent_v1")
    runs = runs_of(
        store,
        run_config(agent("ppo_agent_v1")),
        run_config(base),
        run_config(base, environment="speaker_listener"),
        run_config(base, mode="full"),
        run_config(agent("happo_agent_v1", learning_rate=1e-5)),
    )
    labels = {config.label for config in configs_of(runs)}
    digests = {
        run.config_digest[:6]
        for run in runs
        if run.name == "happo_agent_v1"
        and (run.record.environment, run.record.mode) == ("skirmish", "smoke")
    }
    assert labels == {
        "ppo_agent_v1",
        "happo_agent_v1, speaker_listener, smoke",
        "happo_agent_v1, skirmish, full",
        *(f"happo_agent_v1, skirmish, smoke, {digest}" for digest in digests),
    }


def test_runs_without_a_record_belong_to_no_config(store, three_seeds):
    (three_seeds[0] / "run.json").write_text("{")
    (config,) = configs_of(History(store, store.root / "none").runs())
    assert len(config.runs) == 2


def test_only_differing_hyperparameters_are_listed(store):
    high = agent("happo_agent_sweep_lr_high", network={"net_arch": [32]})
    runs = runs_of(store, run_config(agent("happo_agent_v1")), run_config(high, seed=1))
    found = differences({run.name: resolved_config(run) for run in runs})
    assert found.table.to_dict("index") == {
        "happo_agent_v1": {"learning_rate": "0.002", "network.net_arch": "[64, 64]"},
        "happo_agent_lr_high": {"learning_rate": "0.005", "network.net_arch": "[32]"},
    }
    assert found.aliases == {
        "learning_rate": ["optimizer.learning_rate"],
        "network.net_arch": ["policy.hidden_sizes"],
    }


def test_key_missing_in_one_config_is_a_difference():
    found = differences({"old": {"a": 1}, "new": {"a": 1, "b": None}})
    assert found.table.to_dict("index") == {"old": {"b": "-"}, "new": {"b": "null"}}


def test_equal_configs_have_no_differences():
    assert differences({"a": {"x": 1, "seed": 0}, "b": {"x": 1, "seed": 1}}).table.empty
    assert differences({}).table.empty


def test_missing_config_file_is_an_error(store, three_seeds):
    (three_seeds[0] / CONFIG_FILE).unlink()
    run = next(run for run in History(store, store.root).runs() if run.folder == three_seeds[0])
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        resolved_config(run)


def test_differences_from_the_base_config(store, at_root):
    (run,) = runs_of(store, run_config(agent("happo_agent_sweep_lr_high", gamma=0.9)))
    comparison = compare_with_base(run)
    assert str(comparison.base) == "config/agents/happo_agent_v1.yaml"
    assert comparison.table.to_dict("records") == [
        {"hyperparameter": "learning_rate", "base": "0.002", "this run": "0.005"},
        {"hyperparameter": "gamma", "base": "0.99", "this run": "0.9"},
    ]


def test_base_config_does_not_differ_from_itself(store, at_root):
    (run,) = runs_of(store, run_config(agent("happo_agent_v1")))
    assert compare_with_base(run).table.empty


def test_missing_base_config_is_reported(store, tmp_path, monkeypatch):
    (run,) = runs_of(store, run_config(agent("happo_agent_v1")))
    monkeypatch.chdir(tmp_path)
    comparison = compare_with_base(run)
    assert comparison.base is None
    assert "happo_agent_v1" in comparison.error


def test_invalid_base_config_is_reported(store, tmp_path, monkeypatch):
    (run,) = runs_of(store, run_config(agent("happo_agent_v1")))
    shutil.copytree(ROOT / "config" / "agents", tmp_path / "config" / "agents")
    (tmp_path / "config" / "agents" / "happo_agent_v1.yaml").write_text("gamma: [")
    monkeypatch.chdir(tmp_path)
    assert "does not parse" in compare_with_base(run).error


def test_key_of_two_sections_is_listed_once(store):
    """agent.grpo.beta and grpo.beta are the same setting."""
    low, high = (run_config(agent("grpo_agent_v1", grpo={"beta": b}), "math") for b in (0.0, 0.1))
    first, second = runs_of(store, low, high)
    found = differences({"a": resolved_config(first), "b": resolved_config(second)})
    assert list(found.table) == ["grpo.beta"]
    assert found.aliases == {}
