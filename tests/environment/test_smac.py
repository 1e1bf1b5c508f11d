"""Objects with the SMAC API: deaths, ends, rewards, masks, groups by unit type."""

from __future__ import annotations

import logging

import pytest
import torch
from engine_config import make_config
from pettingzoo.test import parallel_api_test
from projects import copy_project
from smac_stand_in import FIRST_TARGET, STOP
from torchrl.envs.utils import check_env_specs

from heteromark.config.errors import ConfigError
from heteromark.environment.smac.adapter import SMACParallelEnv
from heteromark.import_paths import Task
from heteromark.modules.environment import EnvironmentFactory
from heteromark.workflow.plan import make_plan

# The marauder (8 health, deals 2) stands opposite enemy 0, the marine (4 health, deals 1) opposite
# enemy 1; enemies are marines. Units opposite each other are in range, at a distance of 3. The
# marauder also has enemy 1 in range, at 3.16.
DUEL = {"units": ["marauder", "marine"], "distance": 3.0, "jitter": 0.0}


def create(
    num_envs=1,
    battle="Battle",
    *,
    smac=None,
    reward="team",
    render=False,
    algorithm="IPPO",
    **kwargs,
):
    """Create an environment whose task is one of the stand-ins."""
    config = make_config(
        algorithm=algorithm,
        env_type="smac",
        environment__task=f"smac_stand_in:{battle}",
        environment__kwargs=kwargs,
        environment__smac=smac or {},
        environment__reward=reward,
        environment__state=True,
    )
    return EnvironmentFactory().create(config, num_envs, render=render)


def play(env, choose, steps, seed=0):
    """Return a rollout [N, steps] with resets; choose(group, now) returns actions [N, n]."""
    env.reseed(seed, "test")
    now, taken = env.reset(), []
    for _ in range(steps):
        for group in env.groups:
            now[group, "action"] = choose(group, now)
        stepped, now = env.step_and_maybe_reset(now)
        taken.append(stepped)
    return torch.stack(taken, 1)


def hold(group, now):
    """Stop, or take the no-op if it is the only legal action."""
    return now[group, "action_mask"][..., STOP].long() * STOP


def shoot(group, now):
    """Shoot the enemy opposite while it lives, then the last target in range, else hold."""
    legal = now[group, "action_mask"]
    opposite = FIRST_TARGET + (group == "marine")
    last = legal.shape[-1] - 1 - legal.flip(-1).int().argmax(-1)
    target = torch.where(legal[..., opposite], opposite, last)
    return torch.where(target < FIRST_TARGET, hold(group, now), target)


def ends(step):
    return [bool(step[key]) for key in ("done", "terminated", "truncated")]


# dead agents also receive the team's reward
@pytest.mark.filterwarnings("ignore:Agent was given reward but was dead:UserWarning")
@pytest.mark.parametrize("dead_agents", ["inactive", "active"])
def test_pettingzoo_and_torchrl_checks_pass(dead_agents):
    make = Task("smac_stand_in:Battle", {"strict": False})
    parallel_api_test(SMACParallelEnv(make, dead_agents=dead_agents), num_cycles=50)
    check_env_specs(create(2, smac={"dead_agents": dead_agents}, strict=False), seed=0)


def test_rewards_of_a_victory_match_manual_calculation():
    # Enemy 0 falls in the second step, before it can shoot twice; enemy 1 then has 2 health left.
    data = play(create(**DUEL), shoot, 3)
    expected = torch.tensor([2.0 + 1, 2 + 1 + 10, 2 + 10 + 20])
    for group in ("marauder", "marine"):
        torch.testing.assert_close(data["next", group, "reward"][0, :, 0, 0], expected)
        assert data["next", group, "active"][0, :, 0].tolist() == [True, True, False]
    assert ends(data["next"][0, -1]) == [True, True, False]
    assert data["next", "won"].flatten().tolist() == [-1, -1, 1]
    assert float(data["next", "episode_return"][0, -1]) == 48
    position_and_health = data["next", "marauder", "observation"][0, 1, 0, :3]
    assert position_and_health.tolist() == [4.5, 3.5, 7]


def test_a_defeat_matches_manual_calculation():
    # Enemy 1 kills the marine in four steps and moves up in the fifth. It joins enemy 0, which has
    # by then dealt 5 of the marauder's 8 health.
    data = play(create(**DUEL), hold, 7)
    assert ends(data["next"][0, -1]) == [True, True, False]
    assert data["next", "won"].flatten().tolist() == [-1] * 6 + [0]
    assert (data["next", "marine", "reward"] == 0).all()


def test_action_masks_come_from_the_environment():
    env = create(**DUEL)
    env.reseed(0)
    now = env.reset()
    no_op_stop_and_moves = [False, True, True, True, True, True]
    assert now["marine", "action_mask"][0, 0].tolist() == [*no_op_stop_and_moves, False, True]
    assert now["marauder", "action_mask"][0, 0].tolist() == [*no_op_stop_and_moves, True, True]


@pytest.mark.parametrize("reward", ["team", "individual"])
def test_dead_agents_are_inactive_and_receive_the_team_reward(reward):
    def hold_until_the_marine_is_dead(group, now):
        return hold(group, now) if now["step_count"] < 4 else shoot(group, now)

    data = play(create(reward=reward, **DUEL), hold_until_the_marine_is_dead, 6)
    marine, after = data["marine"][0], data["next", "marine"][0]
    assert marine["active"][:, 0].tolist() == [True] * 4 + [False] * 2
    assert after["active"][:, 0].tolist() == [True] * 3 + [False] * 3
    assert (marine["observation"][4:] == 0).all()
    assert (marine["observation"][:4, 0, 2] > 0).all()
    assert marine["action_mask"][4:].all()
    assert data["marauder", "active"].all()
    expected = [0, 0, 0, 0, 2, 2 + 10]
    for group in ("marauder", "marine"):
        assert data["next", group, "reward"].flatten().tolist() == expected
    assert data["next", "episode_return"].flatten().tolist() == [0, 0, 0, 0, 2, 14]


def test_dead_agents_can_stay_active_with_only_the_no_op():
    data = play(create(smac={"dead_agents": "active"}, **DUEL), hold, 6)
    assert data["marine", "active"].all()
    assert data["next", "marine", "active"].all()
    assert data["marine", "action_mask"][0, 4:, 0].tolist() == [[True] + [False] * 7] * 2
    assert (data["marine", "observation"][0, 4:] == 0).all()
    assert (data["marine", "action"][0, :, 0] == torch.tensor([1, 1, 1, 1, 0, 0])).all()


@pytest.mark.parametrize(
    ("kwargs", "smac", "terminated"),
    [
        ({"episode_limit": 5}, {}, False),
        ({"episode_limit": 5, "continuing_episode": False}, {}, True),
        ({"episode_limit": 20}, {"episode_limit": 5}, False),
    ],
    ids=["reported by the object", "not reported", "set in the config"],
)
def test_running_out_of_time_is_truncation(kwargs, smac, terminated):
    data = play(create(smac=smac, **DUEL, **kwargs), hold, 6)["next"][0]
    assert ends(data[3]) == [False] * 3
    last = data[4]
    assert ends(last) == [True, terminated, not terminated]
    assert bool(last["marauder", "active"]) is not terminated
    assert not last["marine", "active"]
    own_health = float(last["marauder", "observation"][0, 2])
    assert own_health == (3 if not terminated else 0)
    assert int(last["won"]) == 0
    assert int(data[5]["step_count"]) == 1


def test_a_crash_of_the_game_truncates_the_episode(caplog):
    caplog.set_level(logging.WARNING)
    last = play(create(**DUEL, crash_at=2), hold, 2)["next"][0, -1]
    assert ends(last) == [True, False, True]
    assert int(last["won"]) == -1
    assert last["marauder", "active"].all()
    assert "StarCraft II in environment 'test' crashed and restarted" in caplog.text


def test_the_state_comes_from_the_object():
    assert "state" not in play(create(**DUEL), hold, 1)  # nobody reads it
    data = play(create(algorithm="MAPPO", **DUEL), hold, 1)
    assert data["state"].flatten().tolist() == [
        *(4.5, 3.5, 8, 4.5, 4.5, 4),
        *(7.5, 3.5, 4, 7.5, 4.5, 4),
    ]
    assert data["next", "state"].flatten().tolist() == [
        *(4.5, 3.5, 7, 4.5, 4.5, 3),
        *(7.5, 3.5, 4, 7.5, 4.5, 4),
    ]


def test_battles_are_rendered_if_they_can_be():
    env = create(render=True, **DUEL)
    env.reset()
    picture = env.render()
    rows_columns_channels = [list(pixel) for pixel in zip(*picture.nonzero(), strict=True)]
    assert rows_columns_channels == [[3, 4, 1], [3, 7, 0], [4, 4, 1], [4, 7, 0]]
    env = create(battle="Blind", render=True)
    env.reset()
    with pytest.raises(ValueError, match=r"environment 'test' cannot render: it has no render\(\)"):
        env.render()


# --- groups by unit type -----------------------------------------------------------------------

TEAM = ["marauder", "marine", "marine", "medivac"]


def agents(env):
    return {name: group.agents for name, group in env.groups.items()}


BY_TYPE = {
    "marauder": ("marauder_0",),
    "marine": ("marine_0", "marine_1"),
    "medivac": ("medivac_0",),
}
SLOTS = {"ally": ("ally_0", "ally_1", "ally_2", "ally_3")}


@pytest.mark.parametrize(
    ("kwargs", "unit_types", "expected"),
    [
        ({}, "auto", BY_TYPE),
        ({}, TEAM, BY_TYPE),
        ({}, "slots", SLOTS),
        ({"random_team": True}, "auto", SLOTS),
    ],
    ids=["from the environment", "from the config", "slots", "random teams"],
)
def test_agents_are_named_by_unit_type(kwargs, unit_types, expected):
    env = create(2, units=TEAM, smac={"unit_types": unit_types}, **kwargs)
    assert agents(env) == expected
    play(env, hold, 25)


def test_smaclite_is_supported():
    env = create(battle="wrapped_lite", smac={"episode_limit": 3})
    assert agents(env) == {"marine": ("marine_0",), "medivac": ("medivac_0",)}
    data = play(env, hold, 4)["next"][0]
    assert ends(data[2]) == [True, False, True]
    assert int(data[2]["won"]) == 0
    assert int(data[3]["step_count"]) == 1


def test_changing_teams_require_slots():
    env = create(units=TEAM, random_team=True, says_so=False)
    with pytest.raises(
        ValueError,
        match=r"'test' has the units .*, but its agents are named after .*"
        r"environment\.smac\.unit_types, or set it to slots",
    ):
        play(env, hold, 200)


@pytest.mark.parametrize(
    ("unit_types", "message"),
    [
        (["marine"] * 4, r"has the units marauder, .* named after marine, marine, marine"),
        (["marine"], r"unit_types has 1 entries, but environment 'test' has 4 agents"),
    ],
)
def test_types_that_do_not_fit_the_units_are_refused(unit_types, message):
    with pytest.raises(ValueError, match=message):
        create(units=TEAM, smac={"unit_types": unit_types})


# --- errors ------------------------------------------------------------------------------------


def test_a_missing_package_is_reported_with_how_to_install_it():
    config = make_config(env_type="smac", environment__task="smacv2.env:StarCraft2Env")
    with pytest.raises(
        ModuleNotFoundError,
        match=r"module 'smacv2' was not found; install .*oxwhirl/smacv2.*StarCraft II 4\.10.*"
        r"environment=skirmish",
    ):
        EnvironmentFactory().create(config)


def test_a_missing_package_is_reported_when_a_sweep_is_planned(tmp_path):
    project = copy_project(tmp_path)
    project.set_params(sweep={"environment": "smac_mmm"})
    with pytest.raises(
        ConfigError,
        match=r"smac_mmm\.yaml.*module smac.env not found.*install .*oxwhirl/smac\.git.*II 4\.10",
    ):
        make_plan(tmp_path)


def test_a_missing_starcraft_is_reported_with_how_to_install_it(tmp_path, monkeypatch):
    # pysc2 raises various errors if it does not find the game; this one without SC2PATH
    package = tmp_path / "pysc2" / "run_configs"
    package.mkdir(parents=True)
    (tmp_path / "pysc2" / "__init__.py").touch()
    (package / "__init__.py").write_text(
        "def get():\n    raise FileNotFoundError(2, 'No such file', '~/StarCraftII/Versions')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"StarCraft II could not be started .*/Versions.*SC2PATH.*SMAC_Maps"
    ):
        create(battle="WithoutStarCraft")


def test_other_errors_of_the_object_are_not_changed():
    with pytest.raises(ZeroDivisionError):
        create(battle="Broken")


@pytest.mark.parametrize(
    ("battle", "kwargs", "error", "message"),
    [
        ("NoStates", {}, TypeError, "NoStates, which lacks get_state, get_avail_actions from "),
        ("unseedable", {}, TypeError, r"cannot be seeded: .* no method seed\(n\)"),
        ("wrapped_lite", {}, ValueError, "set environment.smac.episode_limit"),
        ("Battle", {"seed": 3}, ValueError, "environment.kwargs.seed is 3, .* remove it"),
    ],
)
def test_unusable_objects_are_refused(battle, kwargs, error, message):
    with pytest.raises(error, match=message):
        create(battle=battle, **kwargs)
