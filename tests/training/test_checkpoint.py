"""Checkpoints: their content, rejected files, and safe loading."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_config import make_config

from heteromark.environment.opponents.pool import OpponentPool
from heteromark.modules.random_state import random_state, restore_random_state, seeded
from heteromark.training import checkpoint
from heteromark.training.checkpoint import (
    BestPolicy,
    Progress,
    load_checkpoint,
    policy_content,
    read_policy,
    save_checkpoint,
    shape_misfit,
    write_policy,
)
from heteromark.training.components import ComponentFactory

CPU = torch.device("cpu")
CONFIG = make_config()


def untrained(config=CONFIG):
    return ComponentFactory(config).create().learner


@pytest.fixture(scope="module")
def learner():
    """A learner after one iteration, so that every optimizer has a state."""
    components = ComponentFactory(CONFIG).create()
    components.collector.restart(0)
    components.algorithm.update(components.collector.collect(), 0)
    return components.learner


def weights(learner):
    networks = (*learner.actors.values(), *learner.critics.values())
    return torch.cat([torch.nn.utils.parameters_to_vector(net.parameters()) for net in networks])


def test_a_checkpoint_restores_everything(tmp_path, learner):
    progress = Progress(
        3,
        1.5,
        BestPolicy(2, -7.5, b"a policy"),
        {"wandb": "x1"},
        notes=("a note",),
        in_flight={"algorithm": {}},
    )
    pool, fresh_pool = OpponentPool(size=2), OpponentPool(size=2)
    pool.add(untrained(make_config(seed=7)).actors)
    pool.add(learner.actors)
    path = save_checkpoint(tmp_path, CONFIG, replace(learner, opponent_pool=pool), progress)
    assert path.parent == tmp_path / "checkpoints"
    drawn = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    other_seed = make_config(seed=9)
    fresh = replace(untrained(other_seed), opponent_pool=fresh_pool)
    assert (weights(learner) != weights(fresh)).any()
    assert load_checkpoint(tmp_path, other_seed, fresh) == progress
    again = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert (drawn[0] == again[0]).all()
    assert (drawn[1] == again[1]).all()
    assert drawn[2] == again[2]
    assert (weights(learner) == weights(fresh)).all()
    for ours, theirs in zip(
        *(p.state_dict()["snapshots"] for p in (pool, fresh_pool)), strict=True
    ):
        for name, tensor in ours["speaker"].items():
            assert (tensor == theirs["speaker"][name]).all()
    norm, other = learner.value_norms["team"], fresh.value_norms["team"]
    assert float(norm.debiasing_term) > 0
    assert (norm.running_mean == other.running_mean).all()
    for group, optimizer in learner.actor_optimizers.items():
        state = fresh.actor_optimizers[group].state_dict()["state"]
        assert state
        for index, ours in optimizer.state_dict()["state"].items():
            assert (ours["exp_avg_sq"] == state[index]["exp_avg_sq"]).all()


@pytest.mark.parametrize(("keep", "kept"), [(1, [10]), (2, [6, 10]), (9, [2, 4, 6, 10])])
def test_only_the_newest_checkpoints_are_kept(tmp_path, learner, keep, kept):
    config = make_config(training__keep_checkpoints=keep)
    for iteration in (2, 4, 6, 10):
        save_checkpoint(tmp_path, config, learner, Progress(iteration))
    names = sorted(path.name[:16] for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"iteration_{iteration:06d}" for iteration in kept]


def test_without_a_checkpoint_nothing_changes(tmp_path, learner):
    before = torch.get_rng_state()
    assert load_checkpoint(tmp_path, CONFIG, learner) is None
    assert (torch.get_rng_state() == before).all()


def test_another_version_is_rejected(tmp_path, monkeypatch, learner):
    monkeypatch.setattr(checkpoint, "VERSION", 99)
    path = save_checkpoint(tmp_path, CONFIG, learner, Progress(1))
    monkeypatch.undo()
    with pytest.raises(ValueError, match=rf"{path.name} has format version 99, .* reads version 3"):
        load_checkpoint(tmp_path, CONFIG, learner)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"policy__hidden_sizes": [9]},
            r"the run's actors of 'speaker': .*weight has shape \[8, 3\], expected \[9, 3\]",
        ),
        (
            {"policy__critic_hidden_sizes": [8, 8]},
            r"the run's critics of 'team': .*weight has shape \[1, 8\], expected \[8, 8\]",
        ),
        ({"algorithm": "IPPO"}, "written with agent.algorithm = 'HAPPO', but this run has 'IPPO'"),
        ({"optimizer_type": "sgd"}, "optimizer_type = 'adam', but this run has 'sgd'"),
        (
            {"loss__normalize_value": False},
            "has value_norms for team, but the run has value_norms for nothing",
        ),
        (
            {"environment__groups": {"all": ["speaker_0"], "listener": ["listener_0"]}},
            "has actors for speaker, listener, but the run has actors for all, listener",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_rejected_and_changes_nothing(
    tmp_path, learner, overrides, message
):
    path = save_checkpoint(tmp_path, CONFIG, learner, Progress(1))
    config = make_config(seed=5, **overrides)
    other = untrained(config if config.optimizer_type == "adam" else CONFIG)
    before = weights(other)
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(tmp_path, config, other)
    assert str(path) in str(error.value)
    assert "or delete the checkpoint to train from scratch" in str(error.value)
    assert (weights(other) == before).all()


def test_an_entry_that_is_not_a_tensor_is_a_misfit():
    state = {"weight": torch.zeros(2, 3), "count": 1}
    assert shape_misfit(state, state) is None
    assert shape_misfit(state, {**state, "weight": 0.5}) == (
        "weight has shape none, expected [2, 3]"
    )
    assert shape_misfit(state, {**state, "count": torch.zeros(1)}) == (
        "count has shape [1], expected none"
    )


def test_checkpoint_and_run_must_both_have_an_opponent_pool(tmp_path, learner):
    save_checkpoint(tmp_path, CONFIG, learner, Progress(1))
    with pytest.raises(ValueError, match="opponent_pools for nothing, but the run has opponent_"):
        load_checkpoint(tmp_path, CONFIG, replace(learner, opponent_pool=OpponentPool(size=2)))


def test_a_checkpoint_from_a_gpu_can_be_read_without_one(tmp_path, monkeypatch, learner):
    """A file contains the device of its tensors; this machine may not have that device."""
    state = random_state()
    state["cuda"] = [torch.get_rng_state()] * 3  # three GPUs; this machine may have any number
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        elsewhere.setattr(checkpoint, "random_state", lambda: state)
        content = policy_content(CONFIG, learner, 4, -1.5)
        path = save_checkpoint(tmp_path, CONFIG, learner, Progress(3))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    fresh = untrained(make_config(seed=9))
    assert load_checkpoint(tmp_path, CONFIG, fresh) == Progress(3)
    assert (weights(learner) == weights(fresh)).all()
    write_policy(tmp_path / "best.pt", content)
    saved = read_policy(tmp_path / "best.pt", CPU)
    assert all(tensor.device == CPU for tensor in saved["actors"]["speaker"].values())


def test_the_same_policy_has_the_same_bytes(learner):
    assert policy_content(CONFIG, learner, 4, -1.5) == policy_content(CONFIG, learner, 4, -1.5)


def test_a_policy_can_be_read_from_a_progress_checkpoint(tmp_path, learner):
    write_policy(tmp_path / "final.pt", policy_content(CONFIG, learner, 4, -1.5))
    path = save_checkpoint(tmp_path, CONFIG, learner, Progress(3))
    final, early = (read_policy(p, CPU) for p in (tmp_path / "final.pt", path))
    assert (final["iteration"], early["iteration"]) == (4, 3)
    assert (final["evaluation_return"], early["evaluation_return"]) == (-1.5, None)
    assert final["config"] == early["config"] == CONFIG.model_dump(mode="json")
    assert final["opponent_pool"] is early["opponent_pool"] is None
    for name, tensor in final["actors"]["listener"].items():
        assert (tensor == early["actors"]["listener"][name]).all()


class _Attack:
    def __reduce__(self):
        return (open, ("pwned", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is damaged or not a heteromark checkpoint"),
        (b"not a checkpoint at all", "is damaged or not a heteromark checkpoint"),
        (_Attack(), "is damaged or not a heteromark checkpoint"),
        ({"model": torch.zeros(1)}, "was not written by heteromark"),
        ([1, 2], "was not written by heteromark"),
        ({"version": 0}, "has format version 0"),
    ],
    ids=["missing", "empty", "text", "code", "foreign", "list", "old"],
)
def test_a_file_that_is_not_a_policy_is_rejected(tmp_path, monkeypatch, content, message):
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


def test_seeded_restores_the_random_state():
    before = random_state()
    expected = torch.rand(1), random.random()
    restore_random_state(before)
    with seeded(5):
        first = torch.rand(1), random.random()
    with seeded(5):
        assert (torch.rand(1), random.random()) == first
    assert (torch.rand(1), random.random()) == expected
