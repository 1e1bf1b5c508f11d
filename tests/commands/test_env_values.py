"""Values of environment variables reach the run, and no record of it."""

from __future__ import annotations

import json

import pytest
from projects import Project

from heteromark.config.models.run import RunConfig

ARENA = """
from mpe2 import simple_spread_v3

def make(base, token, places, number):
    assert (token, places, number) == ("pass-hush!", ["by hush! here", "x"], "1234")
    return simple_spread_v3.parallel_env(max_cycles=5)
"""
CONFIG = """
# @package _global_
env_type: pettingzoo
environment:
  name: arena
  task: environments.arena:make
  kwargs:
    base: ${oc.env:A_SECRET}
    token: pass-${environment.kwargs.base}
    places: ["by ${oc.env:A_SECRET} here", "${oc.env:UNSET,x}"]
    number: ${oc.env:A_NUMBER}
"""
ENTRIES = {
    "train": (
        *("heteromark", "train", "--agent-config", "config/agents/happo_agent_v1.yaml"),
        *("--environment", "arena", "--output", "out"),
    ),
    "hydra": (
        *("python", "-m", "heteromark.training.factory_train", "environment=arena"),
        *("training.total_frames=512", "collector.frames_per_batch=512"),
        *("replay_buffer.minibatch_size=512", "hydra.run.dir=out"),
    ),
}


@pytest.fixture
def secrets(monkeypatch) -> None:
    monkeypatch.setenv("A_SECRET", "hush!")
    monkeypatch.setenv("A_NUMBER", "1234")


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_file_of_a_run_holds_the_value(entry, project: Project, own_store, secrets, monkeypatch):
    project.write("environments/arena.py", ARENA)
    project.write("config/environment/arena.yaml", CONFIG.lstrip())
    project.run(*ENTRIES[entry])
    for folder in (own_store, project.folder / "out"):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert b"hush!" not in path.read_bytes(), path
    config = (project.folder / "out" / "config.yaml").read_text()
    assert "token: pass-${oc.env:A_SECRET}" in config
    digest = json.loads((project.folder / "out" / "run.json").read_text())["digest"]
    evaluated = project.run("heteromark", "evaluate", digest, "--episodes", "1")
    assert "1 episodes" in evaluated.stdout
    monkeypatch.setenv("A_SECRET", "another")  # is another run
    assert "found in the run store" not in project.run(*ENTRIES[entry], check=False).stdout
    monkeypatch.delenv("A_SECRET")
    unset = project.run("heteromark", "evaluate", digest, "--episodes", "1", check=False)
    assert "the environment variable A_SECRET is not set" in unset.stderr


def test_numbers_from_the_environment_are_recorded_where_a_key_needs_one(
    project: Project, own_store, monkeypatch
):
    """They are needed to read the results, and no secret."""
    monkeypatch.setenv("A_NUMBER", "3")
    project.run(
        *("python", "-m", "heteromark.training.factory_train", "+experiment=quick_test"),
        *("seed=${oc.env:A_NUMBER}", "training.total_frames=512", "hydra.run.dir=out"),
    )
    assert json.loads((project.folder / "out" / "run.json").read_text())["seed"] == 3


def test_a_record_is_read_back():
    from engine_config import make_config

    config = make_config(environment__kwargs={"max_cycles": 5, "by": {"x.y": ["1", "2"]}})
    assert RunConfig.from_record(config.recorded()) == config
