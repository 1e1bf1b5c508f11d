"""A longer run continues from a shorter one, and gets the same results as without it."""

from __future__ import annotations

import csv

import pytest
from engine_config import TIC_TAC_TOE, make_config

from heteromark.commands.launch import train_run
from heteromark.runs.digest import trajectory_digest
from heteromark.runs.record import CHECKPOINT_FILE, EVALUATION_FILE, METRICS_FILE
from heteromark.runs.record import WALL_CLOCK_COLUMNS as WALL_CLOCK
from heteromark.runs.store import RunStore

FRAMES = 64  # per iteration; a checkpoint is written after every second iteration
SELF_PLAY = {
    **TIC_TAC_TOE,
    "environment__opponent": {"kind": "past_self", "pool_size": 3, "snapshot_interval": 2},
    "training__num_epochs": 1,
    "evaluation__episodes": 10,
}


def run(store, iterations, **overrides):
    """Train a run; return its record and the iterations that were trained in this call."""
    trained = []
    config = make_config(training__total_frames=iterations * FRAMES, **overrides)
    record, _ = train_run(
        config, store=store, on_progress=lambda *args: trained.append(args[2]["iteration"])
    )
    return record, trained


def results(store, record):
    """Return all files of a run without times."""
    folder = store.folder(record.digest)
    with (folder / METRICS_FILE).open(newline="") as file:
        rows = [
            {k: v for k, v in row.items() if k not in WALL_CLOCK} for row in csv.DictReader(file)
        ]
    return rows, *((folder / name).read_bytes() for name in (CHECKPOINT_FILE, EVALUATION_FILE))


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.fixture
def empty_store(tmp_path):
    return RunStore(tmp_path / "another")


@pytest.mark.mostly_slow(3)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy_type": "gru", "collector__frames_per_batch": FRAMES},
        {"evaluation__interval": 2},
        SELF_PLAY,
        {"training__keep_checkpoints": 1, "algorithm": "MAPPO"},
    ],
    ids=["HAPPO", "gru", "evaluated", "self-play", "one checkpoint kept"],
)
def test_a_longer_run_trains_only_missing_iterations_and_ends_the_same(
    store, empty_store, settings
):
    short, trained = run(store, 4, **settings)
    assert trained == [1, 2, 3, 4]
    assert short.continued is None
    longer, trained = run(store, 7, **settings)
    assert trained == [5, 6, 7]
    assert (longer.continued.digest, longer.continued.iteration) == (short.digest, 4)
    whole, trained = run(empty_store, 7, **settings)
    assert len(trained) == 7
    assert whole.digest == longer.digest
    assert results(store, longer) == results(empty_store, whole)


@pytest.mark.slow
def test_a_run_continues_from_the_run_with_most_iterations(store, empty_store):
    for iterations in (2, 5):
        run(store, iterations)
    longer, trained = run(store, 8)
    assert trained == [6, 7, 8]
    # A shorter run continues from an earlier checkpoint.
    between, trained = run(store, 3)
    assert trained == [3]
    for record in (longer, between):
        whole, _ = run(empty_store, record.summary.iterations)
        assert results(store, record) == results(empty_store, whole)


def test_a_run_continues_from_the_end_of_one_with_other_checkpoints(store, empty_store):
    short, _ = run(store, 3, training__checkpoint_interval=10)
    longer, trained = run(store, 5, training__checkpoint_interval=1)
    assert trained == [4, 5]
    assert longer.continued.digest == short.digest
    whole, _ = run(empty_store, 5, training__checkpoint_interval=1)
    assert whole.digest == longer.digest
    assert results(store, longer) == results(empty_store, whole)


def test_runs_with_other_evaluations_continue_from_the_same_iterations(store):
    short, _ = run(store, 4)
    _, trained = run(store, 6, mode="full", evaluation__episodes=5)
    assert trained == [5, 6]
    _, trained = run(store, 6, evaluation__deterministic=False)
    assert trained == [5, 6]
    assert short.trajectory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({}, {"seed": 1}),
        ({}, {"optimizer__learning_rate": 1e-3}),
        ({"scheduler__decay": "linear"}, {"scheduler__decay": "linear"}),
    ],
    ids=["another seed", "another rate", "a schedule over the run"],
)
def test_a_run_does_not_continue_from_one_with_different_iterations(store, settings, other):
    run(store, 4, **settings)
    longer, trained = run(store, 6, **other)
    assert trained == [1, 2, 3, 4, 5, 6]
    assert longer.continued is None


def test_a_run_does_not_continue_from_an_iteration_with_an_extra_evaluation(store, empty_store):
    settings = {"evaluation__interval": 3}
    run(store, 4, **settings)  # evaluated after the third iteration and at its end
    longer, trained = run(store, 6, **settings)
    assert trained == [3, 4, 5, 6]
    whole, _ = run(empty_store, 6, **settings)
    assert results(store, longer) == results(empty_store, whole)


def test_a_continued_run_that_crashes_ends_the_same(store, empty_store):
    run(store, 2)
    config = make_config(training__total_frames=7 * FRAMES)

    def crash(frames, total, metrics):
        if metrics["iteration"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(config, store=store, on_progress=crash)
    longer, trained = run(store, 7)
    assert trained == [5, 6, 7]
    assert longer.continued.iteration == 2
    assert longer.attempts == 2
    whole, _ = run(empty_store, 7)
    assert results(store, longer) == results(empty_store, whole)


def test_a_run_that_dies_before_its_record_is_final_ends_the_same(store, empty_store, monkeypatch):
    """Its last checkpoint exists, but its record has the status running."""
    short, _ = run(store, 4, **SELF_PLAY)
    before = results(store, short)
    short.model_copy(update={"status": "running", "files": {}}).write(store.folder(short.digest))
    again, trained = run(store, 4, **SELF_PLAY)
    assert trained == []
    assert results(store, again) == before


def test_a_run_does_not_continue_from_a_damaged_one(store, caplog):
    short, _ = run(store, 4)
    with (store.folder(short.digest) / METRICS_FILE).open("a") as file:
        file.write("5\n")
    longer, trained = run(store, 6)
    assert len(trained) == 6
    assert longer.continued is None
    assert f"run {short.digest} is damaged; not continuing from it" in caplog.text


def test_without_resume_a_run_starts_from_scratch(store):
    run(store, 4)
    trained = []
    train_run(
        make_config(training__total_frames=6 * FRAMES),
        store=store,
        resume=False,
        on_progress=lambda *args: trained.append(args[2]["iteration"]),
    )
    assert trained == [1, 2, 3, 4, 5, 6]


def test_back_ends_also_get_the_iterations_of_the_shorter_run(store):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(store, 4)
    longer, _ = run(store, 6, logger__backends=["tensorboard"])
    events = EventAccumulator(str(store.folder(longer.digest) / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("frames")]
    assert steps == [FRAMES * iteration for iteration in range(1, 7)]


def test_a_trajectory_does_not_depend_on_the_length_of_the_run():
    short, longer = (make_config(training__total_frames=frames) for frames in (128, 512))
    assert trajectory_digest(short) == trajectory_digest(longer)
    assert trajectory_digest(make_config(seed=1)) != trajectory_digest(short)
