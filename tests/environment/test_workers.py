"""Worker processes: same results, no hangs, nothing left behind."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from rollouts import play
from toy_environments import FaultyBattle, GlobalDice, ToyBattle

from heteromark.environment.errors import WorkerDied
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv

# ruff: noqa: NPY002 - the global generators are what is tested

# A program with two workers that steps endlessly; it prints its workers' process ids.
ENDLESS = """
from toy_environments import ToyBattle
from heteromark.environment.pettingzoo.arrays import action_layout, output_layout
from heteromark.environment.pettingzoo.copies import CopySettings
from heteromark.environment.pettingzoo.description import describe
from heteromark.environment.pettingzoo.parallel_copies import ParallelCopies
from heteromark.environment.pettingzoo.workers import WorkerPool
description = describe(ToyBattle(), "toy")
settings = CopySettings(ToyBattle, "toy", description, description.group(), team_reward=True)
shown, actions = output_layout(settings.groups, 2), action_layout(settings.groups, 2)
pool = WorkerPool(ParallelCopies, settings, [shown, actions], num_copies=2, num_workers=2)
print(*(worker.process.pid for worker in pool._workers), flush=True)
for action in actions.views(pool.block, shown.size).values():
    action[...] = 3
while True:
    pool.reset([0, 1])
    pool.step()
"""


def battles(num_workers, num_envs=4, **kwargs):
    return PettingZooParallelEnv(
        functools.partial(ToyBattle, **kwargs), num_envs, num_workers=num_workers, name="toy"
    )


def pids(env):
    return [worker.process.pid for worker in env._copies._workers]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(processes, seconds=3.0):
    deadline = time.monotonic() + seconds
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.01)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_the_number_of_workers_changes_nothing(num_workers):
    here, there = battles(0, length=None), battles(num_workers, length=None)
    for seed in (0, 1):
        expected = play(here, 25, seed)
        assert expected["next", "done"].any(1).all()
        assert (play(there, 25, seed) == expected).all()
    processes = pids(there)
    maps = Path(f"/proc/{processes[0]}/maps").read_text()
    assert "libtorch" not in maps, "a worker that imports torch takes seconds to start"
    there.close()
    assert not any(map(is_running, processes))
    with pytest.raises(RuntimeError, match="have been closed"):
        there.reset()


def test_what_copies_draw_from_global_generators_does_not_depend_on_workers():
    rollouts = []
    for num_workers in (0, 1, 2):
        make = functools.partial(GlobalDice, length=None)
        env = PettingZooParallelEnv(make, 3, num_workers=num_workers)
        rollouts.append(play(env, 12))
        assert (play(env, 12, seed=1) != rollouts[0]).any()
        assert (play(env, 12) == rollouts[0]).all(), "a reseed starts over"
        env.close()
    assert (rollouts[0] == rollouts[1]).all()
    assert (rollouts[0] == rollouts[2]).all()
    noise = rollouts[0]["archer", "observation"][:, :, 0, 2]
    drawn = noise[rollouts[0]["step_count"].squeeze(-1) % 3 < 2]
    assert drawn.unique().numel() == drawn.numel(), "all copies and steps differ"


def test_some_of_the_copies_behave_as_they_do_among_all():
    """As in the collectors of a run, which each have some of the copies in a separate process."""

    class Born(ToyBattle):
        def __init__(self) -> None:
            super().__init__(nan_at=1)
            self.strength = np.random.random()

    def strengths(env):
        return [copy.strength for copy in env._copies._envs]

    share = PettingZooParallelEnv(Born, 2, first=2)
    everyone = strengths(PettingZooParallelEnv(Born, 4))
    assert strengths(share) == everyone[2:]
    assert len(set(everyone)) == 4
    with pytest.raises(ValueError, match="of copy 2 an observation with NaN"):
        play(share, 2)


def test_a_late_first_draw_from_global_generators_causes_a_warning():
    """Swapping stops after whole episodes without a draw, because it costs time."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(PettingZooParallelEnv(ToyBattle, 2), 12)
        play(PettingZooParallelEnv(functools.partial(GlobalDice, quiet=4), 2), 12)
    env = PettingZooParallelEnv(functools.partial(GlobalDice, quiet=8), 2, name="dice")
    with pytest.warns(
        UserWarning, match="'dice' started to draw from .*depend on environment.num_workers"
    ):
        first = play(env, 12)
    assert (first["archer", "observation"][0, 9:] != first["archer", "observation"][1, 9:]).any()


def test_the_generators_of_the_process_are_restored():
    env = PettingZooParallelEnv(GlobalDice, 2)
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    play(env, 8)
    assert (random.random(), np.random.random()) == expected


def faulty(fault):
    make = functools.partial(FaultyBattle, fault)
    return PettingZooParallelEnv(make, 2, num_workers=2, name="faulty")


def test_an_exception_is_raised_with_the_workers_traceback():
    env = faulty("raise")
    with pytest.raises(LookupError, match="second step is missing") as caught:
        play(env, 3)
    assert "in copy 0 of environment 'faulty'" in caught.value.__notes__
    assert "toy_environments.py" in str(caught.value.__cause__)
    env.close()


@pytest.mark.parametrize(
    ("fault", "how"),
    [("exit", "ended with exit status 3"), ("kill", r"was killed by signal 9 \(SIGKILL\)")],
)
def test_a_worker_that_dies_is_reported(fault, how):
    env = faulty(fault)
    processes = pids(env)
    began = time.monotonic()
    with pytest.raises(WorkerDied, match=rf"with copy 0 of environment 'faulty' {how}; set"):
        play(env, 3)
    assert time.monotonic() - began < 2
    assert not any(map(is_running, processes)), "the others are ended too"


def test_a_worker_killed_from_outside_between_two_steps_is_reported():
    env = battles(2)
    env.reset()
    os.kill(pids(env)[1], signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"copies 2 to 3 .* signal 9 \(SIGKILL\)"):
        play(env, 1)


def test_errors_during_worker_startup():
    with pytest.raises(ValueError, match=r"cannot be sent to worker processes: .*num_workers=0"):
        PettingZooParallelEnv(lambda: ToyBattle(), 2, num_workers=1)
    FaultyBattle.made = 0
    with pytest.raises(ValueError, match="action space of agent 'archer_0'"):
        PettingZooParallelEnv(functools.partial(FaultyBattle, "spaces"), 2, num_workers=1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-C"])
def test_workers_end_with_their_parent(number):
    program = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        workers = list(map(int, program.stdout.readline().split()))
        assert all(map(is_running, workers))
        time.sleep(0.2)
        os.killpg(program.pid, number)
        _, errors = program.communicate(timeout=10)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
    assert "WorkerDied" not in errors
    assert errors.count("Traceback") <= 1, "only the parent's"
    wait_until_gone(workers)
