"""metrics.csv and episode statistics."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict

from heteromark.runs.metrics import MetricsFile
from heteromark.training.metrics import episode_metrics


def row(iteration, value=0.1):
    return {"iteration": iteration, "time_elapsed": 1.5, "frames_per_second": 2.0, "loss": value}


def test_rows_are_exact_and_wall_clock_is_last(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path)
    metrics.append(row(1, 0.1 + 0.2))
    metrics.append(row(2, math.nan))
    assert path.read_text().splitlines() == [
        "iteration,loss,time_elapsed,frames_per_second",
        "1,0.30000000000000004,1.5,2.0",
        "2,,1.5,2.0",
    ]
    first, second = metrics.column("loss")
    assert first == 0.1 + 0.2
    assert math.isnan(second)


def test_a_file_continues_from_its_content_at_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path)
    for iteration in (1, 2):
        metrics.append(row(iteration))
    at_checkpoint = metrics.text
    metrics.append(row(3))
    with path.open("a") as file:
        file.write("4,0.")  # as if the process was killed while writing
    again = MetricsFile(path, at_checkpoint)
    assert path.read_text() == at_checkpoint
    again.append(row(3, 9.0))
    assert again.column("iteration") == [1, 2, 3]
    assert again.column("loss") == [0.1, 0.1, 9.0]
    assert path.read_text() == again.text


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_damage_to_the_file_reaches_no_result(tmp_path, caplog, damage):
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path)
    metrics.append(row(1))
    expected = path.read_text()
    path.unlink() if damage == "deleted" else path.write_text(expected.replace("0.1", "0.2"))
    metrics.finish()
    assert path.read_text() == expected
    assert f"{path} was changed by something else; it is written again" in caplog.text


def test_starting_from_scratch_empties_the_file(tmp_path):
    path = tmp_path / "metrics.csv"
    MetricsFile(path).append(row(1))
    MetricsFile(path)
    assert path.read_text() == ""


def test_only_episodes_that_ended_count():
    done = torch.tensor([[False, True], [False, False]]).unsqueeze(-1)
    stepped = TensorDict(
        {
            "done": done,
            "won": torch.tensor([[-1, 1], [-1, -1]], dtype=torch.int8).unsqueeze(-1),
            "step_count": torch.tensor([[1, 2], [7, 8]]).unsqueeze(-1),
            "episode_return": torch.tensor([[9.0, 3.0], [9, 9]]).unsqueeze(-1),
        },
        batch_size=[2, 2],
    )
    measured = episode_metrics(TensorDict({"next": stepped}, [2, 2]))
    assert measured == {
        "episodes": 1,
        "episode_return": 3.0,
        "episode_length": 2.0,
        "win_rate": 1.0,
    }
    nothing = episode_metrics(TensorDict({"next": stepped[1:]}, [1, 2]))
    assert nothing["episodes"] == 0
    assert all(math.isnan(nothing[key]) for key in ("episode_return", "episode_length", "win_rate"))
