"""`heteromark store`: look at, clean and check the run store."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from heteromark.runs.record import Status
from heteromark.runs.store import RunStore, StoredRun

store_app = typer.Typer(
    help="The run store: where runs live, outside the repository, so that none is trained twice. "
    "Its folder is $HETEROMARK_STORE, by default in the user's cache directory.",
    no_args_is_help=True,
)


@store_app.command("ls")
def list_runs(
    status: Annotated[
        list[Status] | None, typer.Option(help="Only runs with this status; may be repeated.")
    ] = None,
) -> None:
    """List the runs of the store."""
    store = RunStore()
    runs = [run for run in store.runs() if not status or run.status in status]
    for run in runs:
        typer.echo(_line(run))
    typer.echo(f"{len(runs)} runs, {_megabytes(runs)} in {store.root}")


@store_app.command()
def prune(
    status: Annotated[
        list[Status] | None,
        typer.Option(
            help="Which runs; may be repeated. Default: failed and interrupted ones that have no "
            "checkpoint to resume from."
        ),
    ] = None,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", help="Only runs last touched that long ago.", min=0)
    ] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Delete, rather than only list.")] = False,
) -> None:
    """Delete runs from the store; results/ and DVC's cache keep their copies."""
    store = RunStore()
    runs = store.prunable(set(status) if status else None, timedelta(days=older_than))
    for run in runs:
        if yes:
            store.remove(run.digest)
        typer.echo(_line(run))
    aside = store.quarantined()
    if aside:
        typer.echo(
            f"{len(aside)} folders were set aside in {store.root / 'quarantine'}: look, delete"
        )
    done = "deleted" if yes else "would be deleted; add --yes to delete them"
    typer.echo(f"{len(runs)} runs, {_megabytes(runs)}, {done}")


@store_app.command()
def verify() -> None:
    """Compare every finished run's files with the hashes in its record."""
    store = RunStore()
    damaged = store.verify()
    for digest, names in damaged.items():
        typer.echo(f"{digest}: damaged or missing: {', '.join(names)}")
    if damaged:
        typer.echo(
            f"{len(damaged)} damaged runs. The next `heteromark train` or `snakemake` that needs "
            "one moves it to quarantine and trains it anew"
        )
        raise typer.Exit(1)
    typer.echo(f"{len(store.runs())} runs, all whole, in {store.root}")


def _line(run: StoredRun) -> str:
    if run.record is None:
        return f"{run.digest}  unreadable record  {run.folder}"
    record = run.record
    returned = record.summary.evaluation_return
    return (
        f"{run.digest}  {run.status:<11}  {record.mode:<5}  {record.agent.short_name}  "
        f"seed {record.seed}  {record.environment}  "
        f"return {'-' if returned is None else f'{returned:.2f}'}  {record.started}"
    )


def _megabytes(runs: list[StoredRun]) -> str:
    return f"{sum(run.size for run in runs) / 2**20:.1f} MiB"
