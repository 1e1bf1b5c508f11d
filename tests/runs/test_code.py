"""The code of a run: found by following imports, fingerprinted without comments and docstrings."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys

import pytest
from projects import ROOT

import heteromark
from heteromark.runs import code
from heteromark.runs.code import code_fingerprint, source_fingerprint


def clear_caches() -> None:
    """Read all files again, as a new process would."""
    for function in (code.code_of, code.files_of, code.source_fingerprint, code.own_fingerprint):
        function.cache_clear()
    importlib.invalidate_caches()


def test_comments_and_docstrings_do_not_change_the_fingerprint(tmp_path):
    path = tmp_path / "module.py"

    def fingerprint(text: str) -> str:
        path.write_text(text)
        return code_fingerprint([path])

    plain = fingerprint("def f(x):\n    return x + 1\n")
    assert fingerprint('"""Doc."""\ndef f(x):  # why\n    """Doc."""\n    return x + 1\n') == plain
    assert fingerprint("def f(x):\n    return x + 2\n") != plain
    assert fingerprint("def f(x:\n") != plain  # code that does not parse still has a fingerprint


def test_the_folders_of_files_do_not_change_the_fingerprint(tmp_path):
    """In any sort order of the folders."""

    def fingerprint(first: str, second: str) -> str:
        files = [tmp_path / first / "mine.py", tmp_path / second / "theirs.py"]
        for number, file in enumerate(files):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"x = {number}\n")
        return code_fingerprint(files)

    assert fingerprint("a", "b") == fingerprint("d", "c")


def test_installed_environments_are_identified_by_their_version():
    fingerprint = source_fingerprint("mpe2.simple_speaker_listener_v4:parallel_env")
    assert fingerprint.startswith("mpe2 1.")


@pytest.fixture
def fingerprint_after(tmp_path, monkeypatch):
    """Write files, then return a task's fingerprint, as a new process would."""
    monkeypatch.syspath_prepend(tmp_path)

    def compute(task: str = "places.arena:make", **files: str) -> str:
        for name, text in files.items():
            path = tmp_path / (name.replace("_in_", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        clear_caches()
        # a new process has no modules that another test imported
        monkeypatch.delitem(sys.modules, task.partition(":")[0], raising=False)
        return source_fingerprint(task)

    return compute


def test_custom_environments_are_identified_by_their_source(fingerprint_after):
    first = fingerprint_after(places_in_arena="def make():\n    return 1\n")
    assert fingerprint_after(places_in_arena="def make():\n    return 1  # why\n") == first
    assert fingerprint_after(places_in_arena="def make():\n    return 2\n") != first
    assert (
        fingerprint_after(places_in_other="x = 1\n", places_in_arena="def make():\n    return 1\n")
        == first
    )


@pytest.mark.parametrize(
    "line",
    [
        "import places.parts",
        "from places import parts",
        "from places.parts import size",
        "from places.parts import *",
        "from . import parts",
        "from .parts import size",
        "def make():\n    from .parts import size",
        "import importlib\nparts = importlib.import_module('places.parts')",
        "from importlib import import_module\nparts = import_module('.parts', 'places')",
        "from importlib import import_module\nparts = import_module('.parts', __package__)",
        "import importlib as i\nparts = i.import_module(name='.parts', package=__package__)",
        "parts = __import__('places.parts')",
    ],
)
def test_local_imports_of_an_environment_change_its_fingerprint(fingerprint_after, line):
    first = fingerprint_after(places_in_arena=f"{line}\n", places_in_parts="size = 1\n")
    assert fingerprint_after(places_in_parts="size = 2\n") != first


@pytest.mark.parametrize("line", ["from ..parts import size", "from .. import parts"])
@pytest.mark.parametrize("has_init", [False, True])
def test_relative_imports_reach_parent_folders(fingerprint_after, line, has_init):
    files = {"places_in_deep_in_arena": f"{line}\n"}
    files |= {"places_in_deep_in___init__": ""} if has_init else {}
    task = "places.deep.arena:make"
    first = fingerprint_after(task, places_in_parts="size = 1\n", **files)
    assert fingerprint_after(task, places_in_parts="size = 2\n") != first


def test_imports_are_followed_from_file_to_file(fingerprint_after):
    first = fingerprint_after(
        places_in_arena="from .one import x\n",
        places_in_one="from . import two\n",
        places_in_two="import other\n",
        other="size = 1\n",
    )
    assert fingerprint_after(other="size = 2\n") != first


def test_installed_imports_of_an_environment_count_with_their_version(fingerprint_after):
    assert "mpe2 1." in fingerprint_after(places_in_arena="import os\nfrom mpe2 import simple_v3\n")


def test_a_package_counts_as_a_whole(fingerprint_after):
    first = fingerprint_after("game:make", game_in___init__="", game_in_rules="a = 1\n")
    assert fingerprint_after("game:make", game_in_rules="a = 2\n") != first


def test_a_local_module_is_not_taken_for_the_distribution_of_its_name(fingerprint_after):
    first = fingerprint_after("rich:make", rich="def make():\n    return 1\n")
    assert fingerprint_after("rich:make", rich="def make():\n    return 2\n") != first


def test_the_fingerprint_of_a_missing_environment_is_missing(fingerprint_after):
    assert fingerprint_after("places.nowhere:make") == "missing"
    assert fingerprint_after("arena_none:make") == "missing"


# --- heteromark's own code ------------------------------------------------------------------------

# Changes each module in turn and prints which of three runs change their digest.
FIND_AFFECTED = """
import json, sys
from pathlib import Path
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.params import ProjectParams
from heteromark.config.compose.composition import compose_run
import heteromark
from heteromark.runs import code
from heteromark.runs.digest import run_digest

def run(algorithm, environment, **agent):
    params = ProjectParams.model_validate({"sweep": {"environment": environment}})
    agent = AgentConfig.model_validate({"agent_id": "a", "algorithm": algorithm, **agent})
    return compose_run(agent, params, "smoke", 0)

text = {"network": {"policy": "TextPolicy"}, "n_steps": 64}
runs = {
    "HAPPO on Skirmish": run("HAPPO", "skirmish"),
    "IPPO on PettingZoo": run("IPPO", "simple_spread"),
    "GRPO on math": run("GRPO", "math", **text),
}
def digests():
    for function in (code.code_of, code.files_of, code.source_fingerprint, code.own_fingerprint):
        function.cache_clear()
    return {name: run_digest(config) for name, config in runs.items()}

before, changed = digests(), {}
for path in sorted(Path("heteromark").rglob("*.py")):
    content = path.read_bytes()
    path.write_bytes(content + b"\\n_changed = 1\\n")
    after = digests()
    path.write_bytes(content)
    name = ".".join(path.relative_to("heteromark").with_suffix("").parts)
    changed[name] = [run for run in runs if after[run] != before[run]]
assert digests() == before
print(json.dumps(changed))
"""


@pytest.fixture(scope="module")
def affected(tmp_path_factory) -> dict[str, list[str]]:
    """The runs whose digests change with each module, by module."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("heteromark", "config"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "params.yaml", folder)
    command = [sys.executable, "-c", FIND_AFFECTED]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Modules that affect no run, and modules that affect only some.
AFFECT_NO_RUN = (
    *("cli", "ui", "doctor", "workflow", "commands", "runs", "config"),
    *("training.networks", "training.factory_train", "training.evaluation_request"),
    *("llm.kind", "llm.evaluate_team", "llm.role_swaps"),
    "environment.skirmish.draw",
)
ONLY = {
    "llm": {"GRPO on math"},
    "environment.skirmish": {"HAPPO on Skirmish"},
    "environment.pettingzoo": {"IPPO on PettingZoo"},
    "environment.opponents": {"IPPO on PettingZoo"},
    "environment.smac": set(),
    "environment.custom": set(),
    "algorithm.happo": {"HAPPO on Skirmish"},
    "algorithm.ppo": {"IPPO on PettingZoo"},
    "modules.policy": {"HAPPO on Skirmish", "IPPO on PettingZoo"},
}


def lies_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("package", AFFECT_NO_RUN)
def test_code_without_effect_on_results_does_not_change_digests(affected, package):
    runs_of = {module: runs for module, runs in affected.items() if lies_in(module, package)}
    assert runs_of, f"{package} does not exist"
    assert not {module: runs for module, runs in runs_of.items() if runs}


@pytest.mark.parametrize("package", ONLY)
def test_code_changes_only_the_digests_of_runs_that_use_it(affected, package):
    runs_of = {module: set(runs) for module, runs in affected.items() if lies_in(module, package)}
    assert runs_of, f"{package} does not exist"
    assert not {module: runs for module, runs in runs_of.items() if not runs <= ONLY[package]}
    assert set().union(*runs_of.values()) == ONLY[package]


@pytest.mark.parametrize(
    ("module", "runs"),
    [
        ("seeds", 3),
        ("import_paths", 3),
        ("training.loop", 3),
        ("training.checkpoint", 3),
        ("modules.random_state", 3),
        ("training.device", 3),
        ("algorithm.learner", 3),
        ("modules.optimizer", 3),
        ("modules.networks", 3),
        ("training.network_components", 2),
        ("training.evaluator", 2),
        ("algorithm.base", 2),
        ("algorithm.advantage", 2),
        ("algorithm.value", 2),
        ("algorithm.absence", 2),
        ("loss.value", 2),
        ("modules.policy", 2),
        ("modules.collector", 2),
        ("modules.loss", 2),
        ("environment.groups", 3),
        ("environment.stepping", 2),
        ("environment.skirmish.battles", 1),
        ("environment.skirmish.units", 1),
        ("environment.skirmish.factory", 1),
        ("environment.pettingzoo.workers", 1),
        ("environment.opponents.pool", 1),
        ("llm.update", 1),
        ("llm.sampling", 1),
        ("llm.policies.backbone", 1),
        ("llm.tasks.math", 1),
        ("llm.tasks.sudoku", 0),
        ("llm.tasks.code", 0),
    ],
)
def test_code_changes_the_digests_of_all_runs_that_use_it(affected, module, runs):
    assert len(affected[module]) == runs


def test_methods_of_config_models_are_fingerprinted_and_their_docstrings_are_not(
    tmp_path, monkeypatch
):
    package = tmp_path / "heteromark"
    shutil.copytree(ROOT / "heteromark" / "config", package / "config")
    monkeypatch.setattr(heteromark, "__file__", str(package / "__init__.py"))
    model = package / "config" / "models" / "run.py"
    text = model.read_text(encoding="utf-8")

    def fingerprint(old: str, new: str) -> str:
        assert old in text
        model.write_text(text.replace(old, new), encoding="utf-8")
        code._computed_by_config.cache_clear()
        return code._computed_by_config()

    before = fingerprint("", "")
    assert (
        fingerprint("    @property\n    def num_iterations(", "    def num_iterations(") != before
    )
    assert fingerprint('"""The typed, immutable model', '"""Another model') == before
    assert fingerprint("class RunConfig", "x = 1\n\n\nclass RunConfig") == before


# Modules that are loaded by a training but do not affect its result.
AROUND = ("cli", "commands", "config", "runs", "training.networks", "training.evaluation_request")

LOADED = """
import json, sys, tempfile
from pathlib import Path
from engine_config import make_config
from text_config import make_text_config
from heteromark.runs.code import code_of, roots_of
from heteromark.training.loop import train

config = make_text_config() if sys.argv[1] == "llm" else make_config(
    env_type="skirmish", environment__task=None, environment__name="skirmish"
)
before = set(sys.modules)
with tempfile.TemporaryDirectory() as folder:
    train(config, Path(folder))
files = {str(path) for path in code_of(*roots_of(config)).sources}
loaded = {
    name.removeprefix("heteromark."): module.__file__
    for name, module in sys.modules.items()
    if name.startswith("heteromark.") and module.__file__
}
print(json.dumps(sorted(
    name for name, file in loaded.items()
    if file not in files and not file.endswith("__init__.py")
)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "around"),
    [
        ("networks", AROUND),
        ("llm", (*AROUND, "llm.kind", "llm.evaluate_team", "llm.role_swaps")),
    ],
)
def test_all_modules_loaded_by_a_training_are_in_its_digest(kind, around):
    command = [sys.executable, "-c", LOADED, kind]
    path = f"{ROOT}:{ROOT / 'tests'}"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=with_path(path))
    assert done.returncode == 0, done.stderr
    others = json.loads(done.stdout.splitlines()[-1])
    assert not [name for name in others if not any(lies_in(name, each) for each in around)]


def with_path(path: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": path}


# --- where packages are installed -----------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Write a package to a folder on `sys.path`, with or without a RECORD of its installation."""

    def install(folder: str, record: str | None) -> str:
        root = tmp_path / folder
        (root / "arenas").mkdir(parents=True)
        (root / "arenas" / "__init__.py").write_text("import huge_numbers\n")
        (root / "huge_numbers").mkdir()
        (root / "huge_numbers" / "__init__.py").write_text("size = 1\n")
        if record is not None:
            info = root / "arenas-1.5.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Name: arenas\nVersion: 1.5\n")
            (info / "RECORD").write_text(record)
        monkeypatch.syspath_prepend(root)
        clear_caches()
        return source_fingerprint("arenas:make")

    yield install
    clear_caches()


RECORD = "arenas/__init__.py,,\narenas-1.5.dist-info/METADATA,,\n"


@pytest.mark.parametrize("folder", ["lib/site-packages", "lib/dist-packages", "libraries"])
def test_packages_are_recognised_wherever_they_are_installed(elsewhere, folder):
    """From PYTHONPATH, a .pth file or a user site: identified by version, not by source."""
    fingerprint = elsewhere(folder, RECORD)
    assert fingerprint.startswith("arenas 1.5 ")
    assert "huge_numbers" not in fingerprint  # imports of installed packages are not followed


def test_an_editable_installation_is_identified_by_its_source(elsewhere):
    editable = "__editable__.arenas-1.5.pth,,\narenas-1.5.dist-info/METADATA,,\n"
    fingerprint = elsewhere("project/src", editable)
    assert "arenas" not in fingerprint


def test_installed_packages_are_not_parsed(tmp_path):
    """End to end: an environment imports a large package from PYTHONPATH."""
    site = tmp_path / "other" / "lib" / "site-packages" / "enormous"
    site.mkdir(parents=True)
    for number in range(400):
        (site / f"part_{number}.py").write_text("x = [" + "1, " * 20_000 + "]\n")
    (site / "__init__.py").write_text("")
    (tmp_path / "arena.py").write_text("import enormous\n")
    script = (
        "import time; from heteromark.runs.code import source_fingerprint as f; t = time.time();"
        "print(f('arena:make')); print(time.time() - t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=with_path(f"{ROOT}:{tmp_path}:{site.parent}"),
    )
    fingerprint, seconds = done.stdout.split("\n")[:2]
    assert fingerprint.startswith("enormous ")
    assert float(seconds) < 5
