"""A finished synthetic sweep: synthetic runs, and the workflow's files for them."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from made_history import FIRST_START, RunSpec, agent, make_run, run_config

from heteromark.config.models.params import SelectionParams
from heteromark.runs.digest import config_digest
from heteromark.runs.record import Status
from heteromark.runs.store import RunStore
from heteromark.workflow.aggregate import aggregate, write_tables
from heteromark.workflow.bracket import draw_bracket
from heteromark.workflow.plan import Candidate
from heteromark.workflow.plots import save_figure
from heteromark.workflow.rank_check import RANK_CHECK_FILE, rank_check
from heteromark.workflow.select import BRACKET_FILE, SELECTION_FILE, select

# Learning speed of each candidate. The last one diverges in two of its seeds.
SPEEDS = {
    "happo_agent_sweep_gamma_high": 1.6,
    "happo_agent_v1": 1.2,
    "happo_agent_sweep_lr_low": 0.6,
    "happo_agent_sweep_lr_high": 0.9,
}
DIVERGING = "happo_agent_sweep_lr_high"
SEEDS = range(3)


def make_sweep(
    store: RunStore, results: Path, environment: str = "skirmish", halving: bool = False
) -> None:
    """Write the smoke runs, a long run of the winner, tables, selection and rank check.

    With `halving`, also draw a bracket with one rung.
    """
    smokes = [_candidate(store, results, file, "smoke", SEEDS, environment) for file in SPEEDS]
    tables = aggregate(smokes)
    write_tables(tables, results / "tables")
    selection = select(tables, smokes, SelectionParams())
    selection.write(results / "selected" / SELECTION_FILE)
    if halving:
        save_figure(draw_bracket([selection]), results / "selected" / BRACKET_FILE)
    file = next(file for file in SPEEDS if agent(file).short_name == selection.winner.name)
    long = _candidate(store, results, file, "full", [0], environment)
    rank_check(selection, aggregate([long])).write(results / "model" / RANK_CHECK_FILE)


def _candidate(
    store: RunStore, results: Path, file: str, mode: str, seeds, environment: str
) -> Candidate:
    agent_config = agent(file)
    folders = {}
    for seed in seeds:
        config = run_config(agent_config, environment, mode, seed)
        diverges = file == DIVERGING and seed > 0
        spec = RunSpec(
            config,
            started=FIRST_START + timedelta(minutes=len(SPEEDS) * seed + list(SPEEDS).index(file)),
            speed=SPEEDS[file],
            **({"status": Status.DIVERGED, "reason": "the loss is NaN"} if diverges else {}),
        )
        stored = make_run(store, spec)
        name = f"{agent_config.short_name}-{config_digest(config)}"
        folders[seed] = results / ("smoke" if mode == "smoke" else "train") / name / f"seed_{seed}"
        shutil.copytree(stored, folders[seed])
    return Candidate(
        names=(agent_config.short_name,),
        config_digest=config_digest(config),
        config_path=f"config/agents/{file}.yaml",
        agent_id=agent_config.agent_id,
        environment=environment,
        hyperparameters=agent_config.hyperparameters(),
        frames=config.training.total_frames,
        folders=folders,
    )
