"""Scenarios of VMAS; `make compat` installs it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from attempts import Crash, crash_at, results
from projects import ROOT

from heteromark.commands.request import TrainRequest, resolve_request
from heteromark.environment.contract import check_contract
from heteromark.environment.vmas.env import VMASEnv
from heteromark.training.loop import train

pytestmark = pytest.mark.compat

COPIES = 4


def play(env, now, steps, seed):
    """Play random actions; return the current outputs, and all observations and rewards."""
    torch.manual_seed(seed)
    seen = []
    for _ in range(steps):
        now["_"] = torch.zeros(COPIES)  # the data given is not changed
        for name, group in env.groups.items():
            low, high = map(torch.as_tensor, (group.action_space.low, group.action_space.high))
            shape = (COPIES, len(group.agents), group.action_size)
            now[name, "action"] = low + (high - low) * torch.rand(shape)
        stepped, now = env.step_and_maybe_reset(now.copy())
        for name in env.groups:
            after = stepped["next", name]
            seen += [after["observation"].flatten(), after["reward"].flatten()]
    return now, torch.cat(seen)


SCENARIOS = ["balance", "sampling", "navigation", "wheel", "discovery", "football"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_meets_the_contract_and_continues_exactly(scenario):
    env = VMASEnv(scenario, COPIES, max_steps=12)
    check_contract(env, COPIES, scenario)
    env.reseed(3)
    now, _ = play(env, env.reset(), 9, seed=0)
    saved = copy.deepcopy(env.running_episodes())
    _, expected = play(env, now, 20, seed=1)
    other = VMASEnv(scenario, COPIES, max_steps=12)
    other.reseed(5)
    play(other, other.reset(), 3, seed=2)
    now, lost = other.continue_episodes(saved)
    assert not lost
    _, found = play(other, now, 20, seed=1)
    assert torch.equal(found, expected)


def test_state_that_cannot_be_saved_is_noticed():
    """Agents of simple_reference hold references to landmarks, drawn at each reset."""
    env = VMASEnv("simple_reference", 1)
    lost = set()
    for seed in range(6):
        env.reseed(seed)
        env.reset()
        saved = copy.deepcopy(env.running_episodes())
        env.reseed(seed + 100)
        env.reset()
        now, why = env.continue_episodes(saved)
        lost |= {*why.values()}
        assert bool(why) == (not torch.equal(now["agent", "observation"], saved_view(saved)))
    assert lost == {"the scenario keeps state that cannot be saved"}


def saved_view(saved):
    return torch.stack(saved["observations"], 1)


def test_environments_do_not_share_random_numbers():
    first, second = (VMASEnv("navigation", COPIES) for _ in range(2))
    before = torch.get_rng_state()
    first.reseed(1)
    alone = first.reset()["agent", "observation"]
    first.reseed(1)
    second.reseed(2)
    second.reset()
    assert torch.equal(first.reset()["agent", "observation"], alone)
    second.reseed(1)
    assert torch.equal(second.reset()["agent", "observation"], alone)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_finished_copies_begin_again():
    env = VMASEnv("balance", COPIES, max_steps=30)
    env.reseed(0)
    now = env.reset()
    ends = 0
    for step in range(60):
        counts = now["step_count"].clone()
        now["agent", "action"] = torch.full((COPIES, 3, 2), -1.0)  # the package falls
        stepped, now = env.step_and_maybe_reset(now.copy())
        over = stepped["next", "done"]
        ends += int(over.sum())
        assert torch.equal(stepped["next", "step_count"], counts + 1)
        assert torch.equal(now["step_count"], torch.where(over, 0, counts + 1)), step
        assert (now["episode_return"][over] == 0).all()
    assert ends > COPIES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "balanse"}, r"scenario is 'balanse', but VMAS has .*balance, ball_passage"),
        ({"scenario": "balance", "wrapper": "gym"}, r"kwargs\.wrapper is chosen by HeteroMARK"),
        ({"scenario": "balance", "n_agents": 1}, r"does not fit scenario 'balance'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        VMASEnv(num_envs=2, **settings)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path):
    request = TrainRequest(
        ROOT / "config/agents/happo_agent_v1.yaml",
        total_frames=512,
        environment="vmas_navigation",
        device="cpu",
        num_envs=4,
        assignments=("n_steps=64", "batch_size=32", "checkpoint_interval=1"),
    )
    config, _ = resolve_request(request, ROOT)
    train(config, tmp_path / "whole")
    for iteration in (2, 5):
        with pytest.raises(Crash):
            train(config, tmp_path / "parts", on_progress=crash_at(iteration))
    assert not train(config, tmp_path / "parts").notes
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
