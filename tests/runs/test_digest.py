"""A run's identity: what changes it, and what does not."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from heteromark.config.agent import AgentConfig
from heteromark.config.compose import compose_run
from heteromark.config.params import ProjectParams
from heteromark.runs.digest import (
    _files_of,
    code_fingerprint,
    config_digest,
    run_digest,
    source_fingerprint,
)

ROOT = Path(__file__).parents[2]


def config(agent=None, params=None, mode="smoke", seed=0, **overrides):
    return compose_run(
        AgentConfig.model_validate({"agent_id": "demo", **(agent or {})}),
        ProjectParams.model_validate(params or {}),
        mode,
        seed,
        ROOT,
        overrides,
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"agent": {"learning_rate": 1e-4}},
        {"agent": {"ppo": {"clip_range": 0.1}}},
        {"agent": {"algorithm": "MAPPO"}},
        {"seed": 1},
        {"mode": "full"},
        {"training": {"total_frames": 4096}},
        {"environment": {"kwargs": {"max_cycles": 10}}},
        {"evaluation": {"episodes": 7}},
        {"params": {"device": "cpu"}},
    ],
)
def test_whatever_changes_the_result_changes_the_digest(changed):
    assert run_digest(config(**changed)) != run_digest(config())


@pytest.mark.parametrize(
    "agent",
    [
        {"agent_id": "other"},
        {"name": "Another name"},
        {"description": "Another text"},
        {"sweep_variant": "x"},
        {"version": 2},
        {"learning_rate": "3e-4"},
    ],
)
def test_names_and_spelling_do_not_change_the_digest(agent):
    assert run_digest(config(agent)) == run_digest(config())


def test_one_training_has_one_digest_whichever_way_it_was_asked_for():
    by_agent, by_component = (
        config({"learning_rate": 1e-4}),
        config(optimizer={"learning_rate": 1e-4}),
    )
    assert run_digest(by_agent) == run_digest(by_component)
    # Only HAPPO looks at the order of updates.
    for algorithm, same in (("MaskablePPO", True), ("HAPPO", False)):
        orders = [
            run_digest(config({"algorithm": algorithm, "happo": {"agent_order": order}}))
            for order in ("random", "fixed")
        ]
        assert (orders[0] == orders[1]) is same


def test_seeds_of_one_config_share_the_config_digest():
    assert config_digest(config(seed=0)) == config_digest(config(seed=1))
    assert config_digest(config()) != config_digest(config({"gamma": 0.5}))


def test_digests_are_the_same_in_another_process():
    code = (
        "from tests.runs.test_digest import config, run_digest; print(run_digest(config(seed=4)))"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip() == run_digest(config(seed=4))


def test_comments_and_docstrings_are_not_code(tmp_path):
    path = tmp_path / "module.py"

    def fingerprint(text: str) -> str:
        path.write_text(text)
        return code_fingerprint([path])

    plain = fingerprint("def f(x):\n    return x + 1\n")
    assert fingerprint('"""Doc."""\ndef f(x):  # why\n    """Doc."""\n    return x + 1\n') == plain
    assert fingerprint("def f(x):\n    return x + 2\n") != plain
    assert fingerprint("def f(x:\n") != plain  # broken code still has an identity


def test_installed_environments_count_with_their_version():
    fingerprint = source_fingerprint("mpe2.simple_speaker_listener_v4:parallel_env")
    assert fingerprint.startswith("mpe2 1.")


@pytest.fixture
def fingerprint_after(tmp_path, monkeypatch):
    """Write files, then take a task's fingerprint, as a new process would."""
    monkeypatch.syspath_prepend(tmp_path)

    def take(task: str = "places.arena:make", **files: str) -> str:
        for name, text in files.items():
            path = tmp_path / (name.replace("_in_", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        source_fingerprint.cache_clear()
        _files_of.cache_clear()
        importlib.invalidate_caches()
        return source_fingerprint(task)

    return take


def test_a_users_environment_counts_with_its_source(fingerprint_after):
    first = fingerprint_after(places_in_arena="def make():\n    return 1\n")
    assert fingerprint_after(places_in_arena="def make():\n    return 1  # why\n") == first
    assert fingerprint_after(places_in_arena="def make():\n    return 2\n") != first
    assert (
        fingerprint_after(places_in_other="x = 1\n", places_in_arena="def make():\n    return 1\n")
        == first
    )


@pytest.mark.parametrize("line", ["import places.parts", "from places import parts"])
def test_what_an_environment_imports_from_here_counts(fingerprint_after, line):
    first = fingerprint_after(places_in_arena=f"{line}\n", places_in_parts="size = 1\n")
    assert fingerprint_after(places_in_parts="size = 2\n") != first


def test_what_an_environment_imports_from_elsewhere_counts_with_its_version(fingerprint_after):
    assert "mpe2 1." in fingerprint_after(places_in_arena="import os\nfrom mpe2 import simple_v3\n")


def test_a_package_counts_as_a_whole(fingerprint_after):
    first = fingerprint_after("game:make", game_in___init__="", game_in_rules="a = 1\n")
    assert fingerprint_after("game:make", game_in_rules="a = 2\n") != first


def test_a_local_module_is_not_taken_for_the_distribution_of_its_name(fingerprint_after):
    first = fingerprint_after("rich:make", rich="def make():\n    return 1\n")
    assert fingerprint_after("rich:make", rich="def make():\n    return 2\n") != first


def test_a_missing_environment_has_no_identity(fingerprint_after):
    assert fingerprint_after("places.nowhere:make") == "missing"
    assert fingerprint_after("arena_none:make") == "missing"


def test_a_memorys_size_counts_where_a_network_may_remember():
    def digest(network, size):
        agent = {"network": {"policy": network}}
        return run_digest(config(agent, policy={"gru": {"hidden_size": size}}))

    assert digest("MlpPolicy", 8) == digest("MlpPolicy", 16)
    assert digest("GruPolicy", 8) != digest("GruPolicy", 16)
    assert digest("own.network:make", 8) != digest("own.network:make", 16)


def test_a_budget_counts_in_whole_iterations():
    digests = [run_digest(config(training={"total_frames": f})) for f in (1, 2048, 2049)]
    assert digests[0] == digests[1] != digests[2]
