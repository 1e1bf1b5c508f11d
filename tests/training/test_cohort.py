"""Runs that are trained together: each result is that of the run trained alone, bit for bit."""

from __future__ import annotations

import re
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from attempts import Crash, crash_at, results
from engine_config import TIC_TAC_TOE, make_config

from heteromark.commands.cohort import (
    CohortMember,
    cohort_key,
    reason_for_own_process,
    train_cohort,
)
from heteromark.commands.launch import Terminated, interleave
from heteromark.config.errors import ConfigError
from heteromark.environment.skirmish import SkirmishEnv
from heteromark.modules.plain import plain_actors
from heteromark.modules.rollout import RolloutPolicy
from heteromark.runs.digest import run_digest
from heteromark.runs.record import CHECKPOINT_FILE, RunRecord, Status
from heteromark.runs.store import RunStore
from heteromark.training.cohort import Cohort
from heteromark.training.components import ComponentFactory
from heteromark.training.loop import train

PAST = {"kind": "past_self", "pool_size": 2, "snapshot_interval": 1}
SKIRMISH = {
    "env_type": "skirmish",
    "environment__task": None,
    "environment__skirmish": {"scenario": "10gen_terran"},
    "environment__num_parallel_envs": 4,
}
FIXED_TEAMS = {**SKIRMISH, "environment__skirmish": {"scenario": "mini_MMM"}}
# Each with what differs between its members, besides their seeds.
COHORTS = {
    "HAPPO": (SKIRMISH, [{}, {}, {"optimizer__learning_rate": 1e-3}]),
    "fixed teams, sizes": (FIXED_TEAMS, [{}, {"policy__hidden_sizes": [16, 8]}]),
    "MAPPO, IPPO": (SKIRMISH, [{"algorithm": "MAPPO"}, {"algorithm": "IPPO"}]),
    "MaskablePPO": ({**SKIRMISH, "algorithm": "MaskablePPO"}, [{}, {"loss__gamma": 0.9}]),
    "HATRPO": ({**SKIRMISH, "algorithm": "HATRPO"}, [{}, {}]),
    "other GRUs": (
        {**SKIRMISH, "policy_type": "gru", "evaluation__deterministic": False},
        [{"policy__gru": {"hidden_size": 4}}, {"policy__gru": {"hidden_size": 8, "num_layers": 2}}],
    ),
    "GRU beside MLP": (SKIRMISH, [{"policy_type": "gru"}, {}, {"policy_type": "gru"}]),
    "one battle each": ({**SKIRMISH, "environment__num_parallel_envs": 1}, [{}, {}]),
    "periodic evaluation": ({**SKIRMISH, "evaluation__interval": 2}, [{}, {}]),
    "other evaluations": (SKIRMISH, [{"evaluation__interval": 1}, {"evaluation__interval": 3}]),
    "other lengths": (SKIRMISH, [{"training__total_frames": 128}, {}]),
    "other batches": (SKIRMISH, [{"collector__frames_per_batch": 128}, {}]),
    "sampled evaluation": ({**SKIRMISH, "evaluation__deterministic": False}, [{}, {}]),
    "observation norm": ({**SKIRMISH, "policy__observation_norm": True}, [{}, {}]),
    "PettingZoo": ({}, [{}, {}, {"algorithm": "MAPPO"}]),
    "self-play": ({**TIC_TAC_TOE, "environment__opponent": PAST}, [{}, {}]),
    "PettingZoo beside Skirmish": ({}, [{}, SKIRMISH, SKIRMISH]),
}


def configs(name: str, **changes):
    common, members = COHORTS[name]
    return [
        make_config(**{**common, **member, **changes}, seed=seed)
        for seed, member in enumerate(members)
    ]


def train_together(members, folder: Path, on_progress=None) -> list:
    cohort = Cohort()
    return interleave(
        [
            cohort.steps(config, made(folder / str(number)), on_progress=on_progress)
            for number, config in enumerate(members)
        ]
    )


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


IN_SHORT_TIER = ("HAPPO", "GRU beside MLP", "self-play")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in IN_SHORT_TIER else pytest.mark.slow) for n in COHORTS],
)
def test_a_member_is_bit_identical_to_the_run_alone(name, tmp_path):
    members = configs(name)
    outcomes = train_together(members, tmp_path)
    for number, (config, outcome) in enumerate(zip(members, outcomes, strict=True)):
        train(config, tmp_path / "alone" / str(number))
        assert outcome.status is Status.COMPLETED
        assert results(tmp_path / str(number)) == results(tmp_path / "alone" / str(number))


@pytest.mark.parametrize("name", ["HAPPO", pytest.param("PettingZoo", marks=pytest.mark.slow)])
def test_a_killed_cohort_resumes(name, tmp_path):
    """Its members may have their last checkpoints at different iterations."""
    members = configs(name, training__checkpoint_interval=1)
    calls = []

    def crash(*_):
        calls.append(None)
        if len(calls) == 5:  # in the second iteration of the second member
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(members, tmp_path, on_progress=crash)
    assert all(each.status is Status.COMPLETED for each in train_together(members, tmp_path))
    for number, config in enumerate(members):
        train(config, tmp_path / "alone" / str(number))
        assert results(tmp_path / str(number)) == results(tmp_path / "alone" / str(number))


def test_a_member_that_crashes_or_diverges_leaves_the_others_alone(tmp_path):
    explodes = {
        "optimizer_type": "sgd",
        "optimizer__learning_rate": 1.0,
        "optimizer__weight_decay": 1000.0,
        "training__max_grad_norm": None,
    }
    long = {**SKIRMISH, "training__total_frames": 640}
    members = [make_config(**{**long, **each}) for each in ({}, explodes, {})]
    cohort = Cohort()
    steps = [
        cohort.steps(config, made(tmp_path / str(number)), on_progress=on_progress)
        for number, (config, on_progress) in enumerate(
            zip(members, (None, None, crash_at(5)), strict=True)
        )
    ]
    completed, diverged, crashed = interleave(steps)
    assert completed.status is Status.COMPLETED
    assert diverged.status is Status.DIVERGED
    assert isinstance(crashed, Crash)
    train(members[0], tmp_path / "alone")
    assert results(tmp_path / "0") == results(tmp_path / "alone")


class Stumbles(torch.nn.Module):
    """Raises at its n-th call."""

    def __init__(self, module, calls: int) -> None:
        super().__init__()
        self.module, self._left = module, calls

    def forward(self, *inputs):
        self._left -= 1
        if not self._left:
            raise ArithmeticError("stumbled")
        return self.module(*inputs)


@pytest.mark.parametrize("calls", [1, 40, 70], ids=["at once", "in a batch", "in an evaluation"])
def test_an_error_of_a_members_actor_is_its_own(calls, tmp_path, monkeypatch):
    """In a batch that the member shares with others, they play on, also those after it."""
    members = configs("HAPPO", evaluation__interval=2, training__num_epochs=1)
    stumbling = []

    class Watched(RolloutPolicy):
        def __init__(self, actors, *arguments, **options):
            super().__init__(actors, *arguments, **options)
            first = self._plain[0].network
            if stumbling.count(id(first.steps[0][0])):
                module, *keys = first.steps[0]
                object.__setattr__(first, "steps", ((Stumbles(module, calls), *keys),))

    monkeypatch.setattr("heteromark.modules.sharing.RolloutPolicy", Watched)
    monkeypatch.setattr("heteromark.training.evaluator.RolloutPolicy", Watched)
    create = ComponentFactory.create

    def marked(self, share=None):
        if self.config.seed == 1 and share is not None:
            before = len(stumbling)
            monkeypatch.setattr(
                "heteromark.modules.rollout.plain_actors",
                lambda actors: [
                    stumbling.append(id(each.network.steps[0][0])) or each
                    for each in plain_actors(actors)
                ],
            )
            made = create(self, share)
            monkeypatch.setattr("heteromark.modules.rollout.plain_actors", plain_actors)
            assert len(stumbling) > before
            return made
        return create(self, share)

    monkeypatch.setattr(ComponentFactory, "create", marked)
    first, second, third = train_together(members, tmp_path)
    assert isinstance(second, ArithmeticError)
    monkeypatch.undo()
    for number, outcome in ((0, first), (2, third)):
        assert outcome.status is Status.COMPLETED
        train(members[number], tmp_path / "alone" / str(number))
        assert results(tmp_path / str(number)) == results(tmp_path / "alone" / str(number))


def test_an_error_of_the_shared_environment_ends_all_its_members(tmp_path, monkeypatch):
    """None of them goes on with a part of a batch; each resumes from its last checkpoint."""
    members = configs("HAPPO", training__checkpoint_interval=1)
    step, steps = SkirmishEnv._step, []

    def fail_once(self, tensordict):
        steps.append(None)
        if len(steps) == 25:  # in the second iteration of 16 steps
            raise MemoryError("no memory")
        return step(self, tensordict)

    monkeypatch.setattr(SkirmishEnv, "_step", fail_once)
    outcomes = train_together(members, tmp_path)
    assert all("no memory" in str(outcome) for outcome in outcomes)
    monkeypatch.undo()
    assert all(each.status is Status.COMPLETED for each in train_together(members, tmp_path))
    for number, config in enumerate(members):
        train(config, tmp_path / "alone" / str(number))
        assert results(tmp_path / str(number)) == results(tmp_path / "alone" / str(number))


@pytest.mark.parametrize("crashes", [False, True])
def test_as_many_battles_as_units(crashes, tmp_path):
    """Some tensors of fixed teams are [units, 1], others [battles, 1]."""
    settings = {**FIXED_TEAMS, "environment__num_parallel_envs": 5}
    settings |= {"collector__frames_per_batch": 60, "replay_buffer__minibatch_size": 30}
    settings |= {"agent__n_steps": 60, "agent__batch_size": 30, "training__total_frames": 360}
    members = [make_config(**settings, seed=seed) for seed in (0, 1)]
    cohort = Cohort()
    _, outcome = interleave(
        [
            cohort.steps(
                config,
                made(tmp_path / str(config.seed)),
                on_progress=crash_at(3) if crashes and not config.seed else None,
            )
            for config in members
        ]
    )
    assert outcome.status is Status.COMPLETED
    for config in members:
        train(config, tmp_path / "alone" / str(config.seed))
        # the crashed one goes on alone
        train(config, tmp_path / str(config.seed))
        alone = results(tmp_path / "alone" / str(config.seed))
        assert results(tmp_path / str(config.seed)) == alone


# --- in the run store -----------------------------------------------------------------------------


def entrants(members) -> list[CohortMember]:
    return [CohortMember(config, "config/agents/test.yaml", ("train", "it")) for config in members]


def test_a_cohort_fills_the_store(tmp_path):
    store, members = RunStore(tmp_path), configs("HAPPO")
    began = time.monotonic()
    assert train_cohort(entrants(members), store) == "3 of 3 runs trained in one process"
    taken = time.monotonic() - began
    spent = [store.lookup(run_digest(config)).duration_seconds for config in members]
    assert 0.3 * taken < sum(spent) < taken  # the waiting for others is nobody's time
    for config in members:
        record = store.lookup(run_digest(config))
        assert record is not None
        assert record.status is Status.COMPLETED
        assert record.used == {}
        assert record.command == ["train", "it"]
        log = (store.folder(record.digest) / "train.log").read_text()
        assert record.digest in log
        others = {run_digest(each) for each in members} - {record.digest}
        assert not any(digest in log for digest in others)
    done = "nothing to train: 3 runs are in the run store"
    assert train_cohort(entrants(members), store) == done


def test_only_missing_runs_are_trained(tmp_path):
    store, members = RunStore(tmp_path), configs("HAPPO")
    train_cohort(entrants(members[:1]), store)
    before = (store.folder(run_digest(members[0])) / CHECKPOINT_FILE).stat().st_mtime_ns
    with store.writing(run_digest(members[1])):  # another process trains it
        assert train_cohort(entrants(members), store) == "1 of 2 runs trained in one process"
    assert (store.folder(run_digest(members[0])) / CHECKPOINT_FILE).stat().st_mtime_ns == before
    assert store.lookup(run_digest(members[2])) is not None


def test_a_signal_interrupts_all_runs_and_they_resume(tmp_path):
    store = RunStore(tmp_path)
    members = configs("HAPPO", training__checkpoint_interval=1, training__total_frames=64 * 100)
    timer = threading.Timer(3, signal.raise_signal, [signal.SIGTERM])
    timer.start()
    with pytest.raises(Terminated):
        train_cohort(entrants(members), store)
    timer.join()
    for config in members:
        record = RunRecord.read(store.folder(run_digest(config)))
        assert (record.status, record.reason) == (Status.INTERRUPTED, "ended by SIGTERM")
        assert not store.is_locked(record.digest)


def test_a_failed_run_is_named_and_the_others_are_finished(tmp_path, caplog):
    store, members = RunStore(tmp_path), configs("HAPPO")
    folder = store.folder(run_digest(members[1]))
    made(folder / "metrics.csv")  # a folder in the way
    assert train_cohort(entrants(members), store) == "2 of 3 runs trained in one process"
    assert run_digest(members[1]) in caplog.text
    assert store.lookup(run_digest(members[1])) is None


def test_an_undeclared_file_fails_every_run(tmp_path, monkeypatch, caplog):
    """Only the first to read it is watched doing so, but all of them may use it."""
    monkeypatch.chdir(made(tmp_path / "project"))
    Path("levels.txt").write_text("7")
    step = SkirmishEnv._step

    def reading_step(self, tensordict):
        Path("levels.txt").read_text()
        return step(self, tensordict)

    monkeypatch.setattr(SkirmishEnv, "_step", reading_step)
    store = RunStore(tmp_path / "store")
    done = train_cohort(entrants(configs("HAPPO")), store)
    assert done == "0 of 3 runs trained in one process"
    assert caplog.text.count("failed: UnsealedRun: the run read levels.txt") == 3


def test_a_cohort_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    @dataclass
    class Memory:
        available: int = field(default=2**20)

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    with pytest.raises(ConfigError, match=r"smoke\.cohort = 3: 3 runs in one process need about"):
        train_cohort(entrants(configs("HAPPO")), RunStore(tmp_path))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"collector_type": "multi_sync"}, "collector_type is multi_sync"),
        ({"logger__backends": ["mlflow"]}, "logger.backends is mlflow"),
        ({"environment__num_workers": 1}, "environment.num_workers is not 0"),
        ({"environment__task": "toy_environments:ToyBattle"}, "they use .*toy_environments.py"),
    ],
    ids=["own processes", "a client with one run", "workers", "own code"],
)
def test_some_runs_need_a_process_of_their_own(changes, reason):
    assert re.fullmatch(reason, reason_for_own_process(make_config(**changes)))
    assert reason_for_own_process(make_config()) is None


def test_runs_in_one_process_have_the_same_number_of_threads():
    assert cohort_key(make_config()) != cohort_key(make_config(training__num_threads=2))
