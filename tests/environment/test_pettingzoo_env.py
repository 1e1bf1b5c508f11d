"""PettingZooParallelEnv: keys, ends, deaths, masks, seeds."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from mpe2 import simple_speaker_listener_v4, simple_spread_v3, simple_tag_v3
from rollouts import play
from tensordict import assert_close
from torchrl.envs import EnvBase
from torchrl.envs.utils import check_env_specs
from toy_environments import N_ACTIONS, FaultyBattle, ToyBattle, UnlikeArchers, not_parallel

from heteromark.environment.pettingzoo.aec import PettingZooAECEnv
from heteromark.environment.pettingzoo.direct import direct_parallel
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.seeds import stream_seed


def toy(num_envs=1, *, team_reward=True, split=False, render=False, num_workers=0, **kwargs):
    return PettingZooParallelEnv(
        functools.partial(ToyBattle, **kwargs),
        num_envs,
        team_reward=team_reward,
        split=split,
        render=render,
        num_workers=num_workers,
        name="toy",
    )


@pytest.mark.parametrize(
    "make",
    [
        simple_speaker_listener_v4.parallel_env,
        functools.partial(simple_spread_v3.parallel_env, continuous_actions=True),
    ],
    ids=["discrete", "continuous"],
)
def test_torchrl_check_passes(make):
    check_env_specs(PettingZooParallelEnv(make, 3), seed=0)


@pytest.mark.parametrize("mask_in", ["observation", "info"])
def test_masks_are_read_from_the_observation_or_the_info(mask_in):
    env = toy(2, mask_in=mask_in)
    now = env.reset()
    for name, first in (("archer", 0), ("healer", 2)):
        mask = now[name, "action_mask"]
        assert mask.dtype == torch.bool
        for row in range(mask.shape[1]):
            assert mask[0, row].tolist() == [a != first + row for a in range(N_ACTIONS)]


def test_team_reward_is_the_mean_over_all_agents_including_absent_ones():
    data = play(toy(length=4, death_step=2), 4)
    alive, after_death = (1 + 2 + 3) / 3, (1 + 0 + 3) / 3
    expected = torch.tensor([alive, alive, after_death, after_death])
    for group in ("archer", "healer"):
        reward = data["next", group, "reward"][0, ..., 0]
        torch.testing.assert_close(reward, expected[:, None].expand_as(reward))


def test_own_rewards_and_the_return_per_agent():
    data = play(toy(length=4, death_step=2, team_reward=False), 4)
    assert data["next", "archer", "reward"][0, ..., 0].tolist() == [[1, 2], [1, 2], [1, 0], [1, 0]]
    alive, after_death = (1 + 2 + 3) / 3, (1 + 0 + 3) / 3
    total = data["next", "episode_return"][0, :, 0]
    expected = [alive, 2 * alive, 2 * alive + after_death, 2 * alive + 2 * after_death]
    torch.testing.assert_close(total, torch.tensor(expected))


def test_a_dead_agent_is_absent():
    data = play(toy(length=4, death_step=2), 4)
    assert data["archer", "active"][0].tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]
    assert (data["archer", "observation"][0, 2:, 1] == 0).all()
    assert data["archer", "action_mask"][0, 2:, 1].all()
    assert (data["archer", "observation"][0, :2, 1, 3] == 1).all()


def test_truncation_keeps_the_final_state_and_its_agents():
    last = play(toy(length=3, ends="truncated", says_won=True), 3)["next"][0, -1]
    assert (bool(last["done"]), bool(last["terminated"]), bool(last["truncated"])) == (1, 0, 1)
    assert last["archer", "active"].tolist() == [True, False]
    assert last["archer", "observation"][0, 1] == 3, "not the observation after the reset"
    assert int(last["step_count"]) == 3
    assert int(last["won"]) == 1


def test_termination_leaves_nobody():
    last = play(toy(length=3, ends="terminated"), 3)["next"][0, -1]
    assert (bool(last["done"]), bool(last["terminated"]), bool(last["truncated"])) == (1, 1, 0)
    assert not last["archer", "active"].any()
    assert not last["healer", "active"].any()
    assert int(last["won"]) == -1


def test_copies_finish_and_reset_on_their_own():
    data = play(toy(4, length=None), 40)
    steps, after, done = data["step_count"], data["next", "step_count"], data["next", "done"]
    assert (after == steps + 1).all()
    assert (steps[:, 1:] == torch.where(done[:, :-1], 0, after[:, :-1])).all()
    assert len({tuple(row.flatten().tolist()) for row in done}) > 1
    fresh = data[:, 1:][done[:, :-1, 0]]
    assert (fresh["episode_return"] == 0).all()
    assert fresh["archer", "active"].all()


def test_returned_data_does_not_change():
    env = toy(2, length=2)
    env.reseed(0)
    now = env.reset()
    for name in env.groups:
        now[name, "action"] = now[name, "action_mask"].int().argmax(-1)
    before = now.clone()
    first, after = env.step_and_maybe_reset(now)
    for name in env.groups:
        after[name, "action"] = after[name, "action_mask"].int().argmax(-1)
    kept = first.clone()
    env.step_and_maybe_reset(after)
    assert_close(first, kept)
    assert_close(first.exclude("next"), before)


def test_step_and_maybe_reset_matches_torchrl():
    quick, slow = toy(3, length=None), toy(3, length=None)
    for env in (quick, slow):
        env.reseed(0)
    after, expected_after = quick.reset(), slow.reset()
    for _ in range(12):
        for name in quick.groups:
            action = after[name, "action_mask"].int().argmax(-1)
            after[name, "action"] = expected_after[name, "action"] = action
        stepped, after = quick.step_and_maybe_reset(after)
        expected, expected_after = EnvBase.step_and_maybe_reset(slow, expected_after)
        assert_close(stepped, expected)
        assert_close(after, expected_after.exclude(*quick.action_keys))


def test_seeds_determine_everything_and_streams_are_independent():
    make = simple_speaker_listener_v4.parallel_env
    first = play(PettingZooParallelEnv(make, 2), 30)
    env = PettingZooParallelEnv(make, 2)
    play(env, 7, seed=5)
    assert (play(env, 30) == first).all(), "earlier episodes do not matter after reseed"
    other = play(env, 30, stream=("test", 1))
    assert (other["listener", "observation"] != first["listener", "observation"]).any()
    start = first["listener", "observation"][:, 0]
    assert (start[0] != start[1]).any()
    assert stream_seed(0, "training", 1) != stream_seed(0, "evaluation", 1) != stream_seed(1)


def test_random_play_has_the_known_score_in_speaker_listener():
    data = play(PettingZooParallelEnv(simple_speaker_listener_v4.parallel_env, 16), 250)
    ended = data["next"][data["next", "done"].squeeze(-1)]
    assert len(ended) == 160
    assert -55 < float(ended["episode_return"].mean()) < -32


def test_a_nonfinite_observation_is_reported():
    with pytest.raises(
        ValueError, match=r"'toy' gave agent 'archer_0' of copy 0 .* NaN .*nan_to_num"
    ):
        play(toy(1, nan_at=2), 3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"agent 'archer_0' of copy 0 an observation of shape \(3,\) \(group 'archer'\)"),
        ("mask_size", r"agent 'archer_0' .* the action mask \[1 1 1 1 1\] .* has 4 actions"),
        ("no_legal_action", r"agent 'archer_0' of copy 0 no legal action \(group 'archer'\)"),
        ("no_observation", r"agent 'archer_0' of copy 0 no observation \(group 'archer'\)"),
        (
            "stranger",
            r"'ghost_0' appeared unexpectedly in copy 0 .* no group; .* 'archer' of archer_0, .* Add",
        ),
        ("return", r"agent 'archer_1' of group 'archer' returned to copy 0"),
        ("state_shape", r"a state of shape \(6,\), but the first state had shape \(5,\)"),
        ("state_nan", r"copy 0 of environment 'faulty' returned a state with NaN"),
        (
            "reset_space",
            r"action space of agent 'archer_0' of group 'archer' is Discrete\(5\) in copy 0 and was "
            r"Discrete\(4\) in .* Declare the largest",
        ),
    ],
)
def test_faulty_environments_are_reported(fault, message):
    make = functools.partial(FaultyBattle, fault, length=4)
    env = PettingZooParallelEnv(make, 1, with_state=True, name="faulty")
    with pytest.raises(ValueError, match=message) as caught:
        play(env, 5)
    assert "'faulty'" in str(caught.value)


def test_copies_that_differ_in_spaces_are_refused():
    FaultyBattle.made = 0
    with pytest.raises(ValueError, match=r"action space of agent 'archer_0' of .* in copy 1"):
        PettingZooParallelEnv(functools.partial(FaultyBattle, "spaces"), 2)


def test_the_state_is_read_if_with_state_is_set():
    env = PettingZooParallelEnv(
        functools.partial(FaultyBattle, "none", length=3), 2, with_state=True
    )
    assert env.state_size == 5
    assert env.observation_spec["state"].shape == (2, 5)
    data = play(env, 3)
    assert data["next", "state"].shape == (2, 3, 5)
    assert (data["next", "state"][:, 0] + 1 == data["next", "state"][:, 1]).all()
    assert "state" not in toy().reset()
    with pytest.raises(ValueError, match=r"no state\(\); set environment\.state=false"):
        PettingZooParallelEnv(functools.partial(FaultyBattle, "no_state"), 1, with_state=True)


def test_split_groups_have_the_same_data_agent_by_agent():
    together = play(toy(2), 5)
    apart = toy(2, split=True)
    assert list(apart.groups) == ["archer_0", "archer_1", "healer_0"]
    assert [group.family for group in apart.groups.values()] == ["archer", "archer", "healer"]
    data = play(apart, 5)
    for row, name in enumerate(("archer_0", "archer_1")):
        for key in ("observation", "active", "action_mask"):
            assert data[name, key].shape[:3] == (2, 5, 1)
        for column in (0, 1, 3):  # 2 is noise
            seen = data[name, "observation"][..., 0, column]
            assert (seen == together["archer", "observation"][..., row, column]).all()
        assert (
            data["next", name, "reward"][..., 0, 0]
            == together["next", "archer", "reward"][..., row, 0]
        ).all()


def test_continuous_actions_reach_the_environment_unchanged():
    make = functools.partial(simple_spread_v3.parallel_env, continuous_actions=True)
    env = PettingZooParallelEnv(make, 2)
    group = env.groups["agent"]
    assert (group.is_discrete, group.action_size) == (False, 5)
    data = play(env, 4)
    assert data["agent", "action"].dtype == torch.float32
    raw = make()
    for i in range(2):
        observations, _ = raw.reset(seed=stream_seed(stream_seed(0, "test", i), "episode", 0))
        for step in range(4):
            now, action = data[i, step], data["agent", "action"][i, step].numpy()
            for row, agent in enumerate(group.agents):
                assert now["agent", "observation"][row].tolist() == observations[agent].tolist()
            observations, rewards, *_ = raw.step(dict(zip(group.agents, action, strict=True)))
            mean = sum(rewards.values()) / 3
            assert now["next", "agent", "reward"][0, 0] == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        simple_speaker_listener_v4.parallel_env,
        simple_tag_v3.parallel_env,
        functools.partial(simple_spread_v3.parallel_env, continuous_actions=True, max_cycles=6),
    ],
    ids=["speaker_listener", "tag", "continuous"],
)
def test_direct_stepping_matches_pettingzoo(make):
    """Skipping the checking wrappers changes nothing, also at the end of an episode."""
    raw, direct = make(), direct_parallel(make())
    assert direct is not raw
    generator = np.random.default_rng(0)
    for episode in range(2):
        assert_same(raw.reset(seed=episode), direct.reset(seed=episode))
        while raw.agents:
            actions = {}
            for agent in raw.agents:
                space = raw.action_space(agent)
                if hasattr(space, "n"):
                    actions[agent] = int(generator.integers(space.n))
                else:
                    actions[agent] = generator.uniform(space.low, space.high).astype(space.dtype)
            assert_same(raw.step(actions), direct.step(actions))
            assert raw.agents == direct.agents
    plain = ToyBattle()
    assert direct_parallel(plain) is plain


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        assert dict(first).keys() == second.keys()
        for agent, value in first.items():
            assert np.array_equal(value, second[agent]), agent


def test_an_action_out_of_range_is_refused():
    env = toy()
    now = env.reset()
    now["archer", "action"] = torch.tensor([[1, 4]])
    now["healer", "action"] = torch.tensor([[1]])
    with pytest.raises(
        ValueError, match=r"group 'archer' .* received actions from 1 to 4; .* 0 to 3"
    ):
        env.step(now)


class Blank(simple_spread_v3.raw_env):
    """Its picture cannot be drawn, as MuJoCo's without OpenGL."""

    def render(self):
        raise AttributeError("no context")


def test_a_failure_to_render_is_one_sentence():
    env = PettingZooAECEnv(Blank, 1, render=True, name="blank")
    env.reset()
    message = r"^environment 'blank' cannot render: AttributeError: no context$"
    with pytest.raises(ValueError, match=message):
        env.render()

    def make(render_mode=None):
        if render_mode:
            raise OSError("no display")
        return simple_spread_v3.parallel_env()

    with pytest.raises(ValueError, match=r"'blank' cannot render: OSError: no display$"):
        PettingZooParallelEnv(make, 1, render=True, name="blank")


def test_copy_0_renders_only_with_render_set():
    env = PettingZooParallelEnv(simple_spread_v3.parallel_env, 2, render=True)
    env.reset()
    picture = env.render()
    assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    assert picture.std() > 0
    with pytest.raises(ValueError, match="'toy' cannot render: create it with render=True"):
        toy().render()
    with pytest.raises(ValueError, match="'toy' cannot render: its factory takes no render_mode"):
        toy(render=True)


def test_groups_that_differ_in_spaces_are_refused():
    with pytest.raises(
        ValueError, match=r"group 'archer'.*observation space of 'archer_0'.*'archer_1'"
    ):
        PettingZooParallelEnv(UnlikeArchers, 1)
    PettingZooParallelEnv(UnlikeArchers, 1, group_by="agent")


def test_a_factory_of_something_else_is_refused():
    with pytest.raises(TypeError, match=r"not a pettingzoo\.ParallelEnv"):
        PettingZooParallelEnv(not_parallel, 1)
