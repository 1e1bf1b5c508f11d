"""A run's identity: what changes it, and what does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from heteromark.config.compose import compose_run
from heteromark.config.params import ProjectParams
from heteromark.config.schema import AgentConfig
from heteromark.runs.digest import (
    code_fingerprint,
    config_digest,
    environment_fingerprint,
    run_digest,
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
    fingerprint = environment_fingerprint("mpe2.simple_speaker_listener_v4:parallel_env")
    assert fingerprint.startswith("mpe2 1.")


def test_a_users_environment_counts_with_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "arena_a.py"
    module.write_text("def make():\n    return 1\n")
    (tmp_path / "arena_b.py").write_text("def make():\n    return 2\n")
    assert environment_fingerprint("arena_a:make") != environment_fingerprint("arena_b:make")
    assert environment_fingerprint("arena_none:make") == "missing"
