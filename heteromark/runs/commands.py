"""`heteromark store`: list, clean and check the run store."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any

import typer

from heteromark.runs.record import STUB, Status
from heteromark.runs.store import RunStore, StoredRun, StoreError

store_app = typer.Typer(
    help="The run store keeps runs outside the repository, so that no run is trained twice. "
    "Its folder is $HETEROMARK_STORE, by default in the user's cache directory.",
    no_args_is_help=True,
)


@store_app.command("ls")
def list_runs(
    status: Annotated[
        list[Status] | None, typer.Option(help="List only runs with this status. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the runs of the store, oldest first."""
    store = RunStore()
    runs = [run for run in store.runs() if not status or run.status in status]
    runs.sort(key=lambda run: (run.record.started if run.record else "", run.digest))
    if as_json:
        typer.echo(json.dumps([_described(run) for run in runs], indent=2))
        return
    for run in runs:
        typer.echo(_line(run))
    typer.echo(f"{len(runs)} runs, {_megabytes(runs)} in {store.root}")


@store_app.command("rm")
def remove_runs(
    digests: Annotated[list[str], typer.Argument(metavar="DIGEST...", help="See `store ls`.")],
) -> None:
    """Delete single runs, whatever their status. Copies in results/ and in DVC's cache are kept."""
    store = RunStore()
    for digest in digests:
        typer.echo(f"deleted: {_line(store.remove(digest))}")


@store_app.command()
def prune(
    status: Annotated[
        list[Status] | None,
        typer.Option(
            help="Delete runs with this status. Repeatable. Default: failed and interrupted runs "
            "without a checkpoint to resume from."
        ),
    ] = None,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", help="Only runs last modified this long ago.", min=0)
    ] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the runs instead of listing them.")] = (
        False
    ),
) -> None:
    """Delete runs from the store. Copies in results/ and in DVC's cache are kept."""
    store = RunStore()
    wanted, age = set(status) if status else None, timedelta(days=older_than)
    runs, kept = [], []
    for run in store.prunable(wanted, age):
        try:
            if yes and not store.prune(run, wanted, age):
                kept.append(f"run {run.digest} has changed meanwhile, so it was not removed")
                continue
        except StoreError as error:
            kept.append(str(error))
            continue
        runs.append(run)
        typer.echo(_line(run))
    for reason in kept:
        typer.echo(f"kept: {reason}")
    aside = store.quarantined()
    if aside:
        typer.echo(
            f"{len(aside)} damaged folders are in {store.root / 'quarantine'}; inspect them, then "
            "delete them by hand"
        )
    done = "deleted" if yes else "would be deleted; add --yes to delete them"
    typer.echo(f"{len(runs)} runs, {_megabytes(runs)}, {done}")


@store_app.command()
def verify() -> None:
    """Compare the files of every finished run with the hashes in its record."""
    store = RunStore()
    damaged = store.verify()
    for digest, names in damaged.items():
        typer.echo(f"{digest}: damaged or missing: {', '.join(names)}")
    if damaged:
        typer.echo(
            f"{len(damaged)} damaged runs. The next `heteromark train` or `snakemake` that needs "
            "such a run moves it to quarantine and trains it again"
        )
        raise typer.Exit(1)
    typer.echo(f"{len(store.runs())} runs, all intact, in {store.root}")


def _described(run: StoredRun) -> dict[str, Any]:
    return {
        "digest": run.digest,
        "status": run.status,
        "folder": str(run.folder),
        "bytes": run.size,
        "is_resumable": run.is_resumable,
        "record": None if run.record is None else run.record.model_dump(mode="json"),
    }


def _line(run: StoredRun) -> str:
    if run.record is None:
        return f"{run.digest}  unreadable record  {run.folder}"
    record = run.record
    returned = record.summary.evaluation_return
    invented = "  invented by the stub trainer" if record.trainer == STUB else ""
    return (
        f"{run.digest}  {run.status:<11}  {record.mode:<5}  {record.agent.short_name}  "
        f"seed {record.seed}  {record.environment}  "
        f"return {'-' if returned is None else f'{returned:.2f}'}  {record.started}{invented}"
    )


def _megabytes(runs: list[StoredRun]) -> str:
    return f"{sum(run.size for run in runs) / 2**20:.1f} MiB"
