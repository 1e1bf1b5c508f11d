"""A run from start to end, in one or several attempts."""

from __future__ import annotations

import json
import math
import re
import time
from types import SimpleNamespace

import pytest
import torch
from attempts import Crash, crash_at, results, rows
from engine_config import TIC_TAC_TOE, make_config

from heteromark.runs.record import WALL_CLOCK_COLUMNS, Status
from heteromark.training.evaluator import Evaluator, evaluate
from heteromark.training.loaded_policy import load_policy
from heteromark.training.loop import train

SEED = 1  # of a run whose last policy is not its best
TOY = {"environment__task": "toy_environments:ToyBattle"}


def policy(path):
    """Return the iteration, the evaluation return and the actors in a policy file."""
    saved = torch.load(path, weights_only=True)
    return saved["iteration"], saved["evaluation_return"], saved["actors"]


def assert_same_weights(actors, others):
    assert actors.keys() == others.keys()
    for group, state in actors.items():
        for name, tensor in state.items():
            assert (tensor == others[group][name]).all(), (group, name)


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
        # Rewards: five steps of 1 and 3, two of 2; averaged over three agents.
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


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {
            "algorithm": "IPPO",
            "scheduler__decay": "linear",
            "evaluation__interval": 1,
            "training__keep_checkpoints": 1,
        },
    ],
)
def test_a_run_that_crashes_repeatedly_ends_the_same(tmp_path, kwargs):
    config = make_config(training__total_frames=7 * 64, **TOY, **kwargs)
    train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    for iteration in (1, 2, 3, 5, 5, 6, 7):
        with pytest.raises(Crash):
            train(config, folder, on_progress=crash_at(iteration))
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")
    elapsed = [float(row["time_elapsed"]) for row in rows(folder, wall_clock=True)]
    assert elapsed == sorted(elapsed), "time continues from the checkpoint's"


@pytest.fixture(scope="module")
def unevaluated(tmp_path_factory):
    """Folder of a run of five iterations that is evaluated only at its end."""
    folder = tmp_path_factory.mktemp("unevaluated")
    train(make_config(training__total_frames=5 * 64), folder)
    return folder


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize(("interval", "deterministic"), [(1, True), (2, False), (9, True)])
def test_evaluations_do_not_affect_the_training(tmp_path, unevaluated, interval, deterministic):
    config = make_config(
        training__total_frames=5 * 64,
        evaluation__interval=interval,
        evaluation__deterministic=deterministic,
    )
    summary = train(config, tmp_path).summary
    assert_same_weights(
        policy(tmp_path / "checkpoint.pt")[2], policy(unevaluated / "checkpoint.pt")[2]
    )
    evaluated = {}
    for row, unevaluated_row in zip(rows(tmp_path), rows(unevaluated), strict=True):
        achieved, win_rate = row.pop("evaluation_return"), row.pop("evaluation_win_rate")
        assert row == unevaluated_row
        assert win_rate == ""
        if achieved:
            evaluated[int(row["iteration"])] = float(achieved)
    assert sorted(evaluated) == sorted({*range(interval, 6, interval), 5})
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluated[5] == report["return_mean"] == summary.evaluation_return
    best = max(evaluated, key=evaluated.get)
    assert policy(tmp_path / "best.pt")[:2] == (best, evaluated[best])
    assert (summary.best_iteration, summary.best_evaluation_return) == (best, evaluated[best])


def test_evaluation_time_is_not_training_time(tmp_path, monkeypatch):
    slept = 0.0

    def slow_evaluation(self, *arguments):
        nonlocal slept
        slept += 1000.0
        return unpatched(self, *arguments)

    unpatched = Evaluator.evaluate
    monkeypatch.setattr(Evaluator, "evaluate", slow_evaluation)
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + slept)
    monkeypatch.setattr("heteromark.training.loop.time", clock)
    config = make_config(training__total_frames=128, evaluation__interval=1)
    summary = train(config, tmp_path).summary
    assert slept == 2000
    assert float(rows(tmp_path, wall_clock=True)[-1]["time_elapsed"]) < 1000
    assert summary.frames_per_second > 128 / 1000


def test_without_evaluations_there_is_no_best_policy(unevaluated):
    assert not (unevaluated / "best.pt").exists()
    assert "evaluation_return" not in rows(unevaluated)[0]
    iteration, achieved, _ = policy(unevaluated / "checkpoint.pt")
    report = json.loads((unevaluated / "evaluation.json").read_text())
    assert (iteration, achieved) == (5, report["return_mean"])


def test_the_best_policy_is_that_of_the_recorded_iteration(tmp_path):
    config = make_config(seed=SEED, training__total_frames=3 * 64, evaluation__interval=1)
    train(config, tmp_path / "long")
    iteration, achieved, actors = policy(tmp_path / "long" / "best.pt")
    assert iteration < 3, "with this seed the last policy is the best: choose another one"
    short = make_config(seed=SEED, training__total_frames=iteration * 64, evaluation__interval=1)
    train(short, tmp_path / "short")
    assert policy(tmp_path / "short" / "checkpoint.pt")[:2] == (iteration, achieved)
    assert_same_weights(actors, policy(tmp_path / "short" / "checkpoint.pt")[2])


def test_the_best_policy_never_comes_from_after_the_checkpoint(tmp_path):
    """On a GPU, iterations after a checkpoint may give different results after resuming."""
    config = make_config(training__total_frames=6 * 64, evaluation__interval=1)
    with pytest.raises(Crash):
        train(config, tmp_path, on_progress=crash_at(5))
    known = policy(tmp_path / "best.pt")[:2]
    assert known[0] <= 4
    best_known = max(rows(tmp_path)[:4], key=lambda row: float(row["evaluation_return"]))
    assert known == (int(best_known["iteration"]), float(best_known["evaluation_return"]))
    (tmp_path / "best.pt").write_bytes(b"from an iteration that was lost")

    def check_and_crash(frames, total, metrics):
        assert policy(tmp_path / "best.pt")[:2] == known
        raise Crash

    with pytest.raises(Crash):
        train(config, tmp_path, on_progress=check_and_crash)


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize("kind", ["past_self", "random"])
def test_games_against_an_opponent_survive_crashes(tmp_path, kind):
    config = make_config(
        **TIC_TAC_TOE,
        environment__opponent={"kind": kind, "pool_size": 2, "snapshot_interval": 2},
        training__total_frames=6 * 64,
        training__num_epochs=1,
        evaluation__interval=3,
        evaluation__episodes=10,
    )
    outcome = train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    for iteration in (3, 5):
        with pytest.raises(Crash):
            train(config, folder, on_progress=crash_at(iteration))
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["opponent"] == kind
    assert outcome.summary.evaluation_win_rate == report["win_rate"] is not None
    loaded = load_policy(folder / "checkpoint.pt")
    assert report == evaluate(config, loaded.actors, 0, opponent_pool=loaded.opponent_pool)
    if kind == "random":
        assert loaded.opponent_pool is None
        return
    fourth, sixth = loaded.opponent_pool["snapshots"]
    others = load_policy(next((folder / "checkpoints").glob("iteration_000004-*.pt")))
    assert_same_weights(fourth, {g: actor.state_dict() for g, actor in others.actors.items()})
    assert any((fourth["player"][name] != x).any() for name, x in sixth["player"].items())


@pytest.mark.mostly_slow(1)
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
    assert "is corrupt (hash mismatch); trying the previous checkpoint" in warnings[0]
    if damaged == 2:
        assert "training from scratch" in warnings[1]
    assert len(list((folder / "checkpoints").glob("*.corrupt"))) == damaged


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_damaged_metrics_file_is_restored_from_the_checkpoint(tmp_path, damage):
    config = make_config()
    train(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    with pytest.raises(Crash):
        train(config, folder, on_progress=crash_at(3))
    path = folder / "metrics.csv"
    path.unlink() if damage == "deleted" else path.write_text(path.read_text().replace("1", "2"))
    train(config, folder)
    assert results(folder) == results(tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "reason", "iterations"),
    [
        ({**TOY, "environment__kwargs": {"inf_reward_at": 80}}, "reward inf of agent .archer", 2),
        (
            {  # each step multiplies the weights by -999
                "optimizer_type": "sgd",
                "optimizer__learning_rate": 1.0,
                "optimizer__weight_decay": 1000.0,
            },
            "is (not finite|inf|nan) in",
            None,
        ),
    ],
    ids=["infinite reward", "exploding weights"],
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
    assert policy(tmp_path / "checkpoint.pt")[:2] == (outcome.summary.iterations, None)


def test_a_run_that_diverges_keeps_its_best_policy(tmp_path):
    config = make_config(**TOY, environment__kwargs={"inf_reward_at": 80}, evaluation__interval=1)
    outcome = train(config, tmp_path)
    assert outcome.status is Status.DIVERGED
    assert policy(tmp_path / "best.pt")[:2] == (1, outcome.summary.best_evaluation_return)


def test_an_iteration_may_have_no_finished_episode(tmp_path):
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
