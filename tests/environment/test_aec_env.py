"""PettingZooAECEnv: frames, turns, rewards, ends, seats."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from pettingzoo import AECEnv
from pettingzoo.classic.connect_four import connect_four
from pettingzoo.classic.tictactoe import tictactoe
from rollouts import play
from torchrl.envs.utils import check_env_specs
from toy_environments import N_ACTIONS, ToyBattle, ToyRelay

from heteromark.config.models.components import OpponentConfig
from heteromark.environment.pettingzoo.aec import PettingZooAECEnv


def relay(num_envs=1, *, opponent=None, team_reward=False, **kwargs):
    make = functools.partial(ToyRelay, **kwargs)
    return PettingZooAECEnv(
        make, num_envs, opponent=opponent, team_reward=team_reward, name="relay"
    )


def rewards(data):
    """Return the first copy's rewards, [T, 3], in the order runner_0, runner_1, guard_0."""
    parts = [data["next", group, "reward"][0, ..., 0] for group in ("runner", "guard")]
    return torch.cat(parts, 1).tolist()


@pytest.mark.parametrize("make", [tictactoe.env, connect_four.env], ids=["3x3", "6x7"])
def test_torchrl_check_passes(make):
    env = PettingZooAECEnv(make, 3)
    assert env.turn_based
    assert list(env.groups) == ["player"]
    check_env_specs(env, seed=0)


@pytest.mark.parametrize("mask_in", ["observation", "info"])
def test_only_the_agent_whose_turn_it_is_is_active(mask_in):
    data = play(relay(mask_in=mask_in), 8)
    active = torch.cat([data["runner", "active"][0], data["guard", "active"][0]], 1)
    # runner_1 dies in the fifth turn
    turns = [0, 1, 2, 0, 1, 2, 0, 2]
    assert active.tolist() == [[k == turn for k in range(3)] for turn in turns]
    for t, turn in enumerate(turns):
        seen = data["runner", "observation"][0, t].tolist()
        assert seen == [[k, t] if k == turn else [0, 0] for k in range(2)]
        mask = data["runner", "action_mask"][0, t].tolist()
        illegal = [k if k == turn else None for k in range(2)]
        assert mask == [[a != k for a in range(N_ACTIONS)] for k in illegal]
        assert data["guard", "observation"][0, t].tolist() == [[t, 1, 1] if turn == 2 else [0] * 3]
    assert data["step_count"][0, :, 0].tolist() == list(range(8))


def test_waiting_agents_are_rewarded():
    data = play(relay(), 8)
    expected = [
        [0, 1, 1],
        [2, 0, 2],
        [3, 3, 0],
        [0, 1, 1],
        [2, 0, 2],
        [3, 0, 0],
        [0, 0, 1],
        [3, 0, 0],
    ]
    assert rewards(data) == expected
    total = data["next", "episode_return"][0, :, 0]
    torch.testing.assert_close(total, torch.tensor(expected).sum(1).cumsum(0) / 3)
    team = play(relay(team_reward=True), 8)
    torch.testing.assert_close(
        torch.tensor(rewards(team)), torch.tensor(expected).sum(1, keepdim=True).expand(8, 3) / 3
    )


@pytest.mark.parametrize("ends", ["truncated", "terminated"])
def test_how_an_episode_ends(ends):
    last = play(relay(ends=ends), 8)["next"][0, -1]
    truncated = ends == "truncated"
    flags = [bool(last[key]) for key in ("done", "terminated", "truncated")]
    assert flags == [True, not truncated, truncated]
    assert last["runner", "active"].tolist() == [truncated, False]
    assert last["guard", "active"].tolist() == [truncated]
    assert last["runner", "observation"].tolist() == [[0, 8 * truncated], [0, 0]]
    assert last["guard", "observation"].tolist() == [[8, 1, 1] if truncated else [0, 0, 0]]
    assert int(last["won"]) == -1, "all three learn, so one of them always wins"


def against(kind, seat="first", **kwargs):
    return OpponentConfig(kind=kind, seat=seat, **kwargs)


def test_the_first_seat_against_opponents():
    data = play(relay(opponent=against("random", "first")), 3)
    assert data["runner", "active"][0].tolist() == [[True, False]] * 3
    assert not data["guard", "active"].any()
    assert data["runner", "observation"][0, :, 0].tolist() == [[0, 0], [0, 3], [0, 6]]
    # all rewards between its turns: 2 from runner_1 while it lives, and 3 from the guard
    assert [row[0] for row in rewards(data)] == [5, 5, 3]
    assert data["next", "episode_return"][0, :, 0].tolist() == [5, 10, 13]
    assert data["next", "done"][0, :, 0].tolist() == [False, False, True]
    assert data["next", "won"][0, :, 0].tolist() == [-1, -1, 1], "it has the largest sum, 13"


def test_the_second_seat_against_opponents():
    data = play(relay(opponent=against("random", "second")), 2)
    assert data["runner", "active"][0].tolist() == [[False, True]] * 2
    # 1 before its first turn, then 3 and 1; it dies in its second turn
    assert [row[1] for row in rewards(data)] == [5, 0]
    last = data["next"][0, -1]
    assert bool(last["done"])
    assert not last["runner", "active"].any()
    assert int(last["won"]) == 0


def test_seats_alternate_by_copy_and_episode():
    env = relay(2, opponent=against("random", "alternate"))
    for _ in range(2):  # a reseed starts over
        data = play(env, 10)
        seats = data["runner", "active"].int().argmax(-1)
        assert seats[0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]
        assert seats[1].tolist() == [1, 1, 0, 0, 0, 1, 1, 0, 0, 0]


def test_episodes_without_a_turn_of_the_learner_are_skipped_up_to_a_limit():
    with pytest.raises(
        ValueError, match=r"100 consecutive episodes .* before the first turn of runner_1"
    ):
        relay(opponent=against("random", "second"), length=1).reset()


@pytest.mark.parametrize("make", [tictactoe.env, connect_four.env], ids=["3x3", "6x7"])
def test_self_play_matches_pettingzoo(make):
    data = play(PettingZooAECEnv(make, 1, team_reward=False), 120)[0]
    raw = make()
    raw.reset()
    games = 0
    for t in range(120):
        agent = raw.agent_selection
        k = raw.possible_agents.index(agent)
        seen, *_ = raw.last()
        step = data[t]["player", "active"]
        assert step.tolist() == [k == 0, k == 1]
        now = data[t]["player", "observation"][k]
        assert (now.numpy() == seen["observation"].reshape(-1)).all()
        assert (data[t]["player", "action_mask"][k].numpy() == seen["action_mask"]).all()
        raw.step(int(data[t]["player", "action"][k]))
        received = data[t]["next", "player", "reward"][:, 0].tolist()
        assert received == [raw.rewards[a] for a in raw.possible_agents]
        over = all(raw.terminations.values())
        after = data[t]["next"]
        assert bool(after["done"]) == bool(after["terminated"]) == over
        if over:
            assert int(after["won"]) == -1
            games += 1
            raw.reset()
    assert games > 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "stranger",
            r"'ghost_0' appeared unexpectedly in copy 0 of environment 'relay' and .* 'runner' of ",
        ),
        ("return", r"agent 'runner_1' of group 'runner' returned to copy 0"),
    ],
)
def test_unexpected_agents_are_reported(fault, message):
    with pytest.raises(ValueError, match=message):
        play(relay(fault=fault), 8)


def test_an_environment_without_agents_is_refused():
    with pytest.raises(ValueError, match="'nobody' has no agents"):
        PettingZooAECEnv(AECEnv, 1, name="nobody")


def test_a_factory_of_another_type_is_refused():
    with pytest.raises(TypeError, match=r"returned ToyBattle, not a pettingzoo\.AECEnv"):
        PettingZooAECEnv(ToyBattle, 1)


def test_copy_0_renders_the_board():
    make = functools.partial(tictactoe.env, screen_height=90)
    env = PettingZooAECEnv(make, 2, render=True, num_workers=1)
    env.reset()
    empty = env.render()
    env.step(env.rand_action(env.reset()))
    assert empty.dtype == np.uint8
    assert empty.shape == env.render().shape == (90, 90, 3)
    assert (env.render() != empty).any()
    env.close()
