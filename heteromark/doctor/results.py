"""Checks of what was trained: results against their records, and the run store."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from heteromark.doctor.finding import GIBIBYTE, Finding, Project, note, ok, problem, warning
from heteromark.doctor.repository import is_in_dvc
from heteromark.runs.record import (
    BEST_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    EVALUATION_FILE,
    FOLDER_OF_MODE,
    RECORD_FILE,
    RESULTS,
    RunRecord,
    Status,
)
from heteromark.runs.store import STORE_VARIABLE, StoreError, damaged_files

MODEL = RESULTS / "model"

# Of a run's files, the model has only these.
_PUBLISHED = (CHECKPOINT_FILE, CONFIG_FILE, EVALUATION_FILE, BEST_FILE)
_RUN_FOLDER = re.compile(r".*-(?P<config_digest>[0-9a-f]+)/seed_(?P<seed>\d+)$")


def results(project: Project) -> list[Finding]:
    """Are the files of every run below results/ what its record says?"""
    patterns = [*(f"{RESULTS}/{name}/*/seed_*" for name in FOLDER_OF_MODE.values()), str(MODEL)]
    folders = [
        folder
        for pattern in patterns
        for folder in sorted(project.root.glob(pattern))
        if (folder / RECORD_FILE).is_file()
    ]
    findings = [finding for folder in folders for finding in _damage_in(project, folder)]
    return findings or [ok(f"{len(folders)} runs are what their records say")]


def store_place(project: Project) -> Iterator[Finding]:
    """Can the run store be written, and has its disk room? It is not made where it is missing."""
    root = project.store.root
    place = next(path for path in (root, *root.parents) if path.exists())
    try:
        if all((root / name).is_dir() for name in ("runs", "locks")):
            project.store.check_writable()
        elif not place.is_dir():
            raise StoreError(f"{place} is a file, so the run store {root} cannot be made")
        elif not os.access(place, os.W_OK | os.X_OK):
            raise StoreError(f"the run store {root} cannot be made: {place} cannot be written")
    except StoreError as error:
        yield problem(
            str(error),
            key=STORE_VARIABLE if STORE_VARIABLE in os.environ else "",
            value=os.environ.get(STORE_VARIABLE),
            command=f"export {STORE_VARIABLE}=~/heteromark-store",
        )
        return
    free = shutil.disk_usage(place).free
    told = f"{free / GIBIBYTE:.1f} GiB free"
    if free < project.least_free:
        yield warning(
            f"only {told}, less than {project.least_free / GIBIBYTE:.1f}",
            file=str(root),
            command="heteromark store prune",
            advice="it lists what nothing needs any more; --yes deletes that",
        )
    else:
        yield ok(f"{root}, {told}")


def stored_runs(project: Project) -> list[Finding]:
    """Are the finished runs of the store whole? Their contents count if `thorough`."""
    findings, count = [], 0
    for run in project.stored_runs:
        if run.record is None:
            message = f"{RECORD_FILE} cannot be read"
        elif run.record.status.is_final:
            count += 1
            names = damaged_files(run.folder, run.record, contents=project.thorough)
            message = _told(run.folder, names)
        else:
            continue
        if message and not project.store.is_locked(run.digest):  # else it is being written now
            aside = shlex.quote(str(project.store.root / "quarantine"))
            command = f"mkdir -p {aside} && mv {shlex.quote(str(run.folder))} {aside}/"
            advice = "the next command that needs this run trains it anew"
            findings.append(problem(message, str(run.folder), command=command, advice=advice))
    how = "whole" if project.thorough else "with all their files; --thorough compares the contents"
    return findings or [ok(f"{count} finished runs, {how}")]


def unfinished_runs(project: Project) -> list[Finding]:
    """Runs that were interrupted and can go on."""
    return [
        note(
            f"was interrupted: {record.agent.short_name} seed {record.seed}, {record.mode}, on "
            f"{record.environment}; its command resumes it, unless code or configs have changed",
            file=str(run.folder),
            command=_command_of(record),
        )
        for run in project.stored_runs
        if run.status is Status.INTERRUPTED and run.is_resumable and (record := run.record)
    ]


def _damage_in(project: Project, folder: Path) -> Iterator[Finding]:
    record: RunRecord | None = None
    try:
        record = RunRecord.read(folder)
        names = damaged_files(folder, record)
    except ValueError:
        names = [RECORD_FILE]
    if folder == project.root / MODEL:
        names = [name for name in names if name in (*_PUBLISHED, RECORD_FILE)]
    if names:
        message = "is no run record" if record is None else _told(folder, names)
        file = folder / RECORD_FILE if record is None else folder
        command, advice = _mend(project, folder, record, names)
        yield problem(message, project.shown(file), command=command, advice=advice)


def _told(folder: Path, names: list[str]) -> str:
    return "; ".join(
        f"{name} is not what {RECORD_FILE} says"
        if (folder / name).is_file()
        else f"{name} is missing"
        for name in names
    )


def _mend(
    project: Project, folder: Path, record: RunRecord | None, names: list[str]
) -> tuple[str, str]:
    """Command and advice that bring the files back: from the store, from DVC, or made anew."""
    shown = project.shown(folder)
    files = [f"{shown}/{name}" for name in names]
    if digest := _digest_in_store(project, folder, record):
        stored = [str(project.store.folder(digest) / name) for name in names]
        return shlex.join(["cp", *stored, f"{shown}/"]), ""
    if is_in_dvc(project, [folder / name for name in names]):
        return f"rm -f {shlex.join(files)} && dvc checkout {shlex.join(files)}", ""
    if folder == project.root / MODEL:
        return f"rm {MODEL}/inputs-*.json && snakemake published", ""
    target = shlex.quote(f"{shown}/{RECORD_FILE}")
    return (
        f"rm -r {shlex.quote(shown)} && snakemake {target}",
        "neither the run store nor DVC has these files: the run is trained anew, if it still is "
        "part of the sweep",
    )


def _digest_in_store(project: Project, folder: Path, record: RunRecord | None) -> str | None:
    """Digest of the same run in the store, where it is whole.

    Without a record, the folder's name says which config and seed it was.
    """
    if record is not None:
        stored = project.store.lookup(record.digest)
        return record.digest if stored and stored.files == record.files else None
    named = _RUN_FOLDER.match(folder.as_posix())
    if named is None:
        return None
    wanted = named["config_digest"], int(named["seed"])
    for run in project.stored_runs:
        record = run.record
        is_same = record and (record.config_digest, record.seed) == wanted
        if is_same and project.store.lookup(run.digest):
            return run.digest
    return None


def _command_of(record: RunRecord) -> str:
    """The command that started a run; its first word is recorded as the path of a program."""
    program, *arguments = record.command or ["heteromark"]
    if Path(program).stem == "factory_train":
        return shlex.join(["python", "-m", "heteromark.training.factory_train", *arguments])
    return shlex.join(["heteromark", *arguments])
