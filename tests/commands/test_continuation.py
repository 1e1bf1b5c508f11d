"""A longer run goes on from a shorter one, and ends as if it had not."""

from __future__ import annotations

import csv

import pytest
from engine_config import TIC_TAC_TOE, make_config

from heteromark.commands.launch import train_run
from heteromark.runs.digest import trajectory_digest
from heteromark.runs.record import CHECKPOINT_FILE, EVALUATION_FILE, METRICS_FILE
from heteromark.runs.record import WALL_CLOCK_COLUMNS as WALL_CLOCK
from heteromark.runs.store import RunStore

FRAMES = 64  # of an iteration; checkpoints after every second one
SELF_PLAY = {
    **TIC_TAC_TOE,
    "environment__opponent": {"kind": "past_self", "pool_size": 3},
    "training__num_epochs": 1,
    "evaluation__episodes": 10,
}


def run(store, iterations, **overrides):
    """Train so many iterations; returns the record, and those that were trained now."""
    trained = []
    config = make_config(training__total_frames=iterations * FRAMES, **overrides)
    record, _ = train_run(
        config, store=store, on_progress=lambda *args: trained.append(args[2]["iteration"])
    )
    return record, trained


def results(store, record):
    """All that a run leaves behind but for times."""
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
def test_a_longer_run_trains_what_is_missing_and_ends_the_same(store, empty_store, settings):
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


def test_the_run_that_came_furthest_is_gone_on_from(store, empty_store):
    for iterations in (2, 5):
        run(store, iterations)
    # the run of five has its last checkpoint after four
    longer, trained = run(store, 8)
    assert trained == [5, 6, 7, 8]
    # a shorter one comes by the first checkpoint of that
    between, trained = run(store, 3)
    assert trained == [3]
    for record in (longer, between):
        whole, _ = run(empty_store, record.summary.iterations)
        assert results(store, record) == results(empty_store, whole)


def test_a_run_is_gone_on_from_where_it_was_told_to_have_a_checkpoint(store, empty_store):
    settings = {"training__checkpoint_interval": 10, "training__checkpoints_after": [3, 5]}
    short, _ = run(store, 3, **settings)
    assert short.digest == run(empty_store, 3, training__checkpoint_interval=10)[0].digest
    longer, trained = run(store, 6, **settings)
    assert trained == [4, 5, 6]
    whole, _ = run(empty_store, 6, **settings)
    assert results(store, longer) == results(empty_store, whole)
    # at a checkpoint the environments start anew, so this is another run
    assert run(empty_store, 6, training__checkpoint_interval=10)[0].digest != whole.digest


def test_other_ways_to_be_judged_go_on_from_the_same_iterations(store):
    short, _ = run(store, 4)
    _, trained = run(store, 6, mode="full", evaluation__episodes=5)
    assert trained == [5, 6]
    _, trained = run(store, 6, evaluation__deterministic=False)
    assert trained == [5, 6]
    assert short.trajectory


@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({}, {"seed": 1}),
        ({}, {"optimizer__learning_rate": 1e-3}),
        ({}, {"training__checkpoint_interval": 4}),
        ({"scheduler__decay": "linear"}, {"scheduler__decay": "linear"}),
    ],
    ids=["another seed", "another rate", "other checkpoints", "a schedule over the run"],
)
def test_a_run_of_other_iterations_is_not_gone_on_from(store, settings, other):
    run(store, 4, **settings)
    longer, trained = run(store, 6, **other)
    assert trained == [1, 2, 3, 4, 5, 6]
    assert longer.continued is None


def test_the_last_iteration_of_a_run_that_is_judged_while_it_trains_is_its_own(store, empty_store):
    settings = {"evaluation__interval": 3}
    run(store, 4, **settings)  # evaluated after three, and at its end
    longer, trained = run(store, 6, **settings)
    assert trained == [3, 4, 5, 6]
    whole, _ = run(empty_store, 6, **settings)
    assert results(store, longer) == results(empty_store, whole)


def test_a_run_that_crashes_while_it_goes_on_ends_the_same(store, empty_store):
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


def test_a_run_that_dies_before_it_says_so_ends_the_same(store, empty_store, monkeypatch):
    """Its last checkpoint, for longer runs, is there; its record still says that it runs."""
    short, _ = run(store, 4, **SELF_PLAY)
    before = results(store, short)
    short.model_copy(update={"status": "running", "files": {}}).write(store.folder(short.digest))
    again, trained = run(store, 4, **SELF_PLAY)
    assert trained == [3, 4]
    assert results(store, again) == before


def test_a_damaged_run_is_not_gone_on_from(store, caplog):
    short, _ = run(store, 4)
    with (store.folder(short.digest) / METRICS_FILE).open("a") as file:
        file.write("5\n")
    longer, trained = run(store, 6)
    assert len(trained) == 6
    assert longer.continued is None
    assert f"run {short.digest} is damaged; it is not gone on from" in caplog.text


def test_without_resuming_a_run_starts_from_the_beginning(store):
    run(store, 4)
    trained = []
    train_run(
        make_config(training__total_frames=6 * FRAMES),
        store=store,
        resume=False,
        on_progress=lambda *args: trained.append(args[2]["iteration"]),
    )
    assert trained == [1, 2, 3, 4, 5, 6]


def test_back_ends_are_told_of_the_iterations_before(store):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(store, 4)
    longer, _ = run(store, 6, logger__backends=["tensorboard"])
    events = EventAccumulator(str(store.folder(longer.digest) / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("frames")]
    assert steps == [FRAMES * iteration for iteration in range(1, 7)]


def test_a_trajectory_has_no_end():
    short, longer = (make_config(training__total_frames=frames) for frames in (128, 512))
    assert trajectory_digest(short) == trajectory_digest(longer)
    # a checkpoint interval beyond the end is no other run, but may be another trajectory
    rare = make_config(training__total_frames=128, training__checkpoint_interval=4)
    assert trajectory_digest(rare) != trajectory_digest(short)
