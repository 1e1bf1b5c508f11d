"""Successive halving: rungs, decisions, trained runs and the selection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from projects import TINY, Project, copy_project
from workflow.run_folders import write_run

from heteromark.config.errors import ConfigError
from heteromark.config.models.params import ProjectParams
from heteromark.runs.record import Status
from heteromark.runs.store import RunStore
from heteromark.workflow.plan import make_plan
from heteromark.workflow.publish import write_aggregate, write_decision, write_selection
from heteromark.workflow.select import NoWinner, Selection

HALVING = {"strategy": "halving", "halving": {"eta": 2, "min_frames": 200, "max_frames": None}}
SMOKE = {"total_frames": 1000, "seeds": [0, 1], "eval_episodes": 2}


def params(eta=3, min_frames=1000, max_frames=None, total_frames=40_000):
    halving = {"eta": eta, "min_frames": min_frames, "max_frames": max_frames}
    return ProjectParams.model_validate(
        {
            "sweep": {"strategy": "halving", "halving": halving},
            "smoke": {"total_frames": total_frames, "seeds": [0, 1], "eval_episodes": 1},
        }
    )


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [
        ({}, [1481, 4444, 13_333, 40_000]),
        ({"min_frames": 1482}, [4444, 13_333, 40_000]),
        ({"eta": 2, "min_frames": 10_000}, [10_000, 20_000, 40_000]),
        ({"max_frames": 9000}, [1000, 3000, 9000]),
    ],
)
def test_rungs_end_at_the_longest_run(settings, rungs):
    assert params(**settings).rungs == rungs


def test_a_grid_is_one_rung():
    assert ProjectParams().rungs == [ProjectParams().smoke.total_frames]


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Project:
    """A project with three rungs for four configs. Nothing is trained."""
    project = copy_project(tmp_path / "project")
    project.set_params(**TINY)
    project.set_params(sweep=HALVING, smoke=SMOKE)
    monkeypatch.chdir(project.folder)
    return project


def finish(candidates, returns):
    """Write the runs of a rung with these evaluation returns, per config and seed."""
    for candidate, values in zip(candidates, returns, strict=True):
        for seed, value in enumerate(values):
            status = Status.DIVERGED if value is None else Status.COMPLETED
            write_run(candidate, seed, value, status=status)


def names(candidates):
    return [candidate.name.removeprefix("happo_agent_") for candidate in candidates]


ALL = ["gamma_high", "lr_high", "lr_low", "v1"]


def test_rungs_are_whole_iterations_and_the_last_is_the_whole_smoke(sweep):
    for config in make_plan().configs:  # an iteration has 64 frames
        assert [candidate.frames for candidate in config.rungs] == [256, 512, 1024]
        assert len({candidate.config_digest for candidate in config.rungs}) == 3


def test_a_grid_after_halving_deletes_the_bracket(sweep):
    plan = make_plan(overrides={"sweep": {"strategy": "grid"}})
    finish(plan.trained(), [(1, 1), (2, 2), (3, 3), (4, 4)])
    stale = Path("results/selected/bracket.svg")
    stale.parent.mkdir(parents=True)
    stale.write_text("of an earlier halving")
    write_aggregate(plan, Path("results/tables"))
    write_selection(plan, Path("results/tables"), stale.parent)
    assert not stale.exists()


def test_rungs_of_equal_length_are_an_error(sweep):
    with pytest.raises(
        ConfigError, match=r"rungs of 1, 1, 2 and 4 iterations of 64 frames"
    ) as caught:
        make_plan(
            overrides={"smoke": {"total_frames": 240}, "sweep": {"halving": {"min_frames": 30}}}
        )
    assert "sweep.halving.min_frames = 30" in str(caught.value)


def test_a_single_rung_is_an_error(sweep):
    with pytest.raises(ConfigError, match=r"only one rung; .* at most 1,000 / eta = 500") as caught:
        make_plan(overrides={"sweep": {"halving": {"min_frames": 501}}})
    assert "--config: sweep.halving.min_frames = 501" in str(caught.value)
    two = make_plan(overrides={"sweep": {"halving": {"min_frames": 500}}})
    assert len(two.params.rungs) == 2


def test_the_best_half_advances(sweep):
    plan = make_plan()
    assert names(plan.entrants(1)) == ALL
    finish(plan.entrants(1), [(1, 2), (9, 9), (3, 3), (1, 1)])
    summary = write_decision(plan, 1, plan.decisions[1])
    assert summary == (
        "after 256 frames, 2 of 4 configs advance: happo_agent_lr_high, happo_agent_lr_low"
    )
    assert names(plan.entrants(2)) == ["lr_high", "lr_low"]
    assert [candidate.frames for candidate in plan.entrants(2)] == [512, 512]
    # results of earlier rungs no longer count
    finish(plan.entrants(2), [(4, 4), (5, 5)])
    write_decision(plan, 2, plan.decisions[2])
    assert names(plan.entrants(3)) == ["lr_low"]
    finish(plan.entrants(3), [(6, 6)])

    assert [(c.rung, c.frames) for c in plan.trained()] == [(1, 256), (2, 512), (3, 1024), (1, 256)]
    write_aggregate(plan, Path("results/tables"))
    why = write_selection(plan, Path("results/tables"), Path("results/selected"))
    assert "is 6, and no other config trained beyond 512 frames" in why
    selection = Selection.read(Path("results/selected/selection.json"))
    assert selection.winner.name == "happo_agent_lr_low"
    ranked = [(c.names[0].removeprefix("happo_agent_"), c.rung) for c in selection.candidates]
    assert all(candidate.improvement is None for candidate in selection.candidates)
    assert "probability" not in "".join(candidate.why for candidate in selection.candidates)
    # lr_high's 9 was the score of a shorter run
    assert ranked == [("lr_low", 3), ("lr_high", 2), ("gamma_high", 1), ("v1", 1)]
    assert "after 512 frames, and it did not advance" in selection.candidates[1].why
    assert plan.selected(Path("results/selected/selection.json")).smoke.frames == 1024


def test_diverged_configs_never_advance(sweep):
    plan = make_plan()
    finish(plan.entrants(1), [(None, 2), (None, 9), (3, 3), (None, None)])
    write_decision(plan, 1, plan.decisions[1])
    assert names(plan.entrants(2)) == ["lr_low"]


def test_a_rung_in_which_all_diverge_ends_the_sweep(sweep):
    plan = make_plan()
    finish(plan.entrants(1), [(None, None)] * 4)
    with pytest.raises(NoWinner, match="lower learning_rate"):
        write_decision(plan, 1, plan.decisions[1])
    assert not plan.decisions[1].exists()


@pytest.mark.slow
def test_a_decision_has_the_digest_of_its_inputs_and_replaces_older_ones(sweep):
    plan = make_plan()
    finish(plan.entrants(1), [(1, 1), (2, 2), (3, 3), (4, 4)])
    write_decision(plan, 1, plan.decisions[1])
    changes = (
        {"selection": {"statistic": "min"}},
        {"sweep": {"halving": {"eta": 3, "min_frames": 300}}},
        {"learning_rate": 0.5},
    )
    for change in changes:
        other = make_plan(overrides=change)
        assert other.decisions[1] != plan.decisions[1], change
        assert other.tables_digest != plan.tables_digest, change
    same = make_plan(overrides={"full": {"total_frames": 5000}})
    assert same.decisions == plan.decisions
    other = make_plan(overrides=changes[0])
    write_decision(other, 1, other.decisions[1])
    assert [path.name for path in plan.decisions[1].parent.iterdir()] == [other.decisions[1].name]


def test_runs_that_cannot_be_continued_are_an_error(sweep):
    path = Path("config/scheduler/default.yaml")
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "decay": "linear"}))
    with pytest.raises(ConfigError) as caught:
        make_plan()
    assert "sweep.strategy = 'halving'" in str(caught.value)
    assert "set scheduler.decay: none" in str(caught.value)
    make_plan(overrides={"sweep": {"strategy": "grid"}})


@pytest.mark.slow
def test_heteromark_sweep_is_a_grid(sweep):
    result = sweep.run("heteromark", "sweep", "config/agents/happo_agent_*.yaml", "--dry-run")
    assert "4 configs, 8 smoke runs of 1,024 frames (1,000 requested" in result.stdout
    refused = sweep.run(
        *("heteromark", "sweep", "config/agents/happo_agent_*.yaml"),
        *("--set", "sweep.strategy=halving"),
        check=False,
    )
    assert refused.returncode == 2
    assert "set it in params.yaml and run snakemake" in refused.stderr


@pytest.mark.slow
def test_halving_by_snakemake_trains_no_iteration_twice(tmp_path):
    project = copy_project(tmp_path / "project", tmp_path / "store")
    project.set_params(**TINY)
    project.set_params(
        sweep={**HALVING, "halving": {"eta": 2, "min_frames": 256}},
        smoke={**SMOKE, "total_frames": 1024, "seeds": [0]},
        selection={"min_seeds": 1},
    )
    plan = project.run("heteromark", "validate").stdout
    assert "smoke, rung 1: 4 runs of 256 frames" in plan
    assert "smoke, rung 3: 1 runs of 1,024 frames" in plan
    project.run("snakemake", "--cores", "2")
    runs = [run.record for run in RunStore(project.store).runs()]
    assert sorted(run.summary.frames for run in runs if run.mode == "smoke") == [
        *[256] * 4,
        *[512] * 2,
        1024,
    ]
    by_digest = {run.digest: run for run in runs}
    for run in runs:
        if run.mode == "smoke" and run.summary.frames > 256:
            shorter = by_digest[run.continued.digest]
            assert shorter.summary.iterations == run.continued.iteration
            assert (shorter.seed, shorter.agent) == (run.seed, run.agent)
    selection = json.loads(project.read("results/selected/selection.json"))
    assert [candidate["rung"] for candidate in selection["candidates"]] == [3, 2, 1, 1]
    assert "Nothing to be done" in project.run("snakemake", "--cores", "2").stderr

    assert Path(project.folder, "results/selected/bracket.svg").is_file()
