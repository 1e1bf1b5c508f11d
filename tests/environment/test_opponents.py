"""Opponents: random, heuristic, past policies; the same for any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_config import make_config
from pettingzoo.classic.connect_four import connect_four
from pettingzoo.classic.tictactoe import tictactoe
from rollouts import play
from tensordict.nn import TensorDictModule
from torch import nn
from toy_environments import ToyRelay

from heteromark.config.models.components import OpponentConfig
from heteromark.environment.opponents.heuristics import connect_four as play_connect_four
from heteromark.environment.opponents.heuristics import tic_tac_toe as play_tic_tac_toe
from heteromark.environment.pettingzoo.aec import PettingZooAECEnv
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.policy import PolicyFactory

TIC_TAC_TOE = "pettingzoo.classic.tictactoe.tictactoe:env"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def game(kind, num_envs=4, make=tictactoe.env, num_workers=0, seat="alternate", **kwargs):
    opponent = OpponentConfig(kind=kind, seat=seat, **kwargs)
    return PettingZooAECEnv(
        make, num_envs, opponent=opponent, num_workers=num_workers, team_reward=False
    )


def policies(seed=0, **overrides):
    """Actors for tic-tac-toe, far from uniform."""
    config = make_config(
        algorithm="IPPO",
        environment__task=TIC_TAC_TOE,
        environment__reward="individual",
        **overrides,
    )
    torch.manual_seed(seed)
    groups = EnvironmentFactory().create(config, num_envs=1).groups
    actors = PolicyFactory().create(config, groups).actors
    with torch.no_grad():
        for actor in actors.values():
            for parameter in actor.parameters():
                parameter += torch.randn_like(parameter)
    return actors


@pytest.mark.parametrize("kind", ["random", "past_self"])
def test_opponents_are_the_same_for_any_number_of_workers(kind):
    rollouts = []
    for num_workers in (0, 2):
        env = game(kind, num_workers=num_workers)
        if kind == "past_self":
            env.opponent_pool.add(policies(1))
            env.opponent_pool.add(policies(2, policy_type="gru"))
        global_state = torch.get_rng_state()
        rollouts.append(play(env, 20, seed=3))
        assert (torch.get_rng_state() == global_state).all()
        assert (play(env, 20, seed=4) != rollouts[0]).any()
        assert (play(env, 20, seed=3) == rollouts[0]).all(), "a reseed starts over"
        env.close()
    assert (rollouts[0] == rollouts[1]).all()
    assert rollouts[0]["player", "active"].sum(-1).eq(1).all()


def test_a_random_opponent_is_uniform_over_legal_actions():
    first = play(game("random", 300, seat="second"), 1)["player", "observation"][:, 0, 1]
    # the second plane of the second player's observation: the first player's only mark
    counts = first.view(300, 9, 2)[..., 1].sum(0)
    assert counts.sum() == 300
    assert counts.min() > 15


@pytest.mark.parametrize(
    ("make", "least"), [(tictactoe.env, 0.75), (connect_four.env, 0.85)], ids=["3x3", "6x7"]
)
def test_the_heuristic_beats_random_play(make, least):
    data = play(game("heuristic", 8, make), 60)
    ended = data["next", "done"].squeeze(-1)
    lost = data["next", "episode_return"].squeeze(-1)[ended] < 0
    assert ended.sum() > 30
    assert lost.float().mean() > least


def board(text, own):
    """Return player `own`'s observation of a drawn board, [rows, columns, 2]."""
    cells = np.array([list(row) for row in text.split()])
    other = "o" if own == "x" else "x"
    return np.stack([cells == own, cells == other], -1).astype(np.int8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("xx. oo. ...", {2}),  # win
        ("oo. x.. ...", {2}),  # block
        ("o.. .x. ..o", {2, 6}),  # a corner
        ("o.. ... ...", {4}),  # the centre
    ],
)
def test_the_heuristic_of_tic_tac_toe(text, expected):
    seen = board(text, "x")
    legal = ~seen.any(-1).reshape(-1)
    generator = np.random.default_rng(0)
    assert {play_tic_tac_toe(seen, legal, generator) for _ in range(20)} == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (("x......", "x......", "xoo.o.."), {0}),  # win, before blocking
        ((".......", "xx.....", "ooo.x.."), {3}),  # block
        ((".......", ".......", ".o..x.."), {3}),  # the centre
        # three in a row, but the cell below the fourth is empty: no threat yet
        ((".......", "ooo....", "xxo...."), {3}),
    ],
)
def test_the_heuristic_of_connect_four(rows, expected):
    seen = board(" ".join((".......",) * 3 + rows), "x")
    legal = ~seen[0].any(-1)
    generator = np.random.default_rng(0)
    assert {play_connect_four(seen, legal, generator) for _ in range(5)} == expected


def test_user_defined_heuristics():
    name = "toy_environments:last_legal"
    env = game("heuristic", 1, seat="second", heuristic=name)
    assert play(env, 1)["player", "observation"][0, 0, 1].view(9, 2)[8].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"took illegal action \d for agent 'player_2'; legal are"):
        play(game("heuristic", 1, seat="first", heuristic="toy_environments:never_legal"), 1)
    with pytest.raises(ValueError, match=r"opponent\.heuristic is .* has no callable 'nobody'"):
        game("heuristic", heuristic="toy_environments:nobody")
    with pytest.raises(ValueError, match=r"no built-in heuristic for 'relay'.*module:function"):
        game("heuristic", make=ToyRelay)


def first_legal_actor():
    """Return an actor that takes the first legal action."""
    return TensorDictModule(
        lambda mask: mask.int().argmax(-1), [("player", "action_mask")], [("player", "action")]
    )


def test_past_policies_play_and_random_actions_before_the_first():
    env = game("past_self", 50, seat="second")
    marks = play(env, 1)["player", "observation"][:, 0, 1].view(50, 9, 2)[..., 1]
    assert (marks.sum(0) > 0).sum() > 5
    env.opponent_pool.add({"player": first_legal_actor()})
    marks = play(env, 1)["player", "observation"][:, 0, 1].view(50, 9, 2)[..., 1]
    assert (marks.argmax(-1) == 0).all()


def test_the_pool_keeps_the_newest_and_can_be_saved():
    env = game("past_self", 6, pool_size=2)
    actors = policies()
    for seed in range(3):
        env.opponent_pool.add(policies(seed))
    assert len(env.opponent_pool) == 2
    expected = play(env, 15)
    state = env.opponent_pool.state_dict()
    with torch.no_grad():
        before = [parameter.clone() for parameter in actors["player"].parameters()]
    other = game("past_self", 6, pool_size=2)
    other.opponent_pool.load_state_dict(state, actors)
    assert (play(other, 15) == expected).all()
    assert all(map(torch.equal, before, actors["player"].parameters()))
    narrow = policies(policy__hidden_sizes=[4])
    with pytest.raises(ValueError, match="weights of a past policy do not fit group 'player'"):
        other.opponent_pool.load_state_dict(state, narrow)
    with pytest.raises(ValueError, match=r"has actors for player, but the groups are cross"):
        other.opponent_pool.load_state_dict(state, {"cross": actors["player"]})
    assert (play(other, 15) == expected).all(), "a pool that does not fit changes nothing"


class Counter(nn.Module):
    """Counts its turns in its hidden state: takes action 3 in the first, then another legal one."""

    hidden_size = 1

    def forward(self, hidden):
        later = 2 if hidden.shape[1] == 2 else 1  # two runners, one guard
        return torch.where(hidden[..., 0] == 0, 3, later), hidden + 1


def test_past_policies_can_be_recurrent():
    actors = {
        group: TensorDictModule(
            Counter(), [(group, "hidden")], [(group, "action"), ("next", group, "hidden")]
        )
        for group in ("runner", "guard")
    }
    envs = []

    def make():
        envs.append(ToyRelay())
        return envs[-1]

    env = game("past_self", 2, make, seat="first")
    env.opponent_pool.add(actors)
    env.reseed(0)
    now = env.reset()
    # runner_1 dies in its second turn; the third frame ends the episode
    guards = ([3], [3, 1], [], [3], [3, 1])
    runners = ([3], [3, 2], [], [3], [3, 2])
    for expected_of in zip(runners, guards, strict=True):
        for group in env.groups:
            now[group, "action"] = torch.full_like(now[group, "active"].long(), 3)
        _, now = env.step_and_maybe_reset(now)
        for agent, expected in zip(("runner_1", "guard_0"), expected_of, strict=True):
            assert [action for who, action in envs[0].taken if who == agent] == expected


def test_the_factory_accepts_another_opponent():
    config = make_config(environment__task=TIC_TAC_TOE, algorithm="IPPO")
    factory = EnvironmentFactory()
    assert factory.create(config).opponent_pool is None
    assert play(factory.create(config), 2)["player", "active"].any(1).all()
    env = factory.create(config, 3, opponent=OpponentConfig(kind="past_self", pool_size=7))
    assert (env.batch_size, env.opponent_pool.size) == ((3,), 7)


def test_opponents_require_turns():
    config = make_config(environment__opponent={"kind": "random"})
    with pytest.raises(ValueError, match=r"opponent\.kind is random, .* all agents act at once"):
        EnvironmentFactory().create(config)
