"""SkirmishEnv: keys, seeds, groups, masks, and errors."""

from __future__ import annotations

import pytest
import torch
from torchrl.envs import EnvBase
from torchrl.envs.utils import check_env_specs

from heteromark.environment.contract import check_contract
from heteromark.environment.skirmish import SkirmishEnv
from heteromark.environment.skirmish.scenarios import SCENARIOS


def act(env, now, generator):
    """Write a random legal action for every agent."""
    for name in env.groups:
        mask = now[name, "action_mask"]
        flat = mask.flatten(0, 1).float()
        chosen = torch.multinomial(flat, 1, generator=generator)
        now[name, "action"] = chosen.view(mask.shape[:-1])
    return now


def play(env, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    now, seen = env.reset(), []
    for _ in range(steps):
        stepped, now = env.step_and_maybe_reset(act(env, now, generator))
        seen.append(stepped)
    return torch.stack(seen, 1)


@pytest.mark.parametrize("units", ["type", "slot"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_torchrls_check_and_our_contract_hold(scenario, units):
    env = SkirmishEnv(scenario, num_envs=3, units=units)
    check_env_specs(env)
    check_contract(env, 3, scenario, critic="team")


@pytest.mark.parametrize(
    ("scenario", "settings", "observation", "state", "actions"),
    [
        ("10gen_terran", {}, 82, 120, 11),
        ("10gen_zerg", {}, 82, 120, 11),
        ("10gen_protoss", {}, 92, 130, 11),
        ("10gen_terran", {"n_units": 10}, 162, 290, 16),
        ("10gen_terran", {"n_units": 10, "n_enemies": 11}, 170, None, 17),
        ("10gen_protoss", {"n_units": 10}, 182, None, 16),
        ("10gen_terran", {"n_units": 20}, 322, None, 26),
        ("10gen_protoss", {"n_units": 20}, 362, None, 26),
        ("10gen_terran", {"n_units": 20, "n_enemies": 23}, None, None, 29),
        ("10gen_terran", {"conic_fov": True}, 84, 190, 23),
    ],
)
def test_sizes_match_smacv2(scenario, settings, observation, state, actions):
    layout = SkirmishEnv(scenario, **settings).battles.layout
    assert layout.n_actions == actions
    assert observation in (None, layout.observation_size)
    assert state in (None, layout.state_size)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["10gen_terran", "10gen_protoss", "10gen_zerg", "MMM"])
def test_results_do_not_depend_on_the_batch_size(scenario):
    together = play_same(SkirmishEnv(scenario, num_envs=64, seed=3), range(64))
    for number in (0, 17, 63):
        alone = play_same(SkirmishEnv(scenario, num_envs=1, seed=3, first=number), [number])
        for key in alone.keys(True, True):
            assert torch.equal(alone[key][0], together[key][number]), (key, number)


def play_same(env, numbers, steps=60):
    """Play actions that depend only on the battle's number and the step."""
    now, seen = env.reset(), []
    for step in range(steps):
        for name, group in env.groups.items():
            mask = now[name, "action_mask"]
            wish = torch.tensor(
                [
                    [(7 * n + 13 * step + 5 * k) % 97 for k in range(len(group.agents))]
                    for n in numbers
                ]
            )
            so_far = mask.cumsum(-1)
            wish = wish % so_far[..., -1]
            now[name, "action"] = (so_far <= wish.unsqueeze(-1)).sum(-1)
        stepped, now = env.step_and_maybe_reset(now)
        seen.append(stepped)
    return torch.stack(seen, 1)


def test_the_seed_determines_everything():
    first, again = SkirmishEnv(num_envs=4, seed=5), SkirmishEnv(num_envs=4, seed=5)
    assert_equal(play(first, 30), play(again, 30))
    first.reseed(5)
    assert_equal(play(first, 30), play(again.set_seed(5) and SkirmishEnv(num_envs=4, seed=5), 30))
    other = SkirmishEnv(num_envs=4, seed=6)
    assert not torch.equal(other.reset()["state"], first.reset()["state"])


def assert_equal(one, other):
    for key in one.keys(True, True):
        assert torch.equal(one[key], other[key]), key


def test_step_and_maybe_reset_matches_torchrl():
    ours, theirs = (SkirmishEnv("mini_MMM", num_envs=8, seed=1, episode_limit=5) for _ in range(2))
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    now, then = ours.reset(), theirs.reset()
    for _ in range(12):
        stepped, now = ours.step_and_maybe_reset(act(ours, now, generators[0]))
        expected, then = EnvBase.step_and_maybe_reset(theirs, act(theirs, then, generators[1]))
        assert_equal(stepped["next"], expected["next"])
        for key in now.keys(True, True):
            assert torch.equal(now[key], then[key]), key


def test_agents_named_by_type_have_that_type_in_every_episode():
    env = SkirmishEnv("10gen_terran", num_envs=64, seed=0)
    assert {name: len(group.agents) for name, group in env.groups.items()} == {
        "marine": 5,
        "marauder": 5,
        "medivac": 4,
    }
    seen = play(env, 40)
    for bit, name in enumerate(("marine", "marauder", "medivac")):
        observation, active = seen[name, "observation"], seen[name, "active"]
        own_type = observation[..., -3:][active]
        assert own_type.argmax(-1).eq(bit).all()
        assert own_type.sum(-1).eq(1).all()
        assert not observation[~active].any()
        assert seen[name, "action_mask"][~active].all()
    now = env.reset()
    present = torch.cat([now[name, "active"] for name in env.groups], 1)
    assert present.sum(1).eq(5).all()


def test_by_type_and_by_slot_are_the_same_battles():
    by_type = SkirmishEnv("10gen_zerg", num_envs=16, seed=2)
    by_slot = SkirmishEnv("10gen_zerg", num_envs=16, seed=2, units="slot")
    now, then = by_type.reset(), by_slot.reset()
    assert torch.equal(now["state"], then["state"])
    for _ in range(20):
        # every unit takes its last legal action
        for env, shown in ((by_type, now), (by_slot, then)):
            for name in env.groups:
                mask = shown[name, "action_mask"].int()
                shown[name, "action"] = mask.shape[-1] - 1 - mask.flip(-1).argmax(-1)
        now, then = (
            env.step_and_maybe_reset(shown)[1] for env, shown in ((by_type, now), (by_slot, then))
        )
        assert torch.equal(now["state"], then["state"])


def test_groups_can_be_explicit_or_split():
    mixed = {"fighters": ["marine_0", "marauder_0", "marine_2"], "rest": ["medivac_0", "marine_1"]}
    env = SkirmishEnv("mini_MMM", num_envs=2, seed=0, groups=mixed)
    check_contract(env, 2, "mixed", critic="team")
    assert env.groups["fighters"].agents == ("marine_0", "marauder_0", "marine_2")
    types = env.reset()["fighters", "observation"][..., -3:].argmax(-1)
    assert types[0].tolist() == [1, 0, 1], "marine, marauder, marine"
    split = SkirmishEnv("mini_MMM", num_envs=2, split=True)
    assert list(split.groups) == ["marauder_0", "marine_0", "marine_1", "marine_2", "medivac_0"]
    assert split.groups["marine_1"].family == "marine"


def test_truncation_is_not_termination():
    env = SkirmishEnv("mini_MMM", num_envs=2, episode_limit=3)
    seen = play(env, 3)["next"]
    assert seen["truncated"][:, -1].all()
    assert not seen["terminated"].any()
    assert seen["marine", "active"][:, -1].all()
    as_smac = SkirmishEnv("mini_MMM", num_envs=2, episode_limit=3, continuing_episode=False)
    seen = play(as_smac, 3)["next"]
    assert seen["terminated"][:, -1].all()
    assert not seen["truncated"].any()


def test_a_victory_returns_about_20():
    env = SkirmishEnv("mini_MMM", num_envs=32, seed=0, start="facing", opponent="random")
    now = env.reset()
    returns = []
    for _ in range(300):
        for name in env.groups:
            mask = now[name, "action_mask"]
            attacks = mask[..., 6:].int().argmax(-1) + 6
            east = torch.where(mask[..., 4], 4, 1)
            now[name, "action"] = torch.where(mask[..., 6:].any(-1), attacks, east)
        stepped, now = env.step_and_maybe_reset(now)
        won = stepped["next", "won"] == 1
        returns += stepped["next", "episode_return"][won].tolist()
    assert len(returns) > 10
    # A win can leave the medivac alive, which is worth 160 of 660 points. Damage that is healed can
    # be dealt, and rewarded, again.
    assert all(20 * 500 / 660 - 1e-4 < value < 24 for value in returns)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "5m_vs_6m"}, "scenario"),
        ({"rules": "heart"}, "liberty.*modern"),
        ({"opponent": "zerg_rush"}, "nearest"),
        ({"scenario": "custom"}, "allies.*must be set with scenario custom"),
        ({"scenario": "custom", "allies": {}}, "at least 1"),
        ({"scenario": "custom", "allies": {"marine": 0}}, "greater than 0"),
        ({"scenario": "custom", "allies": {"ghost": 1}}, "marine"),
        ({"scenario": "custom", "allies": {"medivac": 2}}, "must contain a unit that can fight"),
        ({"scenario": "MMM", "n_units": 3}, "the teams of MMM are fixed"),
        ({"scenario": "MMM", "allies": {"marine": 3}}, "requires scenario custom"),
        ({"n_units": 0}, "greater than 0"),
        ({"prob_obs_enemy": 1.5}, "less than or equal to 1"),
        ({"step_mull": 8}, "step_mull"),
        ({"num_envs": 0}, "num_envs is 0; it must be an integer of at least 1"),
        ({"groups": {"a": ["ally_9"]}, "units": "slot"}, "ally_9"),
    ],
    ids=str,
)
def test_invalid_settings_are_reported(settings, message):
    with pytest.raises(ValueError, match=message):
        SkirmishEnv(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_reported():
    with pytest.raises(ValueError, match="device is 'cuda', but this machine has no GPU"):
        SkirmishEnv(device="cuda")


def test_illegal_actions_raise_or_stop_the_unit():
    checked = SkirmishEnv("mini_MMM", num_envs=3, seed=0, start="facing", check_actions=True)
    now = checked.reset()
    legal = {
        name: torch.ones_like(now[name, "action_mask"][..., 0], dtype=torch.int64)
        for name in checked.groups
    }
    for name, actions in legal.items():
        now[name, "action"] = actions
    now = checked.step(now)["next"]
    legal["marine"][1, 2] = 7
    for name, actions in legal.items():
        now[name, "action"] = actions
    with pytest.raises(
        ValueError,
        match=r"environment 1: agent marine_2 took action 7; legal are \[1, 2, 3, 4, 5\]",
    ):
        checked.step(now)

    ignoring = SkirmishEnv("mini_MMM", num_envs=3, seed=0, start="facing")
    first = ignoring.reset()
    for name, actions in legal.items():
        first[name, "action"] = actions
    after = ignoring.step(first)["next"]
    agents = ignoring.battles.moment.notes.last_action[:, 1].tolist()
    assert agents == [1] * 5, "the illegal attack was replaced with a stop"
    assert torch.isfinite(after["state"]).all()


def test_random_actions_are_legal_and_equally_likely():
    env = SkirmishEnv("mini_MMM", num_envs=500, seed=3)
    now = env.reset()
    for _ in range(12):  # until agents see enemies, and some are dead
        _, now = env.step_and_maybe_reset(env.rand_action(now))
    torch.manual_seed(0)
    counts = {name: torch.zeros(env.groups[name].action_size) for name in env.groups}
    expected = {name: counts[name].clone() for name in env.groups}
    for _ in range(20):
        env.rand_action(now)
        for name in env.groups:
            mask, action = now[name, "action_mask"], now[name, "action"]
            assert mask.gather(-1, action.unsqueeze(-1)).all()
            counts[name] += action.flatten().bincount(minlength=mask.shape[-1])
            expected[name] += (mask / mask.sum(-1, keepdim=True)).sum((0, 1))
    for name in env.groups:
        assert (expected[name] > 0).sum() > 7
        assert ((counts[name] - expected[name]).abs() <= 5 * expected[name].sqrt()).all()
