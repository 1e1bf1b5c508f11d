"""Compiled battles, the fallback without a compiler, and the requirements of CUDA graphs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish import SkirmishEnv
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.compilation import Graphed
from heteromark.environment.skirmish.opponents import COMMANDERS


def play(env, steps):
    now, seen = env.reset(), []
    for _ in range(steps):
        for name in env.groups:
            mask = now[name, "action_mask"].int()
            now[name, "action"] = mask.shape[-1] - 1 - mask.flip(-1).argmax(-1)
        stepped, now = env.step_and_maybe_reset(now)
        seen.append(stepped)
    return torch.stack(seen, 1)


@pytest.mark.slow
def test_compiled_battles_are_the_same():
    scenario = "10gen_terran"
    plain = play(SkirmishEnv(scenario, num_envs=16, seed=0), 40)
    compiled = play(SkirmishEnv(scenario, num_envs=16, seed=0, compile=True), 40)
    # products and sums may be fused, which rounds differently in the last bit
    for key in plain.keys(True, True):
        torch.testing.assert_close(compiled[key], plain[key], atol=1e-4, rtol=0, msg=str(key))


@pytest.mark.slow
def test_a_missing_compiler_causes_a_warning():
    program = (
        "from heteromark.environment.skirmish import SkirmishEnv\n"
        "env = SkirmishEnv('3m', num_envs=2, seed=0, compile=True)\n"
        "print(list(env.rollout(2).shape))\n"
    )
    without = {"CXX": "/nonexistent/g++", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **without},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[2, 2]"
    assert "Skirmish could not be compiled" in done.stderr
    assert "No working C++ compiler found" in done.stderr
    assert "Install a C++ compiler" in done.stderr


class _OnOneDevice(TorchDispatchMode):
    """Fails if an operation reads or creates a tensor that is not on the meta device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, found)):
            if isinstance(leaf, torch.Tensor):
                assert leaf.device.type == "meta", f"{function} touches {leaf.device}"
        return found


@pytest.mark.mostly_slow(4)
@pytest.mark.parametrize("opponent", COMMANDERS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scenario": "10gen_protoss", "conic_fov": True, "action_mask": False},
        {"scenario": "10gen_zerg", "prob_obs_enemy": 0.0, "reward_sparse": True, "parity": True},
        {"scenario": "MMM", "rules": "modern", "conic_fov": True, "parity": True},
    ],
)
def test_a_step_does_not_synchronise_or_use_another_device(settings, opponent):
    """CUDA graphs require this. Meta tensors have no values, so a synchronisation would fail."""
    config = SkirmishConfig(**settings, opponent=opponent)
    real = Battles(config, 4)
    real.reset()
    actions = torch.ones(real.scenario.n_agents, 4, dtype=torch.int64)
    expected = real._advance_step(real.moment, real.episode, actions)
    bare = Battles(config, 4, "meta")
    arguments = (real.moment, real.episode, actions)
    arguments = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), arguments)
    with _OnOneDevice():
        found = bare._advance_step(*arguments)
    shapes = [[leaf.shape for leaf in tree_leaves(made)] for made in (found, expected)]
    assert shapes[0] == shapes[1]


def test_a_step_that_cannot_be_captured_causes_a_warning(caplog, monkeypatch):
    def refused(function, arguments):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refused)
    graphed = Graphed(lambda tensor: (tensor + 1,), -1)
    with caplog.at_level(logging.WARNING, "heteromark"):
        assert [graphed(torch.tensor(i))[0].item() for i in range(3)] == [1, 2, 3]
    [warning] = caplog.messages
    assert "could not be captured as a CUDA graph" in warning
    assert warning.endswith("operation not permitted when stream is capturing")


def test_results_of_a_graph_do_not_change_at_the_next_call(monkeypatch):
    """A graph writes its results to the same memory each time; so does this stand-in."""

    def in_place(function, arguments):
        [kept] = arguments
        made = torch.empty_like(kept)

        def replay(tensor):
            kept.copy_(tensor)
            return (made.copy_(function(kept)[0]),)

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", in_place)
    graphed = Graphed(lambda tensor: (tensor + 1,), -1)
    given = [torch.tensor(i) for i in range(3)]
    assert [made.item() for (made,) in [graphed(tensor) for tensor in given]] == [1, 2, 3]
    assert [tensor.item() for tensor in given] == [0, 1, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_battles_in_a_cuda_graph_are_the_same():
    plain = play(SkirmishEnv("10gen_terran", num_envs=16, seed=0, device="cuda"), 40)
    graphed = play(
        SkirmishEnv("10gen_terran", num_envs=16, seed=0, device="cuda", compile=True), 40
    )
    for key in plain.keys(True, True):
        torch.testing.assert_close(graphed[key], plain[key], atol=1e-4, rtol=0, msg=str(key))
