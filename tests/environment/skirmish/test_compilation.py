"""Compiled battles, and those that cannot be compiled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from heteromark.environment.skirmish import SkirmishEnv


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


def test_a_missing_compiler_is_a_warning():
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
    assert "Skirmish is not compiled" in done.stderr
    assert "No working C++ compiler found" in done.stderr
    assert "Install a C++ compiler" in done.stderr
