"""Random histories of a project: edits, runs by Snakemake and DVC, losses and crashes.

After every completed run, tables, selection and model are compared with `oracle.py`, which computes
them from the config alone. Runs of different files must have different digests. `make histories
N=500` runs many. With MUTANT=R3, an old fault is put back, which a history should notice.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from projects import TINY, Project, copy_project

from heteromark.runs.store import RunStore

ORACLE = Path(__file__).parent / "oracle.py"
AGENTS = "config/agents/happo_agent_*.yaml"
VARIANT = "config/agents/happo_agent_sweep_{}.yaml"
LEVELS = "environments/levels.txt"
HELPER = "environments/helper.py"
TRAINER = "heteromark/training/metrics.py"
ARENA = """\
from mpe2 import simple_spread_v3

from .helper import CYCLES


def make():
    return simple_spread_v3.parallel_env(max_cycles=CYCLES)
"""
COMPONENT = f"""\
# @package _global_
env_type: pettingzoo
environment:
  name: arena
  task: environments.arena:make
  files: [{LEVELS}]
"""
START = {
    **TINY,
    "smoke": {"total_frames": 128, "seeds": [0, 1], "eval_episodes": 2},
    "full": {"total_frames": 256, "seeds": [0], "eval_episodes": 2},
    "sweep": {"agents": AGENTS, "environment": "arena", "halving": {"min_frames": 64}},
}
# Values of params.yaml that an edit or an experiment may set.
CHOICES = {
    "learning_rate": [None, 0.001, 0.002],
    "gamma": [None, 0.9],
    "checkpoint_interval": [1, 2],
    "smoke.total_frames": [128, 192],
    "smoke.seeds": [[0, 1], [1, 2]],
    "smoke.cohort": ["auto", 1, 3],
    "full.total_frames": [256, 320],
    "full.seeds": [[0], [3, 4]],
    "full.eval_episodes": [2, 3],
    "selection.metric": ["evaluation_return", "final_return"],
    "selection.statistic": ["iqm", "min"],
    "sweep.strategy": ["grid", "halving"],
    # The runs of the first need processes of their own, because they use the project's code.
    "sweep.environment": ["arena", "simple_spread"],
}
SETTING = st.sampled_from(sorted(CHOICES)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from(CHOICES[key]))
)
FOLDERS = [
    *("results/smoke", "results/tables/rungs", "results/tables", "results/selected"),
    *("results/train", "results/model"),
]
LOSSES = [
    *("results", ".snakemake", *FOLDERS),
    *("results/tables/runs.csv", "results/selected/selection.json", "results/model/metrics.json"),
]
# Faults of earlier versions, by their number in the list of cases: file, text now, text then.
MUTANTS = {
    # DVC does not know every key that affects results.
    "R1": ("dvc.yaml", "      - params.yaml:\n", "      - smoke\n      - full\n      - sweep\n"),
    # The plan that DVC depends on names smoke runs only.
    "R3": (
        "heteromark/workflow/plan.py",
        """"train": {"full": runs_of(self.candidates("full"))},
            "publish": {"digest": self.publication_digest},""",
        """"train": {},
            "publish": {},""",
    ),
    # Relative imports are not followed.
    "R4": (
        "heteromark/runs/code.py",
        """        if not level:
            yield name
            continue
""",
        """        if not level:
            yield name
        continue
""",
    ),
    # Old stamps go after new files have come; it waits, because the kill must hit that moment.
    "R7": (
        "heteromark/workflow/publish.py",
        """    for earlier in Path(folder).glob(stamp_name("*")):
        earlier.unlink()
    yield
""",
        """    yield
    __import__("time").sleep(0.5)
    for earlier in Path(folder).glob(stamp_name("*")):
        earlier.unlink()
""",
    ),
}
NAMES = st.sampled_from(["a", "b", "c"])
RATES = st.sampled_from(["1e-4", "5e-4", "3e-3"])


def as_override(key: str, value: object) -> str:
    """Write a setting for `dvc exp run -S`."""
    text = json.dumps(value).replace(" ", "").replace('"', "")
    return f"{key}={text}"


def state_of(folder: Path) -> dict[str, int]:
    """Return the modification times of a folder's files, without stamps."""
    found = {}
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.match("inputs-*"):
                found[path.name] = path.stat().st_mtime_ns
    return found


def is_replaced(before: dict[str, int], after: dict[str, int]) -> bool:
    return all(after.get(name, then) != then for name, then in before.items())


class Histories(RuleBasedStateMachine):
    """One project, and everything that happens to it."""

    skips_first = False  # do not play the next history

    def __init__(self) -> None:
        super().__init__()
        self._root = Path(tempfile.mkdtemp(prefix="history-"))
        self.project = copy_project(self._root / "project", self._root / "store", trainer="stub")
        if mutant := os.environ.get("MUTANT"):
            path, now, then = MUTANTS[mutant]
            text = self.project.read(path)
            assert now in text
            self.project.write(path, text.replace(now, then))
        self._edits = 0
        self._finished: set[str] = set()
        self._contents: dict[str, tuple[str, ...]] = {}  # of files, by config digest

    def teardown(self) -> None:
        try:
            if (self.project.folder / "config").exists() and sys.exc_info()[0] is None:
                self.snakemake()  # whatever happened before
        finally:
            self.remove_all()

    def remove_all(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    @initialize(rate=st.floats(1e-4, 1e-2))
    def start(self, rate: float = 1e-4) -> None:
        if Histories.skips_first:
            Histories.skips_first = False
            reject()
        project = self.project
        project.set_params(**START)
        for path in (project.folder / "config" / "agents").glob("happo_agent_sweep_*.yaml"):
            path.unlink()
        project.write(LEVELS, "0\n")
        project.write(HELPER, "CYCLES = 5\n")
        project.write("environments/arena.py", ARENA)
        project.write("config/environment/arena.yaml", COMPONENT)
        self.write_variant("a", rate)
        for command in (
            ("init", "--quiet", "--initial-branch=main"),
            ("config", "user.email", "tester@example.com"),
            ("config", "user.name", "Tester"),
        ):
            project.run("git", *command)
        project.commit("start")

    # --- edits -------------------------------------------------------------------------------

    @rule(setting=SETTING)
    def edit_params(self, setting) -> None:
        key, value = setting
        section, _, name = key.rpartition(".")
        self.project.set_params(**({section: {name: value}} if section else {name: value}))

    @rule(name=NAMES, rate=RATES)
    def write_variant(self, name, rate) -> None:
        text = f"defaults: [happo_agent_v1]\nsweep_variant: {name}\nlearning_rate: {rate}\n"
        self.project.write(VARIANT.format(name), text)

    @rule(name=NAMES)
    def remove_variant(self, name) -> None:
        (self.project.folder / VARIANT.format(name)).unlink(missing_ok=True)

    @rule(name=NAMES, new=NAMES)
    def rename_variant(self, name, new) -> None:
        path = self.project.folder / VARIANT.format(name)
        if path.exists() and name != new:
            text = path.read_text().replace(f"sweep_variant: {name}", f"sweep_variant: {new}")
            path.unlink()
            self.project.write(VARIANT.format(new), text)

    @rule(what=st.sampled_from([LEVELS, HELPER, TRAINER, "heteromark/workflow/words.py"]))
    def edit_file(self, what) -> None:
        self._edits += 1
        line = f"_edited = {self._edits}\n" if what.endswith(".py") else f"{self._edits}\n"
        self.project.write(what, self.project.read(what) + line)

    # --- runs --------------------------------------------------------------------------------

    @rule()
    def snakemake(self) -> None:
        self.project.run("snakemake", "--cores", "2", "published")
        self.check(self.project)
        again = self.project.run("snakemake", "--cores", "2", "published").stderr
        assert "Nothing to be done" in again, again

    @rule()
    def dvc_repro(self) -> None:
        self.project.run("dvc", "repro")
        self.check(self.project)
        planned = self.project.run("snakemake", "--dry-run", "published")
        assert "Nothing to be done" in planned.stdout + planned.stderr, planned

    @rule(setting=SETTING, where=st.sampled_from(["", "--temp", "--queue"]))
    def experiment(self, setting, where) -> None:
        """Run an experiment, here or in a temporary copy whose results are applied here."""
        self.project.commit("before an experiment") if self.is_dirty() else None
        self._edits += 1
        name = f"exp{self._edits}"
        options = [where] if where else []
        self.project.run(
            *("dvc", "exp", "run", *options, "--name", name, "-S", as_override(*setting))
        )
        if where == "--queue":
            self.project.run("dvc", "queue", "start")
            self.project.wait_for_queue()
        if where:
            self.project.run("dvc", "exp", "apply", name)
        self.check(self.project)

    @rule(seconds=st.floats(0.2, 8), command=st.sampled_from(["snakemake", "dvc"]))
    def killed(self, seconds, command) -> None:
        """A run is killed at a random moment, with all its processes."""
        line = ("dvc", "repro") if command == "dvc" else ("snakemake", "--cores", "2", "published")
        process = self.project.start(*line)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.free_locks()

    @rule(setting=SETTING, folder=st.sampled_from(["tables", "selected", "model"]))
    def killed_between_files(self, setting, folder) -> None:
        """A run is killed when it has replaced files but no stamp; then the edit is taken back."""
        self.snakemake()
        params, results = self.project.read("params.yaml"), self.project.folder / "results" / folder
        before = state_of(results)
        self.edit_params(setting)
        process = self.project.start("snakemake", "--cores", "2", "published")
        while process.poll() is None and not is_replaced(before, state_of(results)):
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):  # nothing to replace: it ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.free_locks()
        self.project.write("params.yaml", params)
        shutil.rmtree(self.project.folder / ".snakemake", ignore_errors=True)
        self.snakemake()

    @rule()
    def two_at_once(self) -> None:
        """The second one finds the lock, waits for nothing, and harms nothing."""
        first = self.project.start("snakemake", "--cores", "1", "published")
        time.sleep(1.5)
        self.project.run("snakemake", "--cores", "1", "published", check=False)
        first.wait(300)
        self.free_locks()
        self.snakemake()

    def free_locks(self) -> None:
        self.project.run("snakemake", "--unlock", check=False)
        for lock in (self.project.folder / ".dvc" / "tmp").glob("*lock"):
            lock.unlink()

    # --- losses ------------------------------------------------------------------------------

    @rule(what=st.sampled_from(LOSSES))
    def remove(self, what) -> None:
        path = self.project.folder / what
        path.unlink(missing_ok=True) if path.suffix else shutil.rmtree(path, ignore_errors=True)

    @rule(seed=st.integers(0, 9))
    def odd_times(self, seed) -> None:
        """Modification times mean nothing, as after `dvc pull`."""
        draw = random.Random(seed)
        for path in sorted((self.project.folder / "results").rglob("*")):
            when = draw.uniform(1e9, time.time())  # Snakemake refuses inputs from the future
            os.utime(path, (when, when))

    # --- git and DVC ---------------------------------------------------------------------------

    def is_dirty(self) -> bool:
        return bool(self.project.run("git", "status", "--porcelain").stdout)

    @rule()
    def commit(self) -> None:
        if self.is_dirty():
            self.project.commit()

    @rule()
    def stash(self) -> None:
        """Run without the edits, then get them back."""
        self.project.run("git", "stash", "--include-untracked", check=False)
        self.snakemake()
        self.project.run("git", "checkout", "--quiet", ".")
        self.project.run("git", "stash", "pop", check=False)
        self.resolve_conflicts()

    @rule()
    def checkout_earlier(self) -> None:
        if self.is_dirty():
            self.project.commit()
        earlier = self.project.run("git", "rev-list", "HEAD").stdout.split()
        self.project.run("git", "checkout", "--quiet", "-B", "main", earlier[len(earlier) // 2])
        self.project.run("dvc", "checkout", check=False)

    def resolve_conflicts(self) -> None:
        self.project.run("git", "checkout", "--quiet", "HEAD", "--", ".", check=False)

    @precondition(lambda self: (self.project.folder / "dvc.lock").exists())
    @rule()
    def second_clone(self) -> None:
        """After `dvc repro`, push and pull, a clone has nothing to do."""
        self.dvc_repro()
        if self.is_dirty():
            self.project.commit()
        remote = self._root / "remote"
        self.project.run("dvc", "remote", "add", "--force", "--default", "shelf", str(remote))
        self.project.commit("a remote") if self.is_dirty() else None
        self.project.run("dvc", "push")
        clone = Project(self._root / "clone", self._root / "store", "stub")
        shutil.rmtree(clone.folder, ignore_errors=True)
        self.project.run("git", "clone", "--quiet", ".", str(clone.folder))
        clone.run("dvc", "pull")
        done = clone.run("snakemake", "--cores", "2", "published").stderr
        assert "Nothing to be done" in done, done
        self.check(clone)

    # --- what must hold -------------------------------------------------------------------------

    def check(self, project: Project) -> None:
        """Compare all results with the oracle, and look for lost runs."""
        expected = json.loads(project.run("python", str(ORACLE)).stdout)
        with (project.folder / "results/tables/runs.csv").open() as file:
            rows = list(csv.DictReader(file))
        found = {}
        for row in rows:
            figures = {name: float(row[name]) for name in ("evaluation_return", "final_return")}
            figures["config_digest"] = row["config_digest"]
            found.setdefault(row["config"].split(" = ")[0], {})[row["seed"]] = figures
            own = (LEVELS, HELPER) if row["environment"] == "arena" else ()
            contents = tuple(project.read(path) for path in (*own, TRAINER))
            trained_with = self._contents.setdefault(row["config_digest"], contents)
            assert contents == trained_with, "a digest does not cover a file"
        assert found == expected["runs"]
        winner = json.loads(project.read("results/selected/selection.json"))["winner"]
        assert winner["name"] == expected["winner"]
        assert abs(winner["score"] - expected["score"]) < 1e-9
        metrics = json.loads(project.read("results/model/metrics.json"))
        assert metrics["evaluation_return"] == expected["model"]
        assert metrics["config"].split(" = ")[0] == expected["winner"]
        assert (
            json.loads(project.read("results/model/evaluation.json"))["return_mean"]
            == (expected["model"])
        )
        store = RunStore(self._root / "store")
        finished = {record.digest for record in store.finished()}
        assert self._finished <= finished, "a finished run is lost"
        self._finished = finished
        assert not store.verify()
