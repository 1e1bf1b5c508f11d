"""`heteromark workflow …`: the commands that the Snakefile's rules run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from heteromark.config.compose.composition import parse_overrides
from heteromark.config.errors import ConfigError
from heteromark.config.nested import flatten
from heteromark.runs.files import write_text_atomic
from heteromark.runs.store import RunStore
from heteromark.workflow.errors import WorkflowError
from heteromark.workflow.plan import Plan, make_plan, unnoticed_files

workflow_app = typer.Typer(help="The steps that the Snakefile's rules run.", no_args_is_help=True)

ExpectOption = Annotated[
    str, typer.Option(help="Digest of the step's inputs, as planned by the Snakefile.")
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="KEY=VALUE", help="Overrides params.yaml. Repeatable."),
]


@workflow_app.command()
def plan(folder: Path) -> None:
    """Check all configs and write the inputs of each stage of dvc.yaml, for DVC to depend on."""
    planned = _plan(None)
    if faults := unnoticed_files(planned):
        raise ConfigError(faults)
    for stage, inputs in planned.stage_inputs.items():
        write_text_atomic(folder / f"{stage}.json", json.dumps(inputs, indent=2) + "\n")


@workflow_app.command()
def restore() -> None:
    """Copy the smoke runs that the run store has into results/, all in one process.

    Snakemake would start a process for each of them. With halving: the runs of the first rung.
    """
    store, copied, planned = RunStore(), 0, _plan(None).entrants(1)
    stored = {(run.config_digest, run.seed): run.digest for run in store.finished()}
    for candidate in planned:
        for seed, folder in candidate.folders.items():
            digest = stored.get((candidate.config_digest, seed))
            if digest is not None and store.lookup(digest) is not None:
                store.materialise(digest, folder)
                copied += 1
    total = sum(len(candidate.folders) for candidate in planned)
    typer.echo(f"{copied} of {total} smoke runs were in the run store, and are in results/ now")


@workflow_app.command()
def cohort(folders: list[Path], param: ParamOption = None) -> None:
    """Train the runs of these folders in one process, and leave them in the run store."""
    from heteromark.commands.cohort import CohortMember, train_cohort
    from heteromark.commands.request import TrainRequest, resolve_request

    plan, entrants, given = _plan(param), [], tuple(param or ())
    for folder in folders:
        try:
            candidate, seed = plan.run_in(folder)
        except LookupError as error:
            raise WorkflowError(
                f"params.yaml, a config or the code changed while the workflow ran: {error}. Run "
                "snakemake again"
            ) from None
        path, frames = candidate.config_path, candidate.frames
        request = TrainRequest(Path(path), seed=seed, total_frames=frames, param_assignments=given)
        command = (
            *(sys.argv[0], "train", "--agent-config", path, "--mode", "smoke"),
            *("--seed", str(seed), "--total-timesteps", str(frames)),
            *("--output", folder.as_posix(), *(f"--param={each}" for each in given)),
        )
        entrants.append(CohortMember(resolve_request(request)[0], path, command))
    typer.echo(train_cohort(entrants, RunStore()))


@workflow_app.command()
def rung(expect: ExpectOption, number: int, output: Path, param: ParamOption = None) -> None:
    """Runs of a rung → the configs that advance (sweep.strategy: halving)."""
    from heteromark.workflow.publish import write_decision

    plan = _checked(expect, param, lambda plan: plan.rung_digest(number))
    typer.echo(write_decision(plan, number, output))


@workflow_app.command()
def aggregate(expect: ExpectOption, folder: Path, param: ParamOption = None) -> None:
    """Smoke runs → tables, learning curves and metrics."""
    from heteromark.workflow.publish import write_aggregate

    plan = _checked(expect, param, lambda plan: plan.tables_digest)
    write_aggregate(plan, folder)


@workflow_app.command()
def select(expect: ExpectOption, tables: Path, folder: Path, param: ParamOption = None) -> None:
    """Tables → the winner and the reason."""
    from heteromark.workflow.publish import write_selection

    plan = _checked(expect, param, lambda plan: plan.selection_digest)
    typer.echo(write_selection(plan, tables, folder))


@workflow_app.command()
def publish(
    expect: ExpectOption, tables: Path, selected: Path, folder: Path, param: ParamOption = None
) -> None:
    """Long runs of the winner → the published model."""
    from heteromark.workflow.publish import write_model

    plan = _checked(expect, param, lambda plan: plan.publication_digest)
    typer.echo(write_model(plan, tables, selected, folder))


@workflow_app.command()
def picture(output: Path) -> None:
    """Draw the DAG with its job counts."""
    from heteromark.workflow.picture import draw_dag

    draw_dag(_plan(None), output)


def _plan(param: list[str] | None) -> Plan:
    overrides = parse_overrides(param or [], "--param")
    return make_plan(overrides=overrides, typed=dict.fromkeys(flatten(overrides), "--param"))


def _checked(expected: str, param: list[str] | None, digest_of: Callable[[Plan], str]) -> Plan:
    plan = _plan(param)
    digest = digest_of(plan)
    if digest != expected:
        raise WorkflowError(
            f"params.yaml, a config or the code changed while the workflow ran: this step was "
            f"planned with digest {expected}, and the digest is now {digest}. Run snakemake again"
        )
    return plan
