"""Checks of locks: held by somebody who works here, or left over by somebody who was killed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import zc.lockfile

from heteromark.doctor.finding import Finding, Project, problem, warning
from heteromark.doctor.repository import dvc_root

_REFUSED = "until it ends, commands like `dvc status` may refuse"
_ELSEWHERE = "if other machines share this folder, make sure that none of them works here"


def snakemake_lock(project: Project) -> Iterator[Finding]:
    """Has a killed Snakemake left its lock?

    The lock is a list of files, without a process number. A Snakemake works in the folder that it
    locks, so one is looked for among the processes: their command line and working directory.
    """
    locks = sorted((project.root / ".snakemake/locks").glob("*.lock"))
    if not locks:
        return
    folder = locks[0].parent
    here = project.root.resolve()
    if who := _working("snakemake", lambda place: place == here):
        yield _held(project, folder, f"Snakemake works here: {who}; until it ends, no other starts")
    elif any(lock.exists() for lock in locks):  # else it has just ended
        yield problem(
            "a Snakemake that was killed left its lock: no process of this machine works here",
            file=project.shown(folder),
            command="snakemake --unlock",
            advice=_ELSEWHERE,
        )


def dvc_lock(project: Project) -> Iterator[Finding]:
    """Does DVC hold the repository or one of its paths, or has a killed one left a lock?"""
    if root := dvc_root(project.root):
        yield from _repository_lock(project, root)
        yield from _path_locks(project, root)


def _working(program: str, is_here: Callable[[Path], bool]) -> str:
    """The processes that run `program` with a working directory that is here, in words, or nothing.

    Where another user's process works may not be known; it counts, so that nothing is broken.
    """
    found = []
    for process in psutil.process_iter(["cmdline"]):
        # python /bin/snakemake …, python -m snakemake …
        words = (process.info["cmdline"] or [])[:4]
        if program not in {Path(word).stem for word in words}:
            continue
        try:
            if is_here(Path(process.cwd())):
                found.append(f"process {process.pid}")
        except psutil.AccessDenied:
            found.append(f"perhaps process {process.pid} of another user")
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return ", ".join(found)


def _repository_lock(project: Project, root: Path) -> Iterator[Finding]:
    from dvc.config import Config

    path = root / ".dvc/tmp/lock"
    if not path.exists():
        return
    if Config(str(root / ".dvc"))["core"].get("hardlink_lock", False):
        # For network file systems: here the file is the lock, outlives a killed DVC, and does not
        # say whose it is.
        if who := _working("dvc", lambda place: dvc_root(place) == root):
            yield _held(project, path, f"DVC works here: {who}; {_REFUSED}")
        else:
            message = "a DVC that was killed left its lock: no process of this machine works here"
            yield _left_over(project, path, message, _ELSEWHERE)
        return
    # What DVC locks with, but without writing a process number into the file: it stays as it is.
    # Only the file is ever left over, never the lock, which the system frees.
    try:
        zc.lockfile.SimpleLockFile(str(path)).close()
    except zc.lockfile.LockError:
        message = f"DVC works here: process {path.read_text().strip()}; {_REFUSED}"
        yield _held(project, path, message)


def _path_locks(project: Project, root: Path) -> Iterator[Finding]:
    """Locks of single paths, which DVC holds while a stage runs.

    Entries of processes that ended are dropped by DVC itself; it goes by the number alone, though,
    which may be another process's by now.
    """
    from dvc.rwlock import RWLOCK_FILE, SCHEMA
    from voluptuous import Invalid

    path = root / ".dvc/tmp" / RWLOCK_FILE
    try:
        written = path.stat().st_mtime
        lock = SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (json.JSONDecodeError, UnicodeDecodeError, Invalid):
        yield _left_over(project, path, "is damaged, so DVC runs no stage")
        return
    holders = [*lock["write"].values(), *(one for many in lock["read"].values() for one in many)]
    started = {holder["pid"]: _start(holder["pid"]) for holder in holders}
    if working := {h["pid"]: h["cmd"] for h in holders if 0 < started[h["pid"]] <= written + 1}:
        told = ", ".join(f"process {pid} ({cmd})" for pid, cmd in working.items())
        yield _held(project, path, f"DVC works here: {told}; {_REFUSED}")
    elif reused := [pid for pid, start in started.items() if start]:
        told = f"names process {reused[0]}, which is another one by now, so DVC waits for nobody"
        yield _left_over(project, path, told)


def _start(pid: int) -> float:
    """When a process started, in seconds since the epoch; 0 where there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _held(project: Project, path: Path, message: str) -> Finding:
    return warning(message, file=project.shown(path), advice="wait for it")


def _left_over(project: Project, path: Path, message: str, advice: str = "") -> Finding:
    shown = project.shown(path)
    command = f"rm {shlex.quote(shown)}"
    return problem(message, file=shown, command=command, advice=advice)
