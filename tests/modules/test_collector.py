"""Collectors: consecutive steps of every copy, and restarts."""

from __future__ import annotations

import time

import pytest
import torch
from engine_config import make_config

from heteromark.algorithm.statistics import log_prob
from heteromark.environment.errors import WorkerDied
from heteromark.modules.policy import update_observation_norms
from heteromark.training.components import ComponentFactory

TOY = {"environment__task": "toy_environments:ToyBattle"}


def collector(**overrides):
    return ComponentFactory(make_config(**overrides)).create().collector


@pytest.fixture(scope="module", params=["sync", "multi_sync"])
def components(request):
    """Toy battles of random length; shared, because starting processes takes seconds."""
    config = make_config(
        **TOY,
        environment__kwargs={"length": None},
        collector_type=request.param,
        policy__groups={"healer": {"policy_type": "gru"}},
        policy__observation_norm=True,
    )
    created = ComponentFactory(config).create()
    yield created
    created.collector.close()


def test_a_batch_is_consecutive_steps_of_every_copy(components):
    collect = components.collector
    collect.restart(0, "training", 0)
    first = collect.collect().clone()
    second = collect.collect()
    assert first.batch_size == (2, 32)
    assert (first["archer", "observation"][0] != first["archer", "observation"][1]).any()
    data = torch.cat([first, second], 1)
    continues = ~data["next", "done"][:, :-1, 0]
    for group in ("archer", "healer"):
        after = data["next", group, "observation"][:, :-1][continues]
        assert (after == data[group, "observation"][:, 1:][continues]).all()
    assert not continues.all()
    before, after = data["healer", "hidden"][:, 1:], data["next", "healer", "hidden"][:, :-1]
    assert (after[continues] == before[continues]).all()
    assert (before != 0).any()


def test_a_restart_does_not_depend_on_earlier_batches(components):
    collect = components.collector
    torch.manual_seed(1)
    collect.restart(0, "training", 4)
    first = collect.collect().clone()
    collect.collect()
    torch.manual_seed(1)
    collect.restart(0, "training", 4)
    again = collect.collect().clone()
    assert (again.exclude("collector") == first.exclude("collector")).all()
    collect.restart(0, "training", 5)
    other = collect.collect()
    assert (other["archer", "observation"] != first["archer", "observation"]).any()
    assert (other["archer", "action"] != first["archer", "action"]).any()


def test_environments_stepped_by_python_are_collected_with_one_thread():
    """This leaves the cores to workers. The update uses the configured number of threads."""
    before = torch.get_num_threads()
    components = ComponentFactory(make_config(training__num_threads=2)).create()
    step, threads = components.environment._step, []

    def watched(tensordict):
        threads.append(torch.get_num_threads())
        return step(tensordict)

    components.environment._step = watched
    try:
        components.collector.restart(0)
        components.collector.collect()
        assert set(threads) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_it_acts_with_the_current_weights_and_statistics(components):
    components.collector.restart(0)
    batch = components.collector.collect()
    for group, actor in components.learner.actors.items():
        update_observation_norms(actor, batch, (group, "active"))
        with torch.no_grad():
            for parameter in actor.parameters():
                parameter += 0.3
        batch = components.collector.collect()
        now = log_prob(actor, batch, group)
        torch.testing.assert_close(batch[group, "action_log_prob"], now)


def test_keys_added_by_an_algorithm_are_not_in_the_next_batch():
    collect = collector()
    collect.restart(0)
    batch = collect.collect()
    batch["advantage"] = batch["listener", "factor"] = batch["next", "done"]
    names = collect.collect().keys(True)
    assert "advantage" not in names
    assert ("listener", "factor") not in names


def test_it_must_be_started():
    with pytest.raises(RuntimeError, match="call restart"):
        collector().collect()


@pytest.mark.slow
def test_an_error_of_an_environment_in_a_process_is_raised_here(capfd):
    collect = collector(**TOY, environment__kwargs={"nan_at": 3}, collector_type="multi_sync")
    collect.restart(0)
    with pytest.raises(
        ValueError, match="agent 'archer_0' of copy 0 an observation with"
    ) as caught:
        collect.collect()
    assert "toy_environments.py" not in str(caught.value)
    assert "in _check_outputs" in str(caught.value.__cause__), "the traceback is for the log"
    began = time.monotonic()
    collect.close()
    assert time.monotonic() - began < 3
    assert capfd.readouterr() == ("", ""), "the process itself prints nothing"


@pytest.mark.slow
def test_a_killed_process_is_reported_with_its_copies(capfd):
    collect = collector(
        environment__task="toy_environments:FaultyBattle",
        environment__kwargs={"fault": "kill"},
        environment__num_parallel_envs=4,
        collector_type="multi_sync",
        collector__num_collectors=2,
    )
    collect.restart(0)
    began = time.monotonic()
    killed = (
        r"process with copies [02] to [13] .* was killed by signal 9 \(SIGKILL\); set collector"
    )
    with pytest.raises(WorkerDied, match=killed):
        collect.collect()
    collect.close()
    assert time.monotonic() - began < 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment__num_workers": 1}, "must be 0 with collector_type multi_sync"),
        ({"environment__opponent": {"kind": "past_self"}}, "needs collector_type=sync"),
        ({"collector__num_collectors": 3}, "must divide environment.num_parallel_envs"),
    ],
)
def test_unsupported_options_of_several_collectors_are_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        make_config(collector_type="multi_sync", **changes)
