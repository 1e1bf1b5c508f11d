"""Write the outputs of the workflow's steps: results/tables, results/selected and results/model.

Each folder holds `inputs-{digest}.json`, which is written last and deleted first. The digest
identifies the inputs of the folder, so Snakemake recognises an outdated folder by a missing path.
This also works after `dvc pull`, `dvc checkout` and in a fresh clone, where modification times are
meaningless.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heteromark.config.files import to_yaml
from heteromark.config.models.agent import AgentConfig
from heteromark.runs.files import copy_atomic, write_text_atomic
from heteromark.runs.record import (
    BEST_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    EVALUATION_FILE,
    RECORD_FILE,
    RunRecord,
    Status,
)
from heteromark.workflow.aggregate import aggregate, read_tables, write_tables
from heteromark.workflow.bracket import draw_bracket
from heteromark.workflow.errors import WorkflowError
from heteromark.workflow.overview import write_overview
from heteromark.workflow.picture import draw_dag
from heteromark.workflow.plan import Candidate, Plan, runs_of, stamp_name
from heteromark.workflow.plots import (
    draw_learning_curves,
    draw_long_run,
    draw_selection,
    save_figure,
)
from heteromark.workflow.rank_check import RANK_CHECK_FILE, rank_check
from heteromark.workflow.select import BRACKET_FILE, SELECTION_FILE, Selection, select

AGENT_FILE = "agent.yaml"
CURVES_FILE = "learning_curves.svg"
OVERVIEW_FILE = "overview.html"


def write_decision(plan: Plan, rung: int, path: Path) -> str:
    """Rank the configs of a rung and write the decision; return a summary of it.

    Raises:
        NoWinner: every candidate was left out.
    """
    candidates = plan.entrants(rung)
    select(aggregate(candidates), candidates, plan.params.selection).write(path)
    for other in Path(path).parent.glob(f"rung_{rung}-*.json"):
        if other != Path(path):
            other.unlink()
    advancing = plan.entrants(rung + 1)
    return (
        f"after {candidates[0].frames:,} frames, {len(advancing)} of {len(candidates)} configs "
        f"advance: {', '.join(candidate.label for candidate in advancing)}"
    )


def write_aggregate(plan: Plan, folder: Path) -> None:
    """Write the tables, metrics.json and learning curves of the smoke runs."""
    tables = aggregate(plan.trained())
    with _stamped(folder, plan.tables_digest, plan.smoke_inputs):
        write_tables(tables, folder)
        save_figure(draw_learning_curves(tables), Path(folder) / CURVES_FILE)


def write_selection(plan: Plan, tables_folder: Path, folder: Path) -> str:
    """Select the winner and write its agent config; return the winner and the reason.

    Raises:
        NoWinner: every candidate was left out.
    """
    selection = select(read_tables(tables_folder), plan.trained(), plan.params.selection)
    settings = plan.params.selection.model_dump(mode="json")
    inputs = {"tables": plan.tables_digest, "selection": settings}
    with _stamped(folder, plan.selection_digest, inputs):
        selection.write(Path(folder) / SELECTION_FILE)
        if plan.decisions:
            rungs = [*map(Selection.read, plan.decisions.values()), selection]
            save_figure(draw_bracket(rungs), Path(folder) / BRACKET_FILE)
        else:
            (Path(folder) / BRACKET_FILE).unlink(missing_ok=True)
        winner = plan.selected(Path(folder) / SELECTION_FILE)
        write_text_atomic(Path(folder) / AGENT_FILE, _agent_yaml(winner.agent, selection))
        save_figure(draw_selection(selection), Path(folder) / "selection.svg")
    return f"{selection.winner.name}: {selection.winner.why}"


def write_model(plan: Plan, tables_folder: Path, selected_folder: Path, folder: Path) -> str:
    """Publish the best long run of the winner; return the result of the rank check.

    Raises:
        WorkflowError: no long run completed.
    """
    selection = Selection.read(Path(selected_folder) / SELECTION_FILE)
    candidate = plan.selected(Path(selected_folder) / SELECTION_FILE).full
    seed, record = _best_run(candidate)
    long, smoke = aggregate([candidate]), read_tables(tables_folder)
    check = rank_check(selection, long)

    folder = Path(folder)
    with _stamped(folder, plan.publication_digest, {"full": runs_of([candidate])}):
        publish_run(candidate.folders[seed], folder)
        copy_atomic(Path(selected_folder) / AGENT_FILE, folder / AGENT_FILE)
        long.runs.to_csv(folder / "long_runs.csv", index=False, lineterminator="\n")
        save_figure(draw_long_run(selection, smoke, long), folder / "long_run.svg")
        draw_dag(plan, folder / "dag.svg", winner=candidate.label)
        check.write(folder / RANK_CHECK_FILE)
        evaluation = json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
        metrics = {
            "config": candidate.label,
            "seed": seed,
            "evaluation_return": evaluation["return_mean"],
            "evaluation_std": evaluation["return_std"],
            # Left out if the environment reports no wins: DVC drops null metrics.
            **({} if evaluation["win_rate"] is None else {"win_rate": evaluation["win_rate"]}),
            "episodes": evaluation["episodes"],
            "frames": record.summary.frames,
            "final_return": record.summary.final_return,
            "smoke_score": selection.winner.score,
            "rank_check": check.verdict,
        }
        _write_json(folder / "metrics.json", metrics)
        pictures = [
            ("Return of the training episodes, by config", Path(tables_folder) / CURVES_FILE),
            ("Configs that advanced after each rung", Path(selected_folder) / BRACKET_FILE),
            ("Scores with intervals, and every seed", Path(selected_folder) / "selection.svg"),
            ("The long run, with the end of the short runs", folder / "long_run.svg"),
        ]
        existing = [(caption, path) for caption, path in pictures if path.exists()]
        write_overview(plan, smoke, selection, long, check, existing, folder / OVERVIEW_FILE)
    return check.why


def publish_run(run: Path, folder: Path) -> None:
    """Copy the files of a run that users of the policy need.

    The model has the final weights, to which evaluation.json refers. If the run was evaluated
    during training, its best weights are copied too, for `heteromark evaluate --checkpoint best`.
    Otherwise the best weights of an earlier model are deleted.
    """
    for name in (CHECKPOINT_FILE, CONFIG_FILE, EVALUATION_FILE, RECORD_FILE):
        copy_atomic(run / name, folder / name)
    if (run / BEST_FILE).is_file():
        copy_atomic(run / BEST_FILE, folder / BEST_FILE)
    else:
        (folder / BEST_FILE).unlink(missing_ok=True)


def _best_run(candidate: Candidate) -> tuple[int, RunRecord]:
    """Return seed and record of the completed run with the best evaluation; first on ties."""
    records = {seed: RunRecord.read(folder) for seed, folder in candidate.folders.items()}
    returns = {
        seed: value
        for seed, record in records.items()
        if record.status is Status.COMPLETED
        and (value := record.summary.evaluation_return) is not None
    }
    if not returns:
        statuses = "; ".join(
            f"seed {seed} {record.status}{f', {record.reason}' if record.reason else ''}"
            for seed, record in records.items()
        )
        raise WorkflowError(
            f"no long run of {candidate.label} completed ({statuses}), so there is no model to "
            "publish. Lower its learning_rate, add full.seeds, or change the selection settings"
        )
    best = max(returns, key=returns.__getitem__)
    return best, records[best]


def _agent_yaml(agent: AgentConfig, selection: Selection) -> str:
    """Return the winner as a self-contained agent config, with all layers applied."""
    head = (
        "# The winner of the sweep, written by the workflow, with all layers applied.\n"
        f"# From {selection.winner.config_path}: {selection.winner.why}\n"
    )
    return head + to_yaml({"resolved": True, **agent.model_dump(mode="json")})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text_atomic(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def _stamped(folder: Path, digest: str, inputs: dict[str, Any]) -> Iterator[None]:
    """Delete the stamps of earlier contents before the block writes, and stamp the new one after.

    So no stamp ever vouches for files of other inputs, whenever the process is killed.
    """
    for earlier in Path(folder).glob(stamp_name("*")):
        earlier.unlink()
    yield
    _write_json(Path(folder) / stamp_name(digest), inputs)
