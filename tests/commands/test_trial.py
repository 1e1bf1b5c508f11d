"""Environments are tried before a sweep starts: two episodes of random play in a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from custom_environments import Foraging
from engine_config import TIC_TAC_TOE, make_config

from heteromark.commands import fit
from heteromark.commands.fit import trial_faults
from heteromark.runs.digest import environment_digest

HEAD = "from mpe2 import simple_spread_v3\n"
PLAIN = f"{HEAD}def make():\n    return simple_spread_v3.parallel_env(max_cycles=5)\n"
FAULTY = {
    "raises": ("def make():\n    1 / 0\n", "failed: ZeroDivisionError: division by zero"),
    "aborts": ("import os\ndef make():\n    os.abort()\n", "its process was killed by signal 6"),
    "hangs": (
        "import time\ndef make():\n    time.sleep(100)\n",
        "it did not take a step within 3 seconds",
    ),
    "cannot be seeded": (
        f"{HEAD}class Env(type(simple_spread_v3.parallel_env())):\n"
        "    def __init__(self):\n        self._env = simple_spread_v3.parallel_env()\n"
        "        super().__init__(self._env.aec_env)\n"
        "    def reset(self):\n        return super().reset()\n"
        "def make():\n    return Env()\n",
        "its reset() takes no seed",
    ),
    "reads what it does not declare": (
        PLAIN.replace("    return", "    open('levels.txt')\n    return"),
        "the run read levels.txt, which is not part of its identity",
    ),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "levels.txt").touch()
    return tmp_path


def remembered(place: Path) -> list[str]:
    return [path.name for path in (place / "cache" / "heteromark" / "trials").glob("*")]


@pytest.mark.mostly_slow(2)
@pytest.mark.parametrize("what", FAULTY)
def test_an_environment_that_cannot_run_is_refused(what, place, monkeypatch):
    source, message = FAULTY[what]
    module = what.replace(" ", "_")
    (place / f"{module}.py").write_text(source)
    monkeypatch.setattr(fit, "_TRIAL_SECONDS", 3.0 if what == "hangs" else 60.0)
    (fault,) = trial_faults(make_config(environment__task=f"{module}:make"))
    assert (fault.file, fault.key) == ("config/environment/test.yaml", "environment.task")
    assert message in fault.message
    assert not remembered(place)


def test_success_is_remembered_until_the_environment_changes(place, monkeypatch):
    (place / "plain_arena.py").write_text(PLAIN)
    config = make_config(environment__task="plain_arena:make")
    assert not trial_faults(config)
    assert remembered(place) == [environment_digest(config)]
    monkeypatch.setattr(fit.subprocess, "run", None)  # not called again
    assert not trial_faults(config)
    assert not trial_faults(make_config(environment__task="plain_arena:make", seed=3))
    with pytest.raises(TypeError):
        trial_faults(make_config(environment__task="plain_arena:make", environment__state=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        TIC_TAC_TOE,
        {"env_type": "smac", "environment__task": "smac_stand_in:Battle"},
        {"env_type": "custom", "environment__task": f"{Foraging.__module__}:Foraging"},
        {"env_type": "custom", "environment__task": "custom_environments:parallel"},
        {"environment__kwargs": {"continuous_actions": True}},
    ],
    ids=["turns", "SMAC", "EnvBase", "custom Parallel", "continuous"],
)
def test_every_kind_of_environment_is_tried(settings, place):
    assert not trial_faults(make_config(**settings))
    assert len(remembered(place)) == 1


def test_built_in_environments_and_the_stub_are_not_tried(place, monkeypatch):
    assert not trial_faults(
        make_config(env_type="skirmish", environment__task=None, environment__name="skirmish")
    )
    monkeypatch.setenv("HETEROMARK_TRAINER", "stub")
    assert not trial_faults(make_config(environment__task="nowhere:make"))
    assert not remembered(place)
