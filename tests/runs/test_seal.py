"""A run that uses code or data outside its identity fails, and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from projects import TINY, Project, copy_project

ARENA = """
from mpe2 import simple_spread_v3

{head}
def make():
{body}
    return simple_spread_v3.parallel_env(max_cycles=5)
"""
LEVELS = "environments/levels.txt"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = copy_project(tmp_path / "project", tmp_path / "store")
    short = {"smoke": {"total_frames": 128, "eval_episodes": 1}}
    project.set_params(**{**TINY, **short})
    project.write(LEVELS, "7\n")
    project.write("environments/helper.py", "cycles = 7\n")
    return project


def train(project: Project, body: str = "    pass", head: str = "", **environment):
    """Train in an environment whose factory runs `body`; return the finished process."""
    project.write("environments/arena.py", ARENA.format(head=head, body=body))
    settings = {"name": "arena", "task": "environments.arena:make", **environment}
    content = yaml.safe_dump({"env_type": "pettingzoo", "environment": settings})
    project.write("config/environment/arena.yaml", f"# @package _global_\n{content}")
    return project.run(
        *("heteromark", "train", "--agent-config", "config/agents/happo_agent_v1.yaml"),
        *("--environment", "arena", "--output", "out"),
        check=False,
    )


READS = {
    "open": f"    open('{LEVELS}').read()",
    "os.open": f"    import os; os.close(os.open('{LEVELS}', os.O_RDONLY))",
    "an absolute path": f"    from pathlib import Path; Path('{LEVELS}').absolute().read_text()",
    "a link": "    open('environments/link.txt')",
    "numpy": f"    import numpy; numpy.loadtxt('{LEVELS}')",
    "pandas": f"    import pandas; pandas.read_csv('{LEVELS}')",
    "for reading and writing": f"    open('{LEVELS}', 'r+').close()",
    "appended": f"    open('{LEVELS}', 'a+').close()",
    "sqlite": f"    import sqlite3; sqlite3.connect('{LEVELS}').close()",
}


@pytest.mark.mostly_slow(2)
@pytest.mark.parametrize("how", READS)
def test_a_file_outside_the_identity_fails_the_run(project, how):
    (project.folder / "environments" / "link.txt").symlink_to("levels.txt")
    failed = train(project, READS[how])
    assert failed.returncode == 1, failed.stderr
    name = "environments/link.txt" if how == "a link" else LEVELS
    assert f"the run read {name}, which is not part of its identity" in failed.stderr, failed.stderr
    assert f"`files: [{name}]` under `environment:` in config/environment/arena.yaml" in (
        failed.stderr
    )
    (record,) = project.store.glob("runs/*/run.json")
    assert json.loads(record.read_text())["status"] == "failed"


DYNAMIC = "import importlib; importlib.import_module('.'.join(['environments', 'helper']))"
MODULES = {
    "in the factory": {"body": f"    {DYNAMIC}"},
    "at import": {"head": DYNAMIC},
    "executed": {"body": "    exec(open('environments/helper.py').read())"},
    "run": {"body": "    import runpy; runpy.run_path('environments/helper.py')"},
    "in workers": {"body": f"    {DYNAMIC}", "num_workers": 2},
    "from its bytecode": {
        "body": "    import py_compile; py_compile.compile('environments/helper.py')\n"
        f"    {DYNAMIC}"
    },
}


@pytest.mark.mostly_slow(2)
@pytest.mark.parametrize("how", MODULES)
def test_a_module_that_no_import_names_fails_the_run(project, how):
    failed = train(project, **MODULES[how])
    assert failed.returncode == 1, failed.stderr
    assert "the run loaded environments/helper.py, which no import in its code names" in (
        failed.stderr
    )


@pytest.mark.slow
def test_processes_of_collectors_are_watched_too(project):
    project.write("config/collector/parallel.yaml", "type: multi_sync\n")
    body = f"    if multiprocessing.parent_process():\n    {READS['open']}"
    arena = ARENA.format(head="import multiprocessing", body=body)
    project.write("environments/arena.py", arena)
    project.write(
        "config/environment/arena.yaml",
        "# @package _global_\nenv_type: pettingzoo\nenvironment:\n  name: arena\n"
        "  task: environments.arena:make\n",
    )
    failed = project.run(
        *("python", "-m", "heteromark.training.factory_train", "environment=arena"),
        *("collector=parallel", "training.total_frames=64", "collector.frames_per_batch=64"),
        "replay_buffer.minibatch_size=64",
        check=False,
    )
    assert failed.returncode == 1, failed.stderr
    assert f"the run read {LEVELS}" in failed.stderr


def test_declared_and_imported_files_are_part_of_the_identity(project):
    """Changing any of them trains anew, and the record lists them."""
    how = {
        "head": "from .helper import cycles",
        "body": f"{READS['open']}\n    open('environments/scratch', 'w').write('x')\n"
        "    open('environments/scratch').read()\n"
        "    open('arena.egg-info/entry_points.txt').read()",  # a description of a package
        "files": ["environments/levels.txt"],
    }
    project.write("arena.egg-info/entry_points.txt", "")
    first = train(project, **how)
    assert "(trained" in first.stdout, first.stderr
    assert "(found in the run store)" in train(project, **how).stdout
    used = json.loads(project.read("out/run.json"))["used"]
    assert set(used) == {"environments/arena.py", "environments/helper.py", LEVELS}
    for path, text in ((LEVELS, "8\n"), ("environments/helper.py", "cycles = 8\n")):
        project.write(path, text)
        assert "(trained" in train(project, **how).stdout
    missing = train(project, **{**how, "files": ["environments/nothing.txt"]})
    assert missing.returncode == 2
    assert "environment.files = 'environments/nothing.txt': does not exist" in missing.stderr


@pytest.mark.slow
def test_a_second_run_in_the_same_process_is_checked_too(project):
    """Its modules are loaded already."""
    body = f"    {DYNAMIC}"
    train(project, body)
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from heteromark.commands.launch import RunFailed, train_run\n"
        "from heteromark.config.models.run import RunConfig\n"
        "import yaml, pathlib\n"
        "path, = pathlib.Path(sys.argv[1]).glob('runs/*/config.yaml')\n"
        "config = RunConfig.model_validate(yaml.safe_load(path.read_text()))\n"
        "for seed in (5, 6):\n"
        "    try: train_run(config.model_copy(update={'seed': seed}))\n"
        "    except RunFailed as error: print(error)\n"
    )
    done = project.run("python", "-c", script, str(project.store))
    assert done.stdout.count("the run loaded environments/helper.py") == 2


@pytest.mark.slow
def test_data_that_changes_during_the_training_fails_the_run(project):
    body = f"    import pathlib; pathlib.Path('{LEVELS}').write_text('another')"
    failed = train(project, body, files=[LEVELS])
    assert failed.returncode == 1, failed.stderr
    assert f"{LEVELS} changed while the run was trained" in failed.stderr, failed.stderr
