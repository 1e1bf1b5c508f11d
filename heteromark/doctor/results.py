"""Checks of training results: results/ against the run records, and the run store."""

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

# The files of a run that the published model includes.
_PUBLISHED = (CHECKPOINT_FILE, CONFIG_FILE, EVALUATION_FILE, BEST_FILE)
_RUN_FOLDER = re.compile(r".*-(?P<config_digest>[0-9a-f]+)/seed_(?P<seed>\d+)$")


def results(project: Project) -> list[Finding]:
    """Compare the files of every run in results/ with its record."""
    patterns = [*(f"{RESULTS}/{name}/*/seed_*" for name in FOLDER_OF_MODE.values()), str(MODEL)]
    folders = [
        folder
        for pattern in patterns
        for folder in sorted(project.root.glob(pattern))
        if (folder / RECORD_FILE).is_file()
    ]
    findings = [finding for folder in folders for finding in _damage_in(project, folder)]
    return findings or [ok(f"{len(folders)} runs match their records")]


def store_location(project: Project) -> Iterator[Finding]:
    """Check that the run store can be written and has free disk space. Does not create it."""
    root = project.store.root
    existing = next(path for path in (root, *root.parents) if path.exists())
    try:
        if all((root / name).is_dir() for name in ("runs", "locks")):
            project.store.check_writable()
        elif not existing.is_dir():
            raise StoreError(f"{existing} is a file, so the run store {root} cannot be created")
        elif not os.access(existing, os.W_OK | os.X_OK):
            raise StoreError(f"the run store {root} cannot be created: {existing} is not writable")
    except StoreError as error:
        yield problem(
            str(error),
            key=STORE_VARIABLE if STORE_VARIABLE in os.environ else "",
            value=os.environ.get(STORE_VARIABLE),
            command=f"export {STORE_VARIABLE}=~/heteromark-store",
        )
        return
    free = shutil.disk_usage(existing).free
    space = f"{free / GIBIBYTE:.1f} GiB free"
    if free < project.least_free:
        yield warning(
            f"only {space}, less than {project.least_free / GIBIBYTE:.1f} GiB",
            file=str(root),
            command="heteromark store prune",
            advice="this lists the runs that can be deleted; add --yes to delete them",
        )
    else:
        yield ok(f"{root}, {space}")


def stored_runs(project: Project) -> list[Finding]:
    """Check that the finished runs of the store are intact; with `thorough`, their contents too."""
    findings, count = [], 0
    for run in project.stored_runs:
        if run.record is None:
            message = f"{RECORD_FILE} cannot be read"
        elif run.record.status.is_final:
            count += 1
            names = damaged_files(run.folder, run.record, contents=project.thorough)
            message = _describe_damage(run.folder, names)
        else:
            continue
        if message and not project.store.is_locked(run.digest):  # a locked run is being written
            aside = shlex.quote(str(project.store.root / "quarantine"))
            command = f"mkdir -p {aside} && mv {shlex.quote(str(run.folder))} {aside}/"
            advice = "the next command that needs this run trains it again"
            findings.append(problem(message, str(run.folder), command=command, advice=advice))
    how = "intact" if project.thorough else "with all their files; --thorough checks the contents"
    return findings or [ok(f"{count} finished runs, {how}")]


def unfinished_runs(project: Project) -> list[Finding]:
    """List interrupted runs that can be resumed."""
    return [
        note(
            f"was interrupted: {record.agent.short_name} seed {record.seed}, {record.mode}, on "
            f"{record.environment}; this command resumes it, unless code or configs have changed",
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
        message = "is not a run record" if record is None else _describe_damage(folder, names)
        file = folder / RECORD_FILE if record is None else folder
        command, advice = _fix(project, folder, record, names)
        yield problem(message, project.display_path(file), command=command, advice=advice)


def _describe_damage(folder: Path, names: list[str]) -> str:
    return "; ".join(
        f"{name} does not match {RECORD_FILE}"
        if (folder / name).is_file()
        else f"{name} is missing"
        for name in names
    )


def _fix(
    project: Project, folder: Path, record: RunRecord | None, names: list[str]
) -> tuple[str, str]:
    """Return the command and advice that restore files: from the store, from DVC, or by a rerun."""
    run = project.display_path(folder)
    files = [f"{run}/{name}" for name in names]
    if digest := _digest_in_store(project, folder, record):
        stored = [str(project.store.folder(digest) / name) for name in names]
        return shlex.join(["cp", *stored, f"{run}/"]), ""
    if is_in_dvc(project, [folder / name for name in names]):
        return f"rm -f {shlex.join(files)} && dvc checkout {shlex.join(files)}", ""
    if folder == project.root / MODEL:
        return f"rm {MODEL}/inputs-*.json && snakemake published", ""
    target = shlex.quote(f"{run}/{RECORD_FILE}")
    return (
        f"rm -r {shlex.quote(run)} && snakemake {target}",
        "neither the run store nor DVC has these files; this trains the run again if it is still "
        "part of the sweep",
    )


def _digest_in_store(project: Project, folder: Path, record: RunRecord | None) -> str | None:
    """Return the digest of the same run in the store, or None if it is missing or damaged.

    Without a record, config and seed are taken from the folder's name.
    """
    if record is not None:
        stored = project.store.lookup(record.digest)
        return record.digest if stored and stored.files == record.files else None
    match = _RUN_FOLDER.match(folder.as_posix())
    if match is None:
        return None
    wanted = match["config_digest"], int(match["seed"])
    for run in project.stored_runs:
        record = run.record
        is_same = record and (record.config_digest, record.seed) == wanted
        if is_same and project.store.lookup(run.digest):
            return run.digest
    return None


def _command_of(record: RunRecord) -> str:
    """Return the command that started a run, with the program's name instead of its path."""
    program, *arguments = record.command or ["heteromark"]
    if Path(program).stem == "factory_train":
        return shlex.join(["python", "-m", "heteromark.training.factory_train", *arguments])
    return shlex.join(["heteromark", *arguments])
