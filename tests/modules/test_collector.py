"""SyncCollector: consecutive steps of every copy, restarted at will."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config

from heteromark.algorithm.statistics import log_prob
from heteromark.training.components import ComponentFactory


def collector(**overrides):
    return ComponentFactory(make_config(**overrides)).create().collector


def test_a_batch_is_consecutive_steps_of_every_copy():
    collect = collector(
        environment__task="toy_environments:ToyBattle", environment__kwargs={"length": None}
    )
    collect.restart(0, "training", 0)
    first = collect.collect().clone()
    second = collect.collect()
    assert first.batch_size == (2, 32)
    data = torch.cat([first, second], 1)
    going_on = ~data["next", "done"][:, :-1, 0]
    for group in ("archer", "healer"):
        after = data["next", group, "observation"][:, :-1][going_on]
        assert (after == data[group, "observation"][:, 1:][going_on]).all()
    assert not going_on.all()


def test_a_restart_forgets_what_was_before():
    collect = collector()
    torch.manual_seed(1)
    collect.restart(0, "training", 4)
    first = collect.collect().clone()
    collect.collect()
    torch.manual_seed(1)
    collect.restart(0, "training", 4)
    assert (collect.collect() == first).all()


def test_it_acts_with_the_weights_as_they_are_now():
    components = ComponentFactory(make_config()).create()
    components.collector.restart(0)
    components.collector.collect()
    for group, actor in components.learner.policies.actors.items():
        with torch.no_grad():
            for parameter in actor.parameters():
                parameter += 0.3
        batch = components.collector.collect()
        now = log_prob(actor, batch, group)
        torch.testing.assert_close(batch[group, "action_log_prob"], now)


def test_what_an_algorithm_adds_is_not_in_the_next_batch():
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
