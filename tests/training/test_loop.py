"""A run from its start to its end, in one attempt or several."""

from __future__ import annotations

import csv
import json
import math
import re

import pytest
import torch
from engine_config import make_config

from heteromark.runs.record import WALL_CLOCK_COLUMNS, Status
from heteromark.training.loop import train

TOY = {"environment__task": "toy_environments:ToyBattle"}


class Crash(Exception):
    """Stands for anything that ends a process."""


def rows(folder, wall_clock=False):
    """metrics.csv as text, without what depends on the machine's speed."""
    with (folder / "metrics.csv").open() as file:
        return [
            {k: v for k, v in row.items() if wall_clock or k not in WALL_CLOCK_COLUMNS}
            for row in csv.DictReader(file)
        ]


def results(folder):
    """All that must not depend on how often a run was interrupted."""
    return (
        rows(folder),
        (folder / "checkpoint.pt").read_bytes(),
        (folder / "evaluation.json").read_text(),
    )


def crash_at(iteration):
    def on_progress(frames, total, metrics):
        if metrics["iteration"] == iteration:
            raise Crash

    return on_progress


@pytest.mark.parametrize("algorithm", ["HAPPO", "MAPPO", "IPPO", "MaskablePPO"])
def test_a_run_writes_its_results(tmp_path, algorithm):
    config = make_config(algorithm=algorithm, **TOY, environment__kwargs={"says_won": True})
    seen = []
    outcome = train(config, tmp_path, on_progress=lambda *args: seen.append(args[:2]))

    assert outcome.status is Status.COMPLETED
    assert outcome.reason is None
    assert outcome.device == "cpu"
    assert seen == [(64, 256), (128, 256), (192, 256), (256, 256)]

    table = rows(tmp_path, wall_clock=True)
    assert [int(row["iteration"]) for row in table] == [1, 2, 3, 4]
    assert [int(row["frames"]) for row in table] == [64, 128, 192, 256]
    columns = list(table[0])
    assert columns[2:6] == ["episodes", "episode_return", "episode_length", "win_rate"]
    assert tuple(columns[-2:]) == WALL_CLOCK_COLUMNS
    for row in table:
        # five steps of 1 and 3, two of 2, averaged over three agents
        assert float(row["episode_return"]) == pytest.approx(8)
        assert float(row["episode_length"]) == 5
        assert float(row["win_rate"]) == 1
        assert float(row["frames_per_second"]) > 0

    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["returns"] == pytest.approx([8.0] * 3)
    assert evaluation["lengths"] == [5] * 3
    assert evaluation["wins"] == [True] * 3
    summary = outcome.summary
    assert (summary.frames, summary.iterations, summary.evaluation_episodes) == (256, 4, 3)
    assert summary.final_return == pytest.approx(8)
    assert summary.evaluation_return == pytest.approx(8)
    assert summary.evaluation_win_rate == 1
    assert summary.frames_per_second > 0


def test_continuous_actions_train_too(tmp_path):
    config = make_config(
        environment__task="mpe2.simple_spread_v3:parallel_env",
        environment__kwargs={"continuous_actions": True},
        training__total_frames=128,
        evaluation__deterministic=False,
    )
    assert train(config, tmp_path).status is Status.COMPLETED
    assert rows(tmp_path)[0]["win_rate"] == ""


def test_the_same_run_twice_is_bit_identical(tmp_path):
    for name in "ab":
        train(make_config(), tmp_path / name)
    assert results(tmp_path / "a") == results(tmp_path / "b")
    train(make_config(seed=1), tmp_path / "c")
    assert rows(tmp_path / "c") != rows(tmp_path / "a")


@pytest.mark.parametrize("kwargs", [{}, {"algorithm": "IPPO", "optimizer__decay": "linear"}])
def test_a_run_that_crashes_again_and_again_ends_the_same(tmp_path, kwargs):
    config = make_config(training__total_frames=7 * 64, **TOY, **kwargs)
    train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    for iteration in (1, 2, 3, 5, 5, 6, 7):
        with pytest.raises(Crash):
            train(config, folder, on_progress=crash_at(iteration))
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")
    elapsed = [float(row["time_elapsed"]) for row in rows(folder, wall_clock=True)]
    assert elapsed == sorted(elapsed), "time goes on from the checkpoint's"


@pytest.mark.parametrize("damaged", [1, 2], ids=["the newest", "all"])
def test_a_corrupt_checkpoint_is_set_aside(tmp_path, caplog, damaged):
    config = make_config(training__total_frames=6 * 64)
    train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    with pytest.raises(Crash):
        train(config, folder, on_progress=crash_at(5))
    checkpoints = sorted((folder / "checkpoints").iterdir())
    assert [path.name[:16] for path in checkpoints] == ["iteration_000002", "iteration_000004"]
    for path in checkpoints[-damaged:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == damaged
    assert checkpoints[-1].name in warnings[0]
    assert "is corrupt (hash differs); trying the one before it" in warnings[0]
    if damaged == 2:
        assert "training anew" in warnings[1]
    assert len(list((folder / "checkpoints").glob("*.corrupt"))) == damaged


def test_rows_that_a_checkpoint_counts_on_must_be_there(tmp_path):
    config = make_config()
    with pytest.raises(Crash):
        train(config, tmp_path, on_progress=crash_at(3))
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(ValueError, match="has 0 rows, but the run's checkpoint was taken after 2"):
        train(config, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "reason", "iterations"),
    [
        ({**TOY, "environment__kwargs": {"inf_reward_at": 80}}, "reward of archer", 2),
        (
            {
                "optimizer__learning_rate": 1.0,
                "policy__hidden_sizes": [256],
                "training__num_epochs": 10,
            },
            "is (not finite|inf|nan) in",
            None,
        ),
    ],
    ids=["infinite reward", "huge learning rate"],
)
def test_a_run_that_diverges_is_a_result(tmp_path, overrides, reason, iterations):
    config = make_config(training__total_frames=40 * 64, **overrides)
    outcome = train(config, tmp_path)
    assert outcome.status is Status.DIVERGED
    assert re.search(reason, outcome.reason)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert (evaluation["episodes"], evaluation["returns"]) == (0, [])
    assert evaluation["return_mean"] is None
    assert outcome.summary.evaluation_return is None
    assert len(rows(tmp_path)) == outcome.summary.iterations < 40
    if iterations is not None:
        assert outcome.summary.iterations == iterations
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["actors"]


def test_no_episode_may_end_within_an_iteration(tmp_path):
    config = make_config(
        **TOY,
        environment__kwargs={"length": 50},
        training__total_frames=128,
        evaluation__episodes=1,
    )
    outcome = train(config, tmp_path)
    first, second = rows(tmp_path)
    assert (first["episodes"], first["episode_return"], first["episode_length"]) == ("0", "", "")
    assert second["episodes"] == "2"
    assert not math.isnan(outcome.summary.final_return)


def test_an_observation_that_is_not_a_number_fails_the_run(tmp_path):
    with pytest.raises(ValueError, match="'test' gave agent 'archer_0' of copy 0 an observation"):
        train(make_config(**TOY, environment__kwargs={"nan_at": 3}), tmp_path)
