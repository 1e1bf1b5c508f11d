"""The contract of the workflow with its users, tested with the real Snakemake and DVC.

Every way to run the workflow gives the same metrics. A second call does nothing. A change reruns
only what depends on it. No run is trained twice.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from attempts import results
from filelock import FileLock
from projects import TINY, Project, copy_project

from heteromark.runs.store import RunStore

CONFIGS = ("happo_agent_v1", "happo_agent_sweep_lr_high")
NAMES = {"happo_agent_v1", "happo_agent_lr_high"}
METRICS = ("results/tables/metrics.json", "results/model/metrics.json")


def make_project(folder: Path, store: Path, trainer: str | None = "stub") -> Project:
    """A committed project with two configs and very short runs."""
    project = copy_project(folder, store, trainer)
    project.set_params(**TINY)
    for path in (folder / "config" / "agents").glob("*.yaml"):
        if path.stem not in CONFIGS:
            path.unlink()
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.email", "tester@example.com")
    project.run("git", "config", "user.name", "Tester")
    project.commit("project")
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Project:
    """A project in which `snakemake` ran once, with invented figures; it is only read."""
    return made_once(tmp_path_factory, worker_id, "invented", "stub")


@pytest.fixture(scope="session")
def really_trained(tmp_path_factory, worker_id) -> Project:
    """The same with real trainings."""
    return made_once(tmp_path_factory, worker_id, "trained", None)


def made_once(tmp_path_factory, worker_id: str, name: str, trainer: str | None) -> Project:
    """A project in which `snakemake` ran, made once for all workers."""
    root = tmp_path_factory.getbasetemp()
    root = (root if worker_id == "master" else root.parent) / name
    with FileLock(f"{root}.lock"):
        if not (root / "done").exists():
            project = make_project(root / "project", root / "store", trainer)
            project.run("snakemake", "--cores", "2")
            (root / "done").touch()
    return Project(root / "project", root / "store", trainer)


def copy_of(project: Project, folder: Path) -> Project:
    shutil.copytree(project.folder, folder / "project", symlinks=True)
    shutil.copytree(project.store, folder / "store")
    return Project(folder / "project", folder / "store", project.trainer)


@pytest.fixture
def copy(finished, tmp_path) -> Project:
    """A copy of the finished project and its store, to change at will."""
    return copy_of(finished, tmp_path)


@pytest.fixture
def clone(copy, tmp_path) -> Project:
    """A fresh clone without results, but with a store that has the runs."""
    return clone_of(copy, tmp_path / "clone")


def clone_of(project: Project, target: Path, store: Path | None = None) -> Project:
    project.run("git", "clone", "--quiet", ".", str(target))
    clone = Project(target, store or project.store, project.trainer)
    clone.run("git", "config", "user.email", "tester@example.com")
    clone.run("git", "config", "user.name", "Tester")
    return clone


def metrics(project: Project) -> dict:
    return {path: json.loads(project.read(path)) for path in METRICS}


def summary(project: Project) -> pd.DataFrame:
    return pd.read_csv(project.folder / "results/tables/summary.csv").set_index("config")


def trained(store: Path) -> dict[str, tuple]:
    """Return start, end and number of attempts of all runs, by digest."""
    records = [json.loads(p.read_text()) for p in store.glob("runs/*/run.json")]
    return {r["digest"]: (r["started"], r["ended"], r["attempts"]) for r in records}


def new_runs(store: Path, before: dict) -> list[dict]:
    """Return the records of runs trained since `before`; check that older runs are unchanged."""
    after = trained(store)
    assert {digest: after[digest] for digest in before} == before
    return [
        json.loads((store / "runs" / digest / "run.json").read_text())
        for digest in after
        if digest not in before
    ]


def does_nothing(project: Project, *command: str) -> str:
    """Run a command and check that no file in results/ and no run changed."""

    def state():
        files = sorted(p for p in (project.folder / "results").rglob("*") if p.is_file())
        return [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in files], trained(project.store)

    before = state()
    result = project.run(*command)
    assert state() == before
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    "trained_by", ["finished", pytest.param("really_trained", marks=pytest.mark.slow)]
)
def test_snakemake_writes_all_results(trained_by, request):
    finished = request.getfixturevalue(trained_by)
    table = summary(finished)
    assert set(table.index) == NAMES
    assert (table["completed"] == 2).all()
    selection = json.loads(finished.read("results/selected/selection.json"))
    assert {c["names"][0] for c in selection["candidates"]} == NAMES
    assert selection["winner"]["name"] in NAMES
    assert "evaluation_return" in selection["winner"]["why"]
    model = json.loads(finished.read("results/model/metrics.json"))
    assert model["config"] == selection["winner"]["name"]
    assert model["episodes"] == TINY["full"]["eval_episodes"]
    report = finished.read("results/report.html")
    assert "learning_curves.svg" in report
    assert "selection.json" in report
    logs = {path.parent.name for path in (finished.folder / "logs").rglob("*.log")}
    assert any(name.startswith("happo_agent_lr_high-") for name in logs)


def test_tables_of_the_stub_say_that_they_are_invented(finished):
    table = summary(finished)
    assert table["reason"].str.startswith("stub trainer, invented: ").all()
    runs = pd.read_csv(finished.folder / "results/tables/runs.csv")
    assert runs["reason"].str.contains("the figures are invented").all()


def test_a_second_snakemake_does_nothing(copy):
    assert "Nothing to be done" in does_nothing(copy, "snakemake", "--cores", "2")


@pytest.mark.slow
def test_the_selected_config_and_the_model_are_usable(really_trained, tmp_path):
    copy = copy_of(really_trained, tmp_path)
    evaluated = copy.run("heteromark", "evaluate", "results/model", "--episodes", "3")
    assert "3 episodes" in evaluated.stdout
    before = trained(copy.store)
    command = ("train", "--agent-config", "results/selected/agent.yaml", "--mode", "full")
    again = copy.run("heteromark", *command, "--output", "again")
    assert "found in the run store" in again.stdout
    assert new_runs(copy.store, before) == []


@pytest.mark.slow
def test_dvc_repro_in_a_fresh_clone_gives_the_same_results(really_trained, tmp_path):
    other = clone_of(really_trained, tmp_path / "clone", store=tmp_path / "other store")
    other.run("dvc", "repro")
    assert metrics(other) == metrics(really_trained)
    assert set(trained(other.store)) == set(trained(really_trained.store))
    assert "up to date" in other.run("dvc", "status").stdout
    assert "up to date" in does_nothing(other, "dvc", "repro")
    # snakemake then has nothing to do and leaves DVC's state clean.
    assert "Nothing to be done" in does_nothing(other, "snakemake", "--cores", "2")
    assert "up to date" in other.run("dvc", "status").stdout


@pytest.mark.slow
def test_every_kind_of_experiment_gives_the_metrics_of_snakemake(clone, tmp_path):
    """Compare `exp run -S`, `--temp` and the queue with snakemake with the same params."""
    direct = clone_of(clone, tmp_path / "direct")
    direct.set_params(learning_rate=3e-3)
    before = trained(direct.store)
    direct.run("snakemake", "--cores", "2")
    smokes = [r for r in new_runs(direct.store, before) if r["mode"] == "smoke"]
    assert {r["agent"]["short_name"] for r in smokes} == {
        "happo_agent_v1"
    }  # lr_high sets its own learning rate
    expected = metrics(direct)

    before = trained(clone.store)
    clone.run("dvc", "exp", "run", "--temp", "--name", "temporary", "-S", "learning_rate=3e-3")
    assert new_runs(clone.store, before) == []
    clone.run("dvc", "exp", "run", "--queue", "--name", "queued", "-S", "learning_rate=3e-3")
    clone.run("dvc", "queue", "start")
    clone.wait_for_queue()
    clone.run("dvc", "exp", "run", "--name", "here", "-S", "learning_rate=3e-3")
    assert new_runs(clone.store, before) == []
    assert metrics(clone) == expected

    table = json.loads(clone.run("dvc", "exp", "show", "--json").stdout)
    experiments = {e["name"]: e["revs"][-1] for e in table[1]["experiments"]}
    assert set(experiments) == {"temporary", "queued", "here"}
    for revision in experiments.values():
        data = revision["data"]
        assert data["params"]["params.yaml"]["data"]["learning_rate"] == 3e-3
        measured = {path: data["metrics"][path]["data"] for path in METRICS}
        assert measured == expected
    difference = clone.run("dvc", "params", "diff").stdout
    assert "learning_rate" in difference


@pytest.mark.slow
def test_switching_the_environment_and_back(copy):
    before, old = trained(copy.store), metrics(copy)
    copy.run("dvc", "exp", "run", "-S", "sweep.environment=speaker_listener")
    runs = new_runs(copy.store, before)
    assert {record["environment"] for record in runs} == {"speaker_listener"}
    assert sorted(record["mode"] for record in runs) == ["full"] + ["smoke"] * 4
    assert metrics(copy) != old
    before = trained(copy.store)
    copy.run("dvc", "exp", "run", "-S", "sweep.environment=skirmish")
    assert new_runs(copy.store, before) == []
    assert metrics(copy) == old


def test_a_changed_variant_reruns_that_variant_only(copy):
    variant = "config/agents/happo_agent_sweep_lr_high.yaml"
    copy.write(variant, copy.read(variant).replace("5.0e-3", "6.0e-3"))
    before, old = trained(copy.store), summary(copy)
    copy.run("snakemake", "--cores", "2")
    runs = [r for r in new_runs(copy.store, before) if r["mode"] == "smoke"]
    assert sorted(r["agent"]["short_name"] for r in runs) == ["happo_agent_lr_high"] * 2
    new = summary(copy)
    assert new.loc["happo_agent_lr_high", "learning_rate"] == 6e-3
    unchanged = sorted(NAMES - {"happo_agent_lr_high"})
    pd.testing.assert_frame_equal(new.loc[unchanged], old.loc[unchanged])


@pytest.mark.slow
def test_a_removed_variant_disappears_from_the_tables_and_returns_when_restored(copy):
    before = trained(copy.store)
    path = copy.folder / "config/agents/happo_agent_sweep_lr_high.yaml"
    text = path.read_text()
    path.unlink()
    copy.run("snakemake", "--cores", "2", "tables", "selected")
    assert set(summary(copy).index) == NAMES - {"happo_agent_lr_high"}
    assert "lr_high" not in copy.read("results/selected/selection.json")
    path.write_text(text)
    copy.run("snakemake", "--cores", "2", "tables", "selected")
    assert set(summary(copy).index) == NAMES
    assert new_runs(copy.store, before) == []


@pytest.mark.slow
def test_equal_configs_share_their_runs_under_both_names(copy):
    before = trained(copy.store)
    copy.write(
        "config/agents/happo_agent_sweep_same.yaml",
        "defaults: [happo_agent_v1]\nsweep_variant: same\ngamma: 0.99\n",
    )
    copy.run("snakemake", "--cores", "2", "tables")
    assert new_runs(copy.store, before) == []
    assert "happo_agent_same = happo_agent_v1" in summary(copy).index


@pytest.mark.slow
def test_a_fresh_clone_with_dvc_pull_has_nothing_to_do(copy, tmp_path):
    copy.run("dvc", "remote", "add", "--default", "shelf", str(tmp_path / "remote"))
    copy.run("dvc", "repro")
    copy.commit("results")
    copy.run("dvc", "push")
    other = clone_of(copy, tmp_path / "clone", store=tmp_path / "empty store")
    other.run("dvc", "pull")
    assert "up to date" in other.run("dvc", "status").stdout
    assert "Nothing to be done" in does_nothing(other, "snakemake", "--cores", "2")
    assert "up to date" in does_nothing(other, "dvc", "repro")
    assert metrics(other) == metrics(copy)
    copy.run("git", "tag", "--annotate", "model@v1.0.0", "--message", "first model")
    other.run("dvc", "artifacts", "get", str(copy.folder), "model", "--out", "fetched")
    assert (other.folder / "fetched" / "checkpoint.pt").is_file()


@pytest.mark.slow
def test_deleted_results_are_restored_without_training(copy):
    before, old = trained(copy.store), metrics(copy)
    shutil.rmtree(copy.folder / "results")
    shutil.rmtree(copy.folder / ".snakemake")
    copy.run("snakemake", "--cores", "2")
    assert new_runs(copy.store, before) == []
    assert metrics(copy) == old


def test_stored_smoke_runs_are_copied_without_a_job_for_each(copy):
    shutil.rmtree(copy.folder / "results")
    damaged = next(run for run in RunStore(copy.store).finished() if run.mode == "smoke")
    (copy.store / "runs" / damaged.digest / "metrics.csv").write_text("damaged")
    done = copy.run("heteromark", "workflow", "restore")
    assert done.stdout.startswith("3 of 4 smoke runs were in the run store")
    plan = copy.run("snakemake", "--dry-run").stdout
    assert re.search(r"^smoke +1$", plan, re.MULTILINE), plan
    copy.run("snakemake", "--cores", "2", "--quiet")
    assert not RunStore(copy.store).verify()


def jobs(project: Project, rule: str, cores: int = 2) -> int:
    """Return how many jobs of a rule a dry run announces."""
    plan = project.run("snakemake", "--dry-run", "--cores", str(cores)).stdout
    found = re.search(rf"^{rule} +(\d+)$", plan, re.MULTILINE)
    return int(found[1]) if found else 0


def logs_of_cohorts(project: Project) -> str:
    return "".join(path.read_text() for path in project.folder.glob("logs/cohorts/*.log"))


def test_runs_that_no_cohort_trains_can_be_asked_for(copy):
    """A seed that params.yaml does not have, and a run of a rung that is not decided yet."""
    (run,) = (copy.folder / "results" / "smoke").glob("happo_agent_v1-*")
    target = f"results/smoke/{run.name}/seed_7/run.json"
    assert "smoke run of happo_agent_v1, seed 7" in copy.run("snakemake", "-n", target).stdout
    copy.set_params(sweep={"strategy": "halving", "halving": {"min_frames": 64}})
    shutil.rmtree(copy.folder / "results")
    plan = json.loads(
        copy.run(
            "python",
            "-c",
            "import json; from heteromark.workflow.plan import make_plan;"
            "print(json.dumps([c.rungs[-1].config_digest for c in make_plan().configs]))",
        ).stdout
    )
    names = [f"results/smoke/happo_agent_v1-{digest}/seed_0/run.json" for digest in plan]
    done = [copy.run("snakemake", "-n", name, check=False) for name in names]
    assert [each.returncode for each in done].count(0) == 1, done


@pytest.mark.parametrize(
    ("cohort", "cores", "expected"),
    [("auto", 2, 2), ("auto", 1, 1), (4, 2, 1), (3, 2, 2), (1, 2, 0)],
)
def test_smoke_runs_are_divided_into_cohorts(copy, cohort, cores, expected):
    shutil.rmtree(copy.folder / "results")
    copy.set_params(smoke={"cohort": cohort})
    assert jobs(copy, "cohort", cores) == expected
    assert jobs(copy, "smoke", cores) == 4


def test_a_cohort_trains_what_is_missing(copy):
    lost = next(run for run in RunStore(copy.store).finished() if run.mode == "smoke")
    shutil.rmtree(copy.folder / "results")
    shutil.rmtree(copy.store / "runs" / lost.digest)
    before = trained(copy.store)
    done = copy.run("snakemake", "--cores", "2")
    assert "one process" in done.stderr
    (run,) = new_runs(copy.store, before)
    assert run["digest"] == lost.digest
    assert run["command"][1] == "train"  # what trains it alone
    assert "1 of 1 runs trained in one process" in done.stderr + logs_of_cohorts(copy)
    assert not list((copy.folder / "logs" / "cohorts").glob("*.done"))


def test_it_says_why_runs_have_processes_of_their_own(copy):
    copy.write("environments/own.py", "from mpe2.simple_spread_v3 import parallel_env\n")
    copy.write(
        "config/environment/own.yaml",
        "# @package _global_\nenv_type: pettingzoo\n"
        "environment: {name: own, task: environments.own:parallel_env}\n",
    )
    copy.set_params(sweep={"environment": "own"})
    assert jobs(copy, "cohort") == 0
    done = copy.run("snakemake", "--cores", "2", "tables")
    expected = "all smoke runs are trained in processes of their own, because they use"
    assert done.stderr.count(expected) == 1


@pytest.mark.slow
def test_cohorts_change_no_result(really_trained, tmp_path):
    alone = clone_of(really_trained, tmp_path / "clone", store=tmp_path / "store")
    alone.set_params(smoke={"cohort": 1})
    alone.run("snakemake", "--cores", "2", "tables")
    assert not logs_of_cohorts(alone)
    assert "runs trained in one process" in logs_of_cohorts(really_trained)
    runs = sorted((alone.folder / "results" / "smoke").glob("*/seed_*"))
    assert len(runs) == 4
    for run in runs:
        together = really_trained.folder / run.relative_to(alone.folder)
        assert results(run) == results(together)


@pytest.mark.slow
def test_a_killed_workflow_resumes_with_the_same_results(really_trained, tmp_path):
    clone = clone_of(really_trained, tmp_path / "clone", store=tmp_path / "separate store")
    process = clone.start("snakemake", "--cores", "2")
    deadline = time.monotonic() + 120
    while not list(clone.store.glob("runs/*/metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(clone.store.glob("runs/*/metrics.csv")), (
        "the workflow was killed before any run started"
    )
    locked = clone.run("snakemake", "--cores", "2", check=False)
    assert "--unlock" in locked.stderr + locked.stdout
    clone.run("snakemake", "--unlock")
    clone.run("snakemake", "--cores", "2")
    assert metrics(clone) == metrics(really_trained)


def test_a_workflow_that_is_killed_at_the_end_of_a_run_does_the_rest(copy):
    """Snakemake had not noticed that the last smoke run was complete, and must not redo only it."""
    shutil.rmtree(copy.folder / "results")
    process = copy.start("snakemake", "--cores", "2")
    deadline = time.monotonic() + 60
    while len(list(copy.folder.glob("results/smoke/*/*/run.json"))) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (copy.folder / "results" / "tables").exists()
    copy.run("snakemake", "--unlock")
    copy.run("snakemake", "--cores", "2")
    assert "Nothing to be done" in does_nothing(copy, "snakemake", "--cores", "2")
    assert (copy.folder / "results" / "report.html").is_file()


def test_an_edited_environment_changes_the_inputs_of_the_dvc_stage(copy):
    """Its source lies outside config/, but DVC must notice the change."""
    arena = "from mpe2 import simple_speaker_listener_v4 as m\n\n\ndef make(**kwargs):\n    return m.parallel_env({})\n"
    environment = copy.read("config/environment/speaker_listener.yaml")
    task = "mpe2.simple_speaker_listener_v4:parallel_env"
    copy.write("environments/arena.py", arena.format("max_cycles=25"))
    copy.write(
        "config/environment/speaker_listener.yaml",
        environment.replace(task, "environments.arena:make"),
    )
    copy.set_params(sweep={"environment": "speaker_listener"})
    copy.run("dvc", "repro", "plan")
    first = json.loads(copy.read("results/plan/sweep.json"))["digest"]
    copy.write("environments/arena.py", arena.format("max_cycles=24"))
    copy.run("dvc", "repro", "plan")
    assert json.loads(copy.read("results/plan/sweep.json"))["digest"] != first


@pytest.mark.slow
def test_a_terminated_sweep_ends_its_runs_and_frees_the_lock(tmp_path):
    clone = make_project(tmp_path / "project", tmp_path / "store", trainer=None)
    process = clone.start(
        "heteromark", "sweep", "config/agents/*.yaml", "--total-timesteps", "640000"
    )
    deadline = time.monotonic() + 120
    while len(list(clone.store.glob("runs/*/metrics.csv"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 1
    records = [json.loads(p.read_text()) for p in clone.store.glob("runs/*/run.json")]
    deadline = time.monotonic() + 30
    while any(RunStore(clone.store).is_locked(r["digest"]) for r in records):
        assert time.monotonic() < deadline, "a run continued after its sweep ended"
        time.sleep(0.1)
    clone.run("snakemake", "--cores", "2", "-n")


@pytest.mark.slow
def test_new_selection_settings_train_no_smoke_run(copy):
    before = trained(copy.store)
    copy.set_params(selection={"statistic": "min"})
    copy.run("snakemake", "--cores", "2")
    assert all(record["mode"] == "full" for record in new_runs(copy.store, before))
    selection = json.loads(copy.read("results/selected/selection.json"))
    assert selection["settings"]["statistic"] == "min"


@pytest.mark.slow
def test_config_on_the_command_line_overrides_params(copy):
    before = trained(copy.store)
    copy.run("snakemake", "--cores", "2", "tables", "--config", "learning_rate=0.01")
    runs = new_runs(copy.store, before)
    assert {record["agent"]["short_name"] for record in runs} == {"happo_agent_v1"}
    rates = summary(copy)["learning_rate"].to_dict()
    assert rates == {"happo_agent_v1": 0.01, "happo_agent_lr_high": 5e-3}


@pytest.mark.slow
def test_after_heteromark_sweep_snakemake_trains_no_smoke_run(really_trained, tmp_path):
    clone = clone_of(really_trained, tmp_path / "clone", store=tmp_path / "separate store")
    result = clone.run("heteromark", "sweep", "config/agents/*.yaml", "--cores", "2")
    assert all(name in result.stdout for name in NAMES)
    plan = clone.run("snakemake", "-n").stdout
    assert "aggregate" in plan
    assert "smoke run of" not in plan
    before = trained(clone.store)
    clone.run("snakemake", "--cores", "2")
    assert {record["mode"] for record in new_runs(clone.store, before)} == {"full"}
    assert metrics(clone) == metrics(really_trained)


@pytest.mark.slow
def test_a_sweep_continues_after_a_failing_config_and_reports_it(really_trained, tmp_path):
    copy = copy_of(really_trained, tmp_path)
    # only in a training: what fails in the trial of the environment starts no run
    copy.write(
        "broken_env.py",
        "import sys\nfrom mpe2 import simple_speaker_listener_v4\n\n"
        "def make(**kwargs):\n"
        "    if 'heteromark.training.loop' in sys.modules:\n"
        "        raise RuntimeError('no such arena')\n"
        "    return simple_speaker_listener_v4.parallel_env(**kwargs)\n",
    )
    environment = copy.read("config/environment/speaker_listener.yaml")
    task = "mpe2.simple_speaker_listener_v4:parallel_env"
    broken = environment.replace(task, "broken_env:make").replace(
        "name: speaker_listener", "name: broken"
    )
    copy.write("config/environment/broken.yaml", broken)
    result = copy.run(
        *("heteromark", "sweep", "config/agents/*.yaml", "--environment", "broken"),
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout.count("no such arena") == len(NAMES) * 2
    # Earlier results are unchanged.
    assert "Nothing to be done" in does_nothing(copy, "snakemake", "--cores", "2")
