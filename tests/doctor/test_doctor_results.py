"""The doctor's checks of results and of the run store."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest
from examining import examined, is_ok, only
from projects import Project

from heteromark.doctor import results
from heteromark.doctor.finding import Level
from heteromark.runs.files import sha256_of
from heteromark.runs.record import AgentIdentity, RunRecord, RunSummary, Status
from heteromark.runs.store import RunStore

RUN = "results/smoke/demo_v1-cccccccccccc/seed_0"


def store_run(seed: int = 0, status: Status = Status.COMPLETED) -> RunRecord:
    """Write a run to the store, as training does."""
    digest = f"{seed:012x}"
    store = RunStore()
    with store.writing(digest) as folder:
        for name in ("config.yaml", "metrics.csv", "checkpoint.pt", "evaluation.json"):
            (folder / name).write_text(f"{name} of {digest}\n")
        record = RunRecord(
            digest=digest,
            config_digest="c" * 12,
            agent=AgentIdentity(
                agent_id="demo",
                name="Demo",
                short_name="demo_v1",
                algorithm="HAPPO",
                version=1,
                sweep_variant=None,
                config_path=None,
            ),
            environment="skirmish",
            mode="smoke",
            seed=seed,
            status=status,
            started="2026-01-01T00:00:00+00:00",
            host="here",
            command=["/some/where/heteromark/__main__.py", "train", "--seed", str(seed)],
            summary=RunSummary(),
            files={path.name: sha256_of(path) for path in folder.iterdir()},
        )
        record.write(folder)
    return record


@pytest.fixture
def with_run(here: Project) -> Project:
    """A project with one run of the store in results/."""
    RunStore().materialise(store_run().digest, here.folder / RUN)
    return here


@pytest.mark.parametrize("name", ["metrics.csv", "run.json"])
def test_damaged_results_are_restored_from_the_store(with_run: Project, name: str):
    whole = with_run.read(f"{RUN}/{name}")
    assert is_ok(results.results(examined()))
    with_run.write(f"{RUN}/{name}", "frames\n1\n")
    damage = only(results.results(examined()))
    assert damage.level is Level.PROBLEM
    assert damage.file.startswith(RUN)
    assert name in str(damage)
    assert damage.command.startswith("cp ")
    with_run.run("bash", "-c", damage.command)
    assert with_run.read(f"{RUN}/{name}") == whole
    assert is_ok(results.results(examined()))


def test_results_that_only_dvc_has_are_restored_from_its_cache(with_run: Project):
    with_run.write("dvc.yaml", "stages: {sweep: {cmd: ls, outs: [results/smoke]}}\n")
    with_run.run("dvc", "commit", "--force", "sweep")
    RunStore().remove(f"{0:012x}")
    (with_run.folder / RUN / "checkpoint.pt").unlink()
    with_run.write(f"{RUN}/metrics.csv", "frames\n1\n")
    damage = only(results.results(examined()))
    assert "checkpoint.pt is missing; metrics.csv does not match run.json" in damage.message
    assert "dvc checkout" in damage.command
    with_run.run("bash", "-c", damage.command)
    assert is_ok(results.results(examined()))


def test_results_that_exist_nowhere_else_are_trained_again(with_run: Project):
    RunStore().remove(f"{0:012x}")
    with_run.write(f"{RUN}/metrics.csv", "frames\n1\n")
    damage = only(results.results(examined()))
    assert damage.command == f"rm -r {RUN} && snakemake {RUN}/run.json"
    assert "trains the run again" in damage.advice


def test_a_damaged_model_is_reported_but_not_the_files_it_never_has(with_run: Project):
    model = with_run.folder / "results/model"
    RunStore().materialise(f"{0:012x}", model)
    (model / "metrics.csv").unlink()
    assert is_ok(results.results(examined()))
    with_run.write("results/model/checkpoint.pt", "weights of somebody else")
    RunStore().remove(f"{0:012x}")
    damage = only(results.results(examined()))
    assert damage.file == "results/model"
    assert "checkpoint.pt does not match run.json" in damage.message
    assert damage.command == "rm results/model/inputs-*.json && snakemake published"


def test_a_store_that_cannot_be_created_is_reported(here: Project, monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    path = str(tmp_path / "file" / "store")
    monkeypatch.setenv("HETEROMARK_STORE", path)
    finding = only(results.store_location(examined()))
    assert finding.level is Level.PROBLEM
    assert (finding.key, finding.value) == ("HETEROMARK_STORE", path)
    assert "is a file" in finding.message
    home = {"HOME": str(tmp_path), "HETEROMARK_STORE": path}
    result = here.run("bash", "-c", f"{finding.command}; heteromark doctor", **home)
    assert f"{tmp_path}/heteromark-store" in result.stdout


def test_an_existing_store_that_cannot_be_written_is_reported(own_store: Path):
    """A limit of 100 bytes per file makes writing fail for every user, even root."""
    (own_store / "runs").mkdir()
    (own_store / "locks").mkdir()
    assert is_ok(results.store_location(examined()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        finding = only(results.store_location(examined()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert finding.level is Level.PROBLEM
    assert (finding.key, finding.value) == ("HETEROMARK_STORE", str(own_store))
    assert f"{own_store} cannot be written" in finding.message
    assert is_ok(results.store_location(examined()))


def test_little_disk_space_is_reported_with_the_threshold(own_store: Path):
    finding = only(results.store_location(examined(least_free=2**60)))
    assert finding.level is Level.WARNING
    assert "GiB free, less than 1073741824.0 GiB" in finding.message
    assert finding.command == "heteromark store prune"


def test_damaged_runs_of_the_store_are_moved_to_quarantine(own_store: Path):
    for seed in range(3):
        store_run(seed)
    runs = own_store / "runs"
    (runs / f"{0:012x}" / "checkpoint.pt").unlink()
    (runs / f"{1:012x}" / "metrics.csv").write_text("frames\n1\n")
    missing = only(results.stored_runs(examined()))
    assert "checkpoint.pt is missing" in missing.message
    _, changed = results.stored_runs(examined(thorough=True))
    assert changed.file == str(runs / f"{1:012x}")
    assert "metrics.csv does not match run.json" in changed.message
    for finding in (missing, changed):
        subprocess.run(finding.command, shell=True, check=True)
    assert len(RunStore().quarantined()) == 2
    intact = only(results.stored_runs(examined(thorough=True)))
    assert (intact.level, intact.message) == (Level.OK, "1 finished runs, intact")


def test_a_run_that_is_being_written_is_not_damaged(own_store: Path):
    with RunStore().writing("a" * 12):
        assert is_ok(results.stored_runs(examined()))
    assert not is_ok(results.stored_runs(examined()))


def test_an_interrupted_run_is_a_note_with_the_command_that_resumes_it(own_store: Path):
    store_run(0, Status.INTERRUPTED)
    record = store_run(1, Status.RUNNING)  # no process holds its lock: it was killed
    checkpoint = own_store / "runs" / record.digest / "checkpoints/iteration_000002-0.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    finding = only(results.unfinished_runs(examined()))
    assert finding.level is Level.NOTE
    assert record.digest in finding.file
    assert finding.command == "heteromark train --seed 1"
