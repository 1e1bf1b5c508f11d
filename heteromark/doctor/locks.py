"""Checks of locks: held by a running process, or left behind by one that was killed."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import zc.lockfile

from heteromark.doctor.finding import Finding, Project, problem, warning
from heteromark.doctor.repository import dvc_root

_REFUSED = "until it ends, commands like `dvc status` may fail"
_ELSEWHERE = "if other machines share this folder, first make sure that none is using it"


def snakemake_lock(project: Project) -> Iterator[Finding]:
    """Check for a lock left behind by a killed Snakemake.

    The lock is a list of files and names no process. Snakemake works in the folder that it locks.
    The check therefore searches all processes for a Snakemake with this working directory.
    """
    locks = sorted((project.root / ".snakemake/locks").glob("*.lock"))
    if not locks:
        return
    folder = locks[0].parent
    here = project.root.resolve()
    if processes := _running("snakemake", lambda folder: folder == here):
        message = f"Snakemake is running here ({processes}); until it ends, no other can start"
        yield _held(project, folder, message)
    elif any(lock.exists() for lock in locks):  # otherwise Snakemake has just ended
        yield problem(
            "a killed Snakemake left its lock: no Snakemake on this machine is running here",
            file=project.display_path(folder),
            command="snakemake --unlock",
            advice=_ELSEWHERE,
        )


def dvc_lock(project: Project) -> Iterator[Finding]:
    """Check whether DVC locks the repository or a path, or a killed DVC left a lock behind."""
    if root := dvc_root(project.root):
        yield from _repository_lock(project, root)
        yield from _path_locks(project, root)


def _running(program: str, is_here: Callable[[Path], bool]) -> str:
    """Return the processes that run `program` in a folder, e.g. `process 7`; "" if there are none.

    The working directory of another user's process may be unreadable. Such a process is included,
    so that no lock in use is removed.
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
            found.append(f"possibly process {process.pid} of another user")
        except psutil.NoSuchProcess:  # the process has just ended
            continue
    return ", ".join(found)


def _repository_lock(project: Project, root: Path) -> Iterator[Finding]:
    from dvc.config import Config

    path = root / ".dvc/tmp/lock"
    if not path.exists():
        return
    if Config(str(root / ".dvc"))["core"].get("hardlink_lock", False):
        # On network file systems, the file itself is the lock. It remains after DVC is killed and
        # does not name its owner.
        if processes := _running("dvc", lambda folder: dvc_root(folder) == root):
            yield _held(project, path, f"DVC is running here ({processes}); {_REFUSED}")
        else:
            message = "a killed DVC left its lock: no DVC on this machine is running here"
            yield _left_over(project, path, message, _ELSEWHERE)
        return
    # Try DVC's own kind of lock, but without writing a process number into the file. When DVC is
    # killed, only the file remains: the operating system releases the lock.
    try:
        zc.lockfile.SimpleLockFile(str(path)).close()
    except zc.lockfile.LockError:
        message = f"DVC is running here (process {path.read_text().strip()}); {_REFUSED}"
        yield _held(project, path, message)


def _path_locks(project: Project, root: Path) -> Iterator[Finding]:
    """Check the locks of single paths, which DVC holds while a stage runs.

    DVC removes entries of processes that ended. But it only compares process numbers, and a number
    may have been reused by another process.
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
        yield _left_over(project, path, "is damaged, so DVC cannot run any stage")
        return
    holders = [*lock["write"].values(), *itertools.chain(*lock["read"].values())]
    started = {holder["pid"]: _start(holder["pid"]) for holder in holders}
    if working := {h["pid"]: h["cmd"] for h in holders if 0 < started[h["pid"]] <= written + 1}:
        processes = ", ".join(f"process {pid} ({cmd})" for pid, cmd in working.items())
        yield _held(project, path, f"DVC is running here: {processes}; {_REFUSED}")
    elif reused := [pid for pid, start in started.items() if start]:
        message = f"names process {reused[0]}, which is another program now, so DVC waits forever"
        yield _left_over(project, path, message)


def _start(pid: int) -> float:
    """Return when a process started, in seconds since the epoch; 0 if it does not exist."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _held(project: Project, path: Path, message: str) -> Finding:
    return warning(message, file=project.display_path(path), advice="wait until it ends")


def _left_over(project: Project, path: Path, message: str, advice: str = "") -> Finding:
    file = project.display_path(path)
    return problem(message, file=file, command=f"rm {shlex.quote(file)}", advice=advice)
