"""`heteromark doctor`: every fault is really made, is told with its remedy, and the remedy works."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from projects import Project
from rich.console import Console

from heteromark.doctor import locks, machine, repository, results
from heteromark.doctor.finding import Finding, Level
from heteromark.doctor.finding import Project as Examined
from heteromark.doctor.report import examine, is_healthy, show
from heteromark.runs.files import sha256_of
from heteromark.runs.record import AgentIdentity, RunRecord, RunSummary, Status
from heteromark.runs.store import RunStore

RUN = "results/smoke/demo_v1-cccccccccccc/seed_0"


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with git and DVC, as the working directory."""
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.email", "tester@example.com")
    project.run("git", "config", "user.name", "Tester")
    project.commit()
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty folder, as the working directory."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Project(folder)


def examined(**options) -> Examined:
    return Examined(Path(), RunStore(), **options)


def only(findings: list[Finding]) -> Finding:
    """The one thing that is told."""
    (finding,) = findings
    return finding


def is_content(findings: list[Finding]) -> bool:
    return all(finding.level is Level.OK for finding in findings)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts and "tmp" not in path.parts[-2:-1]
    }


def test_a_healthy_project_is_healthy_and_stays_as_it_was(here: Project, own_store: Path):
    own_store.rmdir()
    before = snapshot(here.folder)
    result = here.run("heteromark", "doctor")
    assert ": 0 problems" in result.stdout.splitlines()[-1]
    assert f"run store        {own_store}" in result.stdout
    assert snapshot(here.folder) == before
    assert not own_store.exists()


def test_machines_get_json(here: Project):
    here.write("params.yaml", here.read("params.yaml") + "\ngama: 0.9\n")
    result = here.run("heteromark", "doctor", "--json", check=False)
    assert result.returncode == 1
    told = json.loads(result.stdout)
    assert told["healthy"] is False
    (configs,) = (check for check in told["checks"] if check["check"] == "configs")
    assert configs["level"] == "problem"
    (finding,) = configs["findings"]
    assert (finding["file"], finding["key"], finding["value"]) == ("params.yaml", "gama", 0.9)
    assert "Did you mean gamma?" in finding["message"]
    assert finding["advice"] == "edit params.yaml, then: heteromark validate"


def test_an_empty_folder_becomes_a_repository_by_the_commands_told(empty: Project):
    result = empty.run("heteromark", "doctor", check=False)
    assert result.returncode == 1
    assert "params.yaml: there is none in" in result.stdout
    for command in ("git init", "dvc init"):
        assert f"$ {command}\n" in result.stdout
        empty.run(*command.split())
    empty.run("git", "config", "user.email", "tester@example.com")
    empty.run("git", "config", "user.name", "Tester")
    assert is_content(repository.dvc_repository(examined()))
    uncommitted = only(repository.git(examined()))
    assert uncommitted.level is Level.WARNING
    empty.run("bash", "-c", uncommitted.command)
    assert is_content(repository.git(examined()))


def test_below_a_git_repository_dvc_is_initialised_as_a_subfolder(empty: Project, monkeypatch):
    empty.run("git", "init", "--quiet")
    (empty.folder / "below").mkdir()
    monkeypatch.chdir("below")
    command = only(repository.dvc_repository(examined())).command
    subprocess.run(command.split(), check=True, capture_output=True)
    assert is_content(repository.dvc_repository(examined()))


def test_without_git_dvc_is_not_asked_for_its_stages(here: Project):
    (here.folder / ".git").rename(here.folder / "git-was-here")
    assert only(repository.git(examined())).command == "git init"
    assert repository.dvc_stages(examined()) == []


def test_a_check_that_breaks_stops_no_other():
    def broken(project: Examined) -> list[Finding]:
        raise RuntimeError("no such luck")

    first, second = examine(examined(), (("broken", broken), ("compiler", machine.compiler)))
    assert "RuntimeError: no such luck" in str(only(list(first.findings)))
    assert first.level is Level.PROBLEM
    assert second.findings
    assert not is_healthy((first, second))


def test_a_terminal_gets_symbols_and_colours_and_a_shared_command_once(empty: Project):
    empty.write("requirements.lock", "no-such-package==1\nnor-this-one==2\n")
    checks = (("packages", machine.packages), ("compiler", machine.compiler))
    looks = {}
    for is_terminal in (False, True):
        out = io.StringIO()
        show(examine(examined(), checks), Console(file=out, force_terminal=is_terminal, width=40))
        looks[is_terminal] = out.getvalue()
    assert "\x1b[" not in looks[False]
    assert looks[False].startswith(
        "warning  packages\n    requirements.lock: no-such-package = '1'"
    )
    assert looks[False].count("pip install") == 1
    assert looks[True].startswith("\x1b[33m! warning")
    assert "✓ ok" in looks[True]


# ---------------------------------------------------------------------------------------- locks


@contextlib.contextmanager
def dvc_that_waits(folder: Path, code: str) -> Iterator[subprocess.Popen]:
    """A program called dvc that runs `code`, says so, waits, and is killed."""
    program = folder / "bin/dvc"
    program.parent.mkdir()
    program.write_text(f"import sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()\n")
    process = subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_snakemake_lock_is_told_only_when_nobody_works_there(empty: Project):
    empty.write("Snakefile", "rule all:\n    output: 'done'\n    shell: 'sleep 60'\n")
    lock = empty.folder / ".snakemake/locks/0.output.lock"
    working = empty.start(sys.executable, "-m", "snakemake", "--cores", "1")
    try:
        deadline = time.monotonic() + 60
        while not lock.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        held = only(locks.snakemake_lock(examined()))
        assert held.level is Level.WARNING
        assert f"process {working.pid}" in held.message
        assert "unlock" not in f"{held}{held.command}{held.advice}"
    finally:
        os.killpg(working.pid, signal.SIGKILL)
        working.wait()

    left = only(locks.snakemake_lock(examined()))
    assert left.level is Level.PROBLEM
    assert (left.file, left.command) == (".snakemake/locks", "snakemake --unlock")
    assert "cannot be locked" in empty.run("snakemake", "--cores", "1", check=False).stderr
    empty.run(*left.command.split())
    assert locks.snakemake_lock(examined()) == []


def test_a_snakemake_of_another_folder_is_no_excuse(empty: Project):
    empty.write(".snakemake/locks/0.output.lock", "done\n")
    elsewhere = empty.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "snakemake").write_text("import time\ntime.sleep(60)\n")
    process = subprocess.Popen([sys.executable, "snakemake"], cwd=elsewhere)
    try:
        assert only(locks.snakemake_lock(examined())).command == "snakemake --unlock"
    finally:
        process.kill()
        process.wait()


HOLD_REPOSITORY = """
from dvc.repo import Repo
repo = Repo(".")
repo.lock.lock()
"""
HOLD_PATH = """
from dvc.fs import localfs
from dvc.rwlock import rwlock
import os
os.makedirs(".dvc/tmp", exist_ok=True)
out = os.path.abspath("results/tables")
held = rwlock(".dvc/tmp", localfs, "dvc repro", [], [out], False)
held.__enter__()
"""


def test_a_dvc_lock_is_told_while_it_is_held(here: Project, tmp_path: Path):
    with dvc_that_waits(tmp_path, HOLD_REPOSITORY) as process:
        lock = here.folder / ".dvc/tmp/lock"
        before = lock.stat().st_mtime_ns, lock.read_text()
        held = only(locks.dvc_lock(examined()))
        assert held.level is Level.WARNING
        assert held.file == ".dvc/tmp/lock"
        assert f"process {process.pid};" in held.message
        assert "Unable to acquire lock" in here.run("dvc", "status", check=False).stderr
        assert is_content(repository.dvc_stages(examined()))  # needs no lock
        assert (lock.stat().st_mtime_ns, lock.read_text()) == before
    assert lock.exists()  # a file, but no lock
    assert locks.dvc_lock(examined()) == []


def test_a_hardlink_lock_outlives_its_holder(here: Project, tmp_path: Path):
    here.run("dvc", "config", "core.hardlink_lock", "true")
    with dvc_that_waits(tmp_path, HOLD_REPOSITORY) as process:
        held = only(locks.dvc_lock(examined()))
        assert held.level is Level.WARNING
        assert f"process {process.pid};" in held.message
        assert held.command == ""
    left = only(locks.dvc_lock(examined()))
    assert (left.level, left.command) == (Level.PROBLEM, "rm .dvc/tmp/lock")
    here.run(*left.command.split())
    assert locks.dvc_lock(examined()) == []
    here.run("dvc", "params", "diff")


def test_a_path_that_dvc_holds_is_told_and_a_dead_holder_is_not(here: Project, tmp_path: Path):
    with dvc_that_waits(tmp_path, HOLD_PATH) as process:
        held = only(locks.dvc_lock(examined()))
        assert held.level is Level.WARNING
        assert held.file == ".dvc/tmp/rwlock"
        assert f"process {process.pid} (dvc repro)" in held.message
    assert "dvc repro" in here.read(".dvc/tmp/rwlock")
    assert locks.dvc_lock(examined()) == []  # DVC drops it by itself


@pytest.mark.parametrize("fault", ["damaged", "number of another process"])
def test_a_path_lock_that_stops_dvc_for_good_is_removed(here: Project, fault: str):
    out = str(here.folder / "results/plan.json")
    entry = {"write": {out: {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}
    text = "{" if fault == "damaged" else json.dumps(entry)
    path = here.write(".dvc/tmp/rwlock", text)
    os.utime(path, (1e9, 1e9))  # long before this process started
    refused = here.run("dvc", "repro", "plan", check=False)
    assert refused.returncode != 0
    left = only(locks.dvc_lock(examined()))
    assert (left.level, left.command) == (Level.PROBLEM, "rm .dvc/tmp/rwlock")
    here.run(*left.command.split())
    here.run("dvc", "repro", "plan")
    assert locks.dvc_lock(examined()) == []


# ---------------------------------------------------------------------------- files of the project


def edit_stages(project: Project, stage: str, outs: list) -> None:
    content = yaml.safe_load(project.read("dvc.yaml"))
    content["stages"][stage]["outs"] = outs
    project.write("dvc.yaml", yaml.safe_dump(content, sort_keys=False))


def test_outs_that_overlap_are_told_with_stage_and_path(here: Project):
    edit_stages(here, "select", ["results/tables/best"])
    overlap = only(repository.dvc_stages(examined()))
    assert overlap.level is Level.PROBLEM
    assert (overlap.file, overlap.key) == ("dvc.yaml", "stages.select.outs")
    assert overlap.value == "results/tables/best"
    assert "results/tables, an out of the stage sweep" in overlap.message

    edit_stages(here, "select", ["results/train"])
    twice = only(repository.dvc_stages(examined()))
    assert (twice.key, twice.value) == ("stages.select.outs", "results/train")
    assert "an out of train as well" in twice.message

    edit_stages(here, "select", ["results/selected"])
    assert is_content(repository.dvc_stages(examined()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: [", "corrupted"),
        ("stages: {plan: {cmnd: ls}}\n", "validation failed"),
        ("stages: {plan: {cmd: ls, outs: ['${nothing}']}}\n", "Could not find 'nothing'"),
    ],
)
def test_stages_that_do_not_load_are_told(here: Project, text: str, expected: str):
    here.write("dvc.yaml", text)
    finding = only(repository.dvc_stages(examined()))
    assert finding.level is Level.PROBLEM
    assert "dvc.yaml" in str(finding)
    assert expected in finding.message


def test_numbers_that_yaml_reads_as_strings_are_mended_in_place(here: Project):
    text = here.read("params.yaml")
    text = text.replace("learning_rate: null", "learning_rate: 1e-3  # slow")
    text = text.replace("clip_range: null", "clip_range: .2E0")
    here.write("params.yaml", text)
    variant = "config/agents/happo_agent_sweep_lr_high.yaml"
    here.write(variant, here.read(variant).replace("5.0e-3", "5e-3"))
    rate, clip, high = repository.string_floats(examined())

    line = text.splitlines().index("learning_rate: 1e-3  # slow") + 1
    assert (rate.file, rate.key, rate.value) == (f"params.yaml:{line}", "learning_rate", "1e-3")
    assert rate.command == f"sed -i {line}s/1e-3/1.0e-3/ params.yaml"
    assert (clip.key, clip.value) == ("ppo.clip_range", ".2E0")
    assert high.file.startswith(f"{variant}:")
    assert {finding.level for finding in (rate, clip, high)} == {Level.WARNING}

    assert yaml.safe_load(text)["learning_rate"] == "1e-3"
    for finding in (rate, clip, high):
        here.run("bash", "-c", finding.command)
    assert repository.string_floats(examined()) == []
    params = yaml.safe_load(here.read("params.yaml"))
    assert (params["learning_rate"], params["ppo"]["clip_range"]) == (1e-3, 0.2)
    assert "# slow" in here.read("params.yaml")


def test_text_that_only_looks_like_a_number_is_left_alone(here: Project):
    here.write("config/note.yaml", "quoted: '1e-3'\nversion: 1.2.3\nhash: 1e-3a\nwhole: 12\n")
    assert repository.string_floats(examined()) == []


# ------------------------------------------------------------------------------ results and store


def store_run(seed: int = 0, status: Status = Status.COMPLETED) -> RunRecord:
    """A run as training leaves it in the store."""
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
    """A project whose results/ have one run of the store."""
    RunStore().materialise(store_run().digest, here.folder / RUN)
    return here


@pytest.mark.parametrize("name", ["metrics.csv", "run.json"])
def test_damaged_results_come_back_from_the_store(with_run: Project, name: str):
    whole = with_run.read(f"{RUN}/{name}")
    assert is_content(results.results(examined()))
    with_run.write(f"{RUN}/{name}", "frames\n1\n")
    damage = only(results.results(examined()))
    assert damage.level is Level.PROBLEM
    assert damage.file.startswith(RUN)
    assert name in str(damage)
    assert damage.command.startswith("cp ")
    with_run.run("bash", "-c", damage.command)
    assert with_run.read(f"{RUN}/{name}") == whole
    assert is_content(results.results(examined()))


def test_results_that_only_dvc_has_come_back_from_its_cache(with_run: Project):
    with_run.write("dvc.yaml", "stages: {sweep: {cmd: ls, outs: [results/smoke]}}\n")
    with_run.run("dvc", "commit", "--force", "sweep")
    RunStore().remove(f"{0:012x}")
    (with_run.folder / RUN / "checkpoint.pt").unlink()
    with_run.write(f"{RUN}/metrics.csv", "frames\n1\n")
    damage = only(results.results(examined()))
    assert "checkpoint.pt is missing; metrics.csv is not what run.json says" in damage.message
    assert "dvc checkout" in damage.command
    with_run.run("bash", "-c", damage.command)
    assert is_content(results.results(examined()))


def test_results_that_nobody_has_are_made_anew(with_run: Project):
    RunStore().remove(f"{0:012x}")
    with_run.write(f"{RUN}/metrics.csv", "frames\n1\n")
    damage = only(results.results(examined()))
    assert damage.command == f"rm -r {RUN} && snakemake {RUN}/run.json"
    assert "trained anew" in damage.advice


def test_a_damaged_model_is_told_and_may_lack_what_it_never_had(with_run: Project):
    model = with_run.folder / "results/model"
    RunStore().materialise(f"{0:012x}", model)
    (model / "metrics.csv").unlink()
    assert is_content(results.results(examined()))
    with_run.write("results/model/checkpoint.pt", "weights of somebody else")
    RunStore().remove(f"{0:012x}")
    damage = only(results.results(examined()))
    assert damage.file == "results/model"
    assert "checkpoint.pt is not what run.json says" in damage.message
    assert damage.command == "rm results/model/inputs-*.json && snakemake published"


def test_a_store_that_cannot_be_made_is_told(here: Project, monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    place = str(tmp_path / "file" / "store")
    monkeypatch.setenv("HETEROMARK_STORE", place)
    finding = only(results.store_place(examined()))
    assert finding.level is Level.PROBLEM
    assert (finding.key, finding.value) == ("HETEROMARK_STORE", place)
    assert "is a file" in finding.message
    home = {"HOME": str(tmp_path), "HETEROMARK_STORE": place}
    mended = here.run("bash", "-c", f"{finding.command}; heteromark doctor", **home)
    assert f"{tmp_path}/heteromark-store" in mended.stdout


def test_a_store_that_was_made_and_cannot_be_written_is_told(own_store: Path):
    """Writing fails for whoever runs the tests, root too: their files may have 100 bytes."""
    (own_store / "runs").mkdir()
    (own_store / "locks").mkdir()
    assert is_content(results.store_place(examined()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        finding = only(results.store_place(examined()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert finding.level is Level.PROBLEM
    assert (finding.key, finding.value) == ("HETEROMARK_STORE", str(own_store))
    assert f"{own_store} cannot be written" in finding.message
    assert is_content(results.store_place(examined()))


def test_a_disk_with_little_room_is_told_with_the_threshold(own_store: Path):
    finding = only(results.store_place(examined(least_free=2**60)))
    assert finding.level is Level.WARNING
    assert "GiB free, less than 1073741824.0" in finding.message
    assert finding.command == "heteromark store prune"


def test_damaged_runs_of_the_store_are_set_aside(own_store: Path):
    for seed in range(3):
        store_run(seed)
    runs = own_store / "runs"
    (runs / f"{0:012x}" / "checkpoint.pt").unlink()
    (runs / f"{1:012x}" / "metrics.csv").write_text("frames\n1\n")
    missing = only(results.stored_runs(examined()))
    assert "checkpoint.pt is missing" in missing.message
    _, changed = results.stored_runs(examined(thorough=True))
    assert changed.file == str(runs / f"{1:012x}")
    assert "metrics.csv is not what run.json says" in changed.message
    for finding in (missing, changed):
        subprocess.run(finding.command, shell=True, check=True)
    assert len(RunStore().quarantined()) == 2
    whole = only(results.stored_runs(examined(thorough=True)))
    assert (whole.level, whole.message) == (Level.OK, "1 finished runs, whole")


def test_a_run_that_is_being_written_is_not_called_damaged(own_store: Path):
    with RunStore().writing("a" * 12):
        assert is_content(results.stored_runs(examined()))
    assert not is_content(results.stored_runs(examined()))


def test_an_interrupted_run_is_a_note_with_the_command_that_resumes_it(own_store: Path):
    store_run(0, Status.INTERRUPTED)
    record = store_run(1, Status.RUNNING)  # nobody holds its lock: its process was killed
    checkpoint = own_store / "runs" / record.digest / "checkpoints/iteration_000002-0.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    finding = only(results.unfinished_runs(examined()))
    assert finding.level is Level.NOTE
    assert record.digest in finding.file
    assert finding.command == "heteromark train --seed 1"


# ---------------------------------------------------------------------------------- the machine


def test_versions_off_the_lock_are_told(empty: Project):
    empty.write(
        "requirements.lock",
        "# a comment\n--prefer-binary\n"
        f"PyYAML=={yaml.__version__}  # as installed\n"
        "psutil==0.0.1\n"
        "No_Such.Package==1.0\n"
        "other-system==1.0 ; sys_platform == 'nowhere'\n"
        "torch==2\n",
    )
    older, absent, torch = machine.packages(examined())
    assert (older.file, older.key, older.value) == ("requirements.lock", "psutil", "0.0.1")
    assert older.message == f"{psutil.__version__} is installed"
    assert absent.message == "is not installed"
    assert "run's identity" in torch.message
    assert {finding.level for finding in (older, absent, torch)} == {Level.WARNING}
    assert older.command.endswith(" -m pip install --requirement requirements.lock")

    empty.write("requirements.lock", f"psutil=={psutil.__version__}\nnumpy=1\n")
    faulty = only(machine.packages(examined()))
    assert (faulty.level, faulty.value) == (Level.PROBLEM, "numpy=1")
    assert "line 2 does not parse" in faulty.message


def test_the_public_version_counts(empty: Project):
    public = machine.metadata.version("torch").partition("+")[0]
    empty.write("requirements.lock", f"torch=={public}\n")
    assert is_content(machine.packages(examined()))


def test_a_python_that_is_too_old_is_told(empty: Project):
    empty.write("pyproject.toml", "[project]\nrequires-python = '>=3.11'\n")
    assert is_content(machine.python_version(examined()))
    empty.write("pyproject.toml", "[project]\nrequires-python = '>=3.99'\n")
    finding = only(machine.python_version(examined()))
    assert finding.level is Level.PROBLEM
    assert (finding.key, finding.value) == ("project.requires-python", ">=3.99")


def test_a_gpu_that_torch_cannot_use_is_told(tmp_path: Path, monkeypatch):
    """The tool that names the GPU is a stand-in, for there may be none; torch is the real one."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA Stand-in (UUID: GPU-0)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = only(machine.gpu(examined()))
    assert finding.level is Level.WARNING
    assert finding.key == "torch"
    assert "GPU 0: NVIDIA Stand-in" in finding.message
    import torch

    if torch.version.cuda is None:
        assert "without CUDA" in finding.message
        assert finding.command.endswith("pip install --requirement requirements.lock")
    else:
        assert finding.command == "unset CUDA_VISIBLE_DEVICES"


def test_without_a_gpu_torch_is_not_imported(here: Project):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from heteromark.doctor.finding import Project\n"
        "from heteromark.doctor.report import examine\n"
        "from heteromark.runs.store import RunStore\n"
        "examine(Project(Path(), RunStore()))\n"
        "assert 'torch' not in sys.modules\n"
    )
    if machine._gpus():
        pytest.skip("there is a GPU here")
    here.run(sys.executable, "-c", code)


def test_no_compiler_is_only_a_note(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = only(machine.compiler(examined()))
    assert (finding.level, finding.key) == (Level.NOTE, "skirmish.compile")
    (tmp_path / "clang++").write_text("#!/bin/sh\n")
    (tmp_path / "clang++").chmod(0o755)
    assert is_content(machine.compiler(examined()))
