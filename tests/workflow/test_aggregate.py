import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from run_folders import RISING, make_candidate, make_config, write_run

from heteromark.runs.record import Status
from heteromark.workflow.aggregate import (
    CURVES_COLUMNS,
    RUNS_COLUMNS,
    SUMMARY_COLUMNS,
    aggregate,
    read_tables,
    write_tables,
)
from heteromark.workflow.plan import Candidate

TABLE_FILES = ("runs.csv", "summary.csv", "curves.csv", "metrics.json")


def only_row(table: pd.DataFrame) -> pd.Series:
    assert len(table) == 1
    return table.iloc[0]


def run_of(tables, seed):
    return only_row(tables.runs[tables.runs["seed"] == seed])


# --- figures computed by hand


def test_one_row_per_run_and_per_config(tmp_path):
    candidates = [
        make_candidate(tmp_path, "happo_agent_v1", seeds=[0, 1, 2]),
        make_candidate(tmp_path, "happo_agent_sweep_lr_high", seeds=[0, 1], learning_rate=1e-3),
    ]
    for candidate in candidates:
        for seed in candidate.folders:
            write_run(candidate, seed, 1.0)
    tables = aggregate(candidates)
    assert list(tables.runs["config"]) == ["happo_agent_v1"] * 3 + ["happo_agent_sweep_lr_high"] * 2
    assert list(tables.runs["seed"]) == [0, 1, 2, 0, 1]
    assert list(tables.summary["config"]) == ["happo_agent_v1", "happo_agent_sweep_lr_high"]
    assert list(tables.summary["learning_rate"]) == [3e-4, 1e-3]
    assert list(tables.runs) == list(RUNS_COLUMNS)
    assert list(tables.summary) == list(SUMMARY_COLUMNS)
    assert list(tables.curves) == list(CURVES_COLUMNS)


def test_a_run_row_has_the_figures_of_its_record(tmp_path):
    candidate = make_candidate(tmp_path, "happo_agent_v1", seeds=[7])
    write_run(candidate, 7, evaluation_return=-12.5, win_rate=0.25, frames_per_second=4000.0)
    row = run_of(aggregate([candidate]), 7)
    assert row.drop("reason").to_dict() == {
        "config": "happo_agent_v1",
        "config_digest": candidate.config_digest,
        "agent_id": "happo_agent",
        "algorithm": "HAPPO",
        "environment": "speaker_listener",
        "seed": 7,
        "status": "completed",
        "frames": 20_000,
        "final_return": RISING[-1],
        "evaluation_return": -12.5,
        "win_rate": 0.25,
        "slope": pytest.approx(2.0),  # RISING gains 2 in each 1,000 frames
        "frames_per_second": 4000.0,
        "duration_seconds": 12.5,
    }
    assert pd.isna(row["reason"])


def test_the_summary_over_seeds_by_hand(tmp_path):
    candidate = make_config(tmp_path, "a_v1", [0.0, 1.0, 3.0, 100.0], win_rate=0.5)
    row = only_row(aggregate([candidate]).summary)
    assert row["seeds"] == row["completed"] == 4
    assert row["statuses"] == "completed 4"
    assert row["evaluation_return"] == 26.0
    assert row["iqm"] == 2.0
    assert row["iqm_low"] <= 2.0 <= row["iqm_high"]
    assert row["coefficient_of_variation"] == pytest.approx(np.std([0, 1, 3, 100], ddof=1) / 26)
    assert row["win_rate"] == 0.5
    assert row["slope"] == pytest.approx(2.0)
    assert row["verdict"] == "steady"
    assert row["reason"].startswith("the return rises by 18 over the last half")


def test_curves_are_means_over_seeds_with_their_range(tmp_path):
    candidate = make_candidate(tmp_path, "a_v1", seeds=[0, 1])
    write_run(candidate, 0, 1.0, curve=[None, 2.0, 4.0])  # no episode ended in the first iteration
    write_run(candidate, 1, 1.0, curve=[7.0, 3.0, 8.0])
    rows = aggregate([candidate]).curves.drop(columns="config").to_numpy(float, na_value=math.nan)
    np.testing.assert_array_equal(
        rows,
        [
            [1000, 7.0, math.nan, math.nan, 1],
            [2000, 2.5, 2.0, 3.0, 2],
            [3000, 6.0, 4.0, 8.0, 2],
        ],
    )


def test_one_seed_has_no_interval_and_no_variation(tmp_path):
    row = only_row(aggregate([make_config(tmp_path, "a_v1", [3.0])]).summary)
    assert row["iqm"] == 3.0
    assert row[["iqm_low", "iqm_high", "coefficient_of_variation"]].isna().all()


# --- failed and damaged runs


def test_a_missing_folder_is_a_row(tmp_path):
    candidate = make_candidate(tmp_path, "a_v1", seeds=[0, 1])
    write_run(candidate, 0, 1.0)
    tables = aggregate([candidate])
    row = run_of(tables, 1)
    assert row["status"] == "missing"
    assert candidate.folders[1].as_posix() in row["reason"]
    assert only_row(tables.summary)["statuses"] == "completed 1, missing 1"


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("run.json", '{"digest": "ab', "Invalid JSON"),
        ("run.json", "{}", "digest: Field required"),
        ("run.json", b"\xff\xfe", "codec"),
        ("metrics.csv", "", "No columns"),
        ("metrics.csv", "frames,loss\n1,2\n", "episode_return"),
        ("metrics.csv", "frames,episode_return\n1000,many\n", "many"),
        ("metrics.csv", "frames,episode_return\n1000,1\n1000,2\n", "frames do not increase"),
        ("metrics.csv", None, "No such file"),
    ],
)
def test_a_corrupt_file_is_a_row_that_names_it(tmp_path, file, content, fault):
    candidate = make_config(tmp_path, "a_v1", [1.0, 2.0])
    path = candidate.folders[1] / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tables = aggregate([candidate])
    row = run_of(tables, 1)
    assert row["status"] == "corrupt"
    assert row["reason"].startswith(path.as_posix())
    assert fault in row["reason"]
    assert "\n" not in row["reason"]
    assert only_row(tables.summary)["completed"] == 1
    assert only_row(tables.summary)["evaluation_return"] == 1.0


def test_a_folder_of_another_seed_is_corrupt(tmp_path):
    candidate = make_config(tmp_path, "a_v1", [1.0, 2.0])
    swapped = replace(candidate, folders={0: candidate.folders[0], 1: candidate.folders[0]})
    assert "is of seed 0, not 1" in run_of(aggregate([swapped]), 1)["reason"]


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.COMPLETED])
def test_only_completed_runs_enter_the_summary(tmp_path, status):
    candidate = make_candidate(tmp_path, "a_v1", seeds=[0, 1])
    write_run(candidate, 0, 1.0)
    write_run(candidate, 1, 9.0, curve=[9.0] * 20, status=status, reason="because")
    tables = aggregate([candidate])
    assert run_of(tables, 1)[["status", "reason"]].to_list() == [status.value, "because"]
    row = only_row(tables.summary)
    assert row["completed"] == 1
    assert row["evaluation_return"] == 1.0
    assert (tables.curves["seeds"] == 1).all()
    assert row["verdict"] == ("diverged" if status is Status.DIVERGED else "steady")


def test_nan_metrics_are_not_measured(tmp_path):
    candidate = make_candidate(tmp_path, "a_v1", seeds=[0])
    write_run(candidate, 0, float("nan"), curve=[float("nan")] * 8, win_rate=float("inf"))
    tables = aggregate([candidate])
    row = only_row(tables.summary)
    assert row[["final_return", "evaluation_return", "iqm", "win_rate", "slope"]].isna().all()
    assert row["verdict"] == "unknown"
    assert tables.curves.empty
    assert tables.metrics["evaluation_return"]["a_v1"] is None


def test_no_candidates_give_empty_tables(tmp_path):
    tables = aggregate([])
    assert tables.runs.empty
    assert tables.metrics == {"best_evaluation_return": None, "evaluation_return": {}}
    write_tables(tables, tmp_path)
    assert read_tables(tmp_path).summary.empty


# --- files


def written(folder):
    return {name: (folder / name).read_bytes() for name in TABLE_FILES}


def sweep(root, **run) -> list[Candidate]:
    candidates = [
        make_config(root, "a_v1", [1 / 3, 0.1, 2e-7], **run),
        make_candidate(root, "nan", seeds=[0, 1]),
    ]
    write_run(candidates[1], 0, None, [], status=Status.DIVERGED, reason='loss is "NaN", twice')
    return candidates


def test_tables_are_read_back_bit_for_bit(tmp_path):
    tables = aggregate(sweep(tmp_path / "runs"))
    write_tables(tables, tmp_path / "tables")
    read = read_tables(tmp_path / "tables")
    for name in ("runs", "summary", "curves"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(tables, name), check_exact=True)
    assert read.metrics == tables.metrics
    write_tables(read, tmp_path / "again")
    assert written(tmp_path / "again") == written(tmp_path / "tables")


def test_the_order_of_seeds_changes_no_byte(tmp_path):
    candidates = sweep(tmp_path / "runs")
    write_tables(aggregate(candidates), tmp_path / "tables")
    permuted = [replace(each, folders=dict(reversed(each.folders.items()))) for each in candidates]
    write_tables(aggregate(permuted), tmp_path / "permuted")
    assert written(tmp_path / "permuted") == written(tmp_path / "tables")


def test_metrics_do_not_depend_on_the_machines_speed(tmp_path):
    for name, speed in (("slow", 100.0), ("fast", 9000.0)):
        candidates = sweep(tmp_path / name, frames_per_second=speed)
        write_tables(aggregate(candidates), tmp_path / f"{name}_tables")
    slow, fast = (
        (tmp_path / f"{name}_tables/metrics.json").read_bytes() for name in ("slow", "fast")
    )
    assert slow == fast
    assert json.loads(slow)["evaluation_return"]["nan"] is None


def test_a_config_with_two_names_is_one_row_and_two_metrics(tmp_path):
    candidate = replace(make_config(tmp_path, "a_v1", [1.0, 2.0]), names=("a_v1", "a_sweep_same"))
    tables = aggregate([candidate])
    assert only_row(tables.summary)["config"] == "a_v1 = a_sweep_same"
    assert tables.metrics["evaluation_return"] == {"a_v1": 1.5, "a_sweep_same": 1.5}


def test_the_workflow_imports_no_torch():
    code = "import sys, heteromark.workflow.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
