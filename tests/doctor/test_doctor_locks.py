"""The doctor's checks of locks, with locks that are really held or left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from examining import examined, is_ok, only
from projects import Project

from heteromark.doctor import locks, repository
from heteromark.doctor.finding import Level


@contextlib.contextmanager
def dvc_that_waits(folder: Path, code: str) -> Iterator[subprocess.Popen]:
    """Run `code` in a program called dvc that waits until it is killed."""
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


def test_a_snakemake_lock_is_a_problem_only_if_no_snakemake_is_running(empty: Project):
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
    assert not list(locks.snakemake_lock(examined()))


def test_a_snakemake_in_another_folder_does_not_count(empty: Project):
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


def test_a_dvc_lock_is_reported_while_it_is_held(here: Project, tmp_path: Path):
    with dvc_that_waits(tmp_path, HOLD_REPOSITORY) as process:
        lock = here.folder / ".dvc/tmp/lock"
        before = lock.stat().st_mtime_ns, lock.read_text()
        held = only(locks.dvc_lock(examined()))
        assert held.level is Level.WARNING
        assert held.file == ".dvc/tmp/lock"
        assert f"process {process.pid})" in held.message
        assert "Unable to acquire lock" in here.run("dvc", "status", check=False).stderr
        assert is_ok(repository.dvc_stages(examined()))  # needs no lock
        assert (lock.stat().st_mtime_ns, lock.read_text()) == before
    assert lock.exists()  # the file remains, but not the lock
    assert not list(locks.dvc_lock(examined()))


def test_a_hardlink_lock_outlives_its_holder(here: Project, tmp_path: Path):
    here.run("dvc", "config", "core.hardlink_lock", "true")
    with dvc_that_waits(tmp_path, HOLD_REPOSITORY) as process:
        held = only(locks.dvc_lock(examined()))
        assert held.level is Level.WARNING
        assert f"process {process.pid})" in held.message
        assert held.command == ""
    left = only(locks.dvc_lock(examined()))
    assert (left.level, left.command) == (Level.PROBLEM, "rm .dvc/tmp/lock")
    here.run(*left.command.split())
    assert not list(locks.dvc_lock(examined()))
    here.run("dvc", "params", "diff")


def test_a_path_lock_is_reported_unless_its_holder_is_dead(here: Project, tmp_path: Path):
    with dvc_that_waits(tmp_path, HOLD_PATH) as process:
        held = only(locks.dvc_lock(examined()))
        assert held.level is Level.WARNING
        assert held.file == ".dvc/tmp/rwlock"
        assert f"process {process.pid} (dvc repro)" in held.message
    assert "dvc repro" in here.read(".dvc/tmp/rwlock")
    assert not list(locks.dvc_lock(examined()))  # DVC removes it


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["damaged", "number of another process"])
def test_a_path_lock_that_blocks_dvc_forever_is_removed(here: Project, fault: str):
    out = str(here.folder / "results/plan")
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
    assert not list(locks.dvc_lock(examined()))
