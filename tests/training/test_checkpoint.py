"""Checkpoints: what they hold, what is refused, and what loading them cannot do."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from engine_config import make_config

from heteromark.training import checkpoint
from heteromark.training.checkpoint import (
    Progress,
    load_checkpoint,
    read_policy,
    save_checkpoint,
    save_policy,
)
from heteromark.training.components import ComponentFactory
from heteromark.training.random_state import random_state, restore_random_state, seeded

CPU = torch.device("cpu")


def trained(**overrides):
    """A learner after one iteration, so that every optimizer has a state."""
    config = make_config(**overrides)
    components = ComponentFactory(config).create()
    components.collector.restart(0)
    components.algorithm.update(components.collector.collect(), 0)
    return components.learner


def test_everything_comes_back(tmp_path):
    learner = trained()
    path = save_checkpoint(tmp_path, learner, Progress(3, 1.5))
    assert path.parent == tmp_path / "checkpoints"
    drawn = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    fresh = ComponentFactory(make_config(seed=9)).create().learner
    assert load_checkpoint(tmp_path, fresh) == Progress(3, 1.5)
    again = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert (drawn[0] == again[0]).all()
    assert (drawn[1] == again[1]).all()
    assert drawn[2] == again[2]
    for kind in ("actors", "critics"):
        for name, network in getattr(learner.policies, kind).items():
            other = getattr(fresh.policies, kind)[name]
            for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
                assert (ours == theirs).all()
    norm, other = learner.value_norms["team"], fresh.value_norms["team"]
    assert float(norm.debiasing_term) > 0
    assert (norm.running_mean == other.running_mean).all()
    for group, optimizer in learner.actor_optimizers.items():
        state = fresh.actor_optimizers[group].state_dict()["state"]
        assert state
        for index, ours in optimizer.state_dict()["state"].items():
            assert (ours["exp_avg_sq"] == state[index]["exp_avg_sq"]).all()


def test_the_newest_two_are_kept(tmp_path):
    learner = trained()
    for iteration in (2, 4, 6, 10):
        save_checkpoint(tmp_path, learner, Progress(iteration, 0.0))
    names = sorted(path.name[:16] for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["iteration_000006", "iteration_000010"]


def test_without_a_checkpoint_nothing_is_changed(tmp_path):
    learner = trained()
    before = torch.get_rng_state()
    assert load_checkpoint(tmp_path, learner) is None
    assert (torch.get_rng_state() == before).all()


def test_another_version_is_refused(tmp_path, monkeypatch):
    learner = trained()
    monkeypatch.setattr(checkpoint, "VERSION", 99)
    path = save_checkpoint(tmp_path, learner, Progress(1, 0.0))
    monkeypatch.undo()
    with pytest.raises(ValueError, match=rf"{path.name} has version 99, .* reads version 1"):
        load_checkpoint(tmp_path, learner)


def test_another_networks_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path, trained(), Progress(1, 0.0))
    with pytest.raises(ValueError, match=r"does not fit the run's actors of speaker"):
        load_checkpoint(tmp_path, trained(policy__hidden_sizes=[9]))
    with pytest.raises(ValueError, match=r"holds critics of team, but the run has speaker"):
        load_checkpoint(tmp_path, trained(algorithm="IPPO"))


def test_the_same_policy_has_the_same_bytes(tmp_path):
    config, learner = make_config(), trained()
    (tmp_path / "elsewhere").mkdir()
    first = save_policy(tmp_path, config, learner).read_bytes()
    assert save_policy(tmp_path / "elsewhere", config, learner).read_bytes() == first


class _Attack:
    def __reduce__(self):
        return (open, ("pwned", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no checkpoint"),
        (b"", "is damaged or no checkpoint"),
        (b"not a checkpoint at all", "is damaged or no checkpoint"),
        (_Attack(), "is damaged or no checkpoint"),
        ({"model": torch.zeros(1)}, "was not written by heteromark"),
        ([1, 2], "was not written by heteromark"),
        ({"version": 0}, "has version 0"),
        ({"version": 1, "iteration": 3}, "holds a run's progress"),
    ],
    ids=["missing", "empty", "text", "code", "foreign", "list", "old", "progress"],
)
def test_what_is_no_policy_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        read_policy(path, CPU)
    assert str(path) in str(error.value)
    assert not (tmp_path / "pwned").exists()


def test_random_streams_can_be_borrowed():
    before = random_state()
    expected = torch.rand(1), random.random()
    restore_random_state(before)
    with seeded(5):
        first = torch.rand(1), random.random()
    with seeded(5):
        assert (torch.rand(1), random.random()) == first
    assert (torch.rand(1), random.random()) == expected
