"""A policy that commands the other side has the observations and actions of agents there."""

from __future__ import annotations

import pytest
import torch
from engine_config import make_config
from tensordict import TensorDict

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish import SkirmishEnv
from heteromark.environment.skirmish.battles import Battles
from heteromark.modules.policy import PolicyFactory

STOP = 1
SEVERAL = 16


class Recorder:
    """A player that always stops, and records its inputs."""

    def __init__(self):
        self.views, self.luck = [], []

    def __call__(self, view, kind, steps, luck):
        self.views.append(view)
        self.luck.append(luck)
        return torch.where(view.alive, STOP, 0)


def battles(player, **settings):
    config = SkirmishConfig(opponent="policy", **settings)
    made = Battles(config, SEVERAL)
    made.oppose(player)
    made.reseed(range(SEVERAL))
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {"scenario": "mini_MMM", "start": "facing"},
        {"scenario": "10gen_protoss", "start": "reflect"},
        {"scenario": "10gen_terran", "start": "reflect", "conic_fov": True},
    ],
)
def test_in_mirrored_battles_both_sides_see_the_same(settings):
    recorder = Recorder()
    made = battles(recorder, **settings)
    view = made.reset()
    made.step(torch.ones(SEVERAL, 5, dtype=torch.int64))
    (seen,) = recorder.views
    assert torch.equal(seen.observation, view.observation)
    assert torch.equal(seen.offered, view.offered)
    assert torch.equal(seen.alive, view.alive)


def test_views_differ_once_the_sides_differ():
    recorder = Recorder()
    made = battles(recorder, scenario="mini_MMM", start="facing")
    made.reset()
    for _ in range(3):
        view, _ = made.step(torch.full((SEVERAL, 5), 4))  # east, and the others stop
    made.step(torch.ones(SEVERAL, 5, dtype=torch.int64))
    own_x = recorder.views[-1].observation[..., -5] * 32  # x, y come before the type bits
    start_x = recorder.views[0].observation[..., -5] * 32
    assert torch.equal(own_x, start_x)
    assert not torch.equal(recorder.views[-1].observation, view.observation)


def test_units_that_stop_do_not_move_and_luck_is_redrawn_at_each_step():
    recorder = Recorder()
    made = battles(recorder, scenario="3m")
    made.reset()
    before = made.moment.units.x[3:].clone()
    for _ in range(4):
        made.step(torch.ones(SEVERAL, 3, dtype=torch.int64))
    assert torch.equal(made.moment.units.x[3:], before)
    drawn = torch.stack(recorder.luck)
    assert len(drawn.unique()) == drawn.numel()


def test_an_attack_of_the_policy_hits():
    def attack(view, kind, steps, luck):
        """Take the last legal action if it is an attack, else walk east in the mirrored view."""
        last = view.offered.long() * torch.arange(view.offered.shape[-1])
        return torch.where(last.amax(-1) >= 6, last.argmax(-1), 4)

    made = battles(attack, scenario="3m")
    made.reset()
    for _ in range(25):
        made.step(torch.ones(SEVERAL, 3, dtype=torch.int64))
    units = made.moment.units
    assert (units.health[:3].sum(0) < 3 * 45).all()
    assert (units.health[3:] == 45).all()  # units that stop do not shoot


def test_a_missing_player_is_reported():
    made = Battles(SkirmishConfig(opponent="policy"), 1)
    made.reset()
    with pytest.raises(RuntimeError, match="call oppose"):
        made.step(torch.ones(1, 5, dtype=torch.int64))


# --- actors ---------------------------------------------------------------------------------------


def run_config(policy_type="mlp", **skirmish):
    return make_config(
        env_type="skirmish",
        environment__task=None,
        environment__skirmish=skirmish,
        policy_type=policy_type,
    )


def opposed(num_envs, first=0, policy_type="mlp", **settings):
    """Return battles against an untrained policy for their other side."""
    env = SkirmishEnv(num_envs=num_envs, first=first, seed=5, opponent="policy", **settings)
    torch.manual_seed(0)
    config = run_config(policy_type, **settings)
    actors = PolicyFactory().create(config, env.groups, env.state_size).actors
    with torch.no_grad():  # far from uniform
        for actor in actors.values():
            for parameter in actor.parameters():
                parameter.mul_(3)
    env.oppose(actors, env.groups)
    return env


def played(env, steps):
    """Return the states while agents take their first legal action except the stop."""
    states = []
    now = env.reset()
    for _ in range(steps):
        for name in env.groups:
            mask = now[name, "action_mask"].clone()
            mask[..., STOP] &= mask.sum(-1) == 1
            now[name, "action"] = mask.long().argmax(-1)
        _, now = env.step_and_maybe_reset(now)
        states.append(now["state"])
    return torch.stack(states, 1)


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize(
    "settings",
    [
        {"scenario": "mini_MMM"},
        {"scenario": "10gen_terran"},
        {"scenario": "10gen_zerg", "units": "slot", "prob_obs_enemy": 0.0},
        {"scenario": "3m", "policy_type": "gru", "episode_limit": 7},
    ],
    ids=["types", "random types", "slots", "recurrent"],
)
def test_results_do_not_depend_on_the_batch_size(settings):
    together = played(opposed(4, **settings), 20)
    for number in range(4):
        alone = played(opposed(1, first=number, **settings), 20)
        torch.testing.assert_close(alone[0], together[number], rtol=1e-5, atol=1e-5)


def test_a_recurrent_policy_forgets_the_last_episode():
    """After the end of an episode, its hidden state is reset."""
    settings = {"scenario": "3m", "policy_type": "gru", "episode_limit": 7}
    env = opposed(2, **settings)
    both = played(env, 14)
    again = opposed(2, **settings)
    again.battles._episodes += 1  # start with the second episode
    second = played(again, 7)
    assert torch.equal(both[:, 7:13], second[:, :6])


def test_legal_actions_are_sampled_by_their_probabilities():
    env = opposed(1, scenario="mini_MMM")
    player = env.battles._adversary._player
    many = 4000
    view = env.battles.reset()
    torch.manual_seed(1)
    luck = torch.rand(5, many)
    repeated = type(view)(*(part.expand(many, *part.shape[1:]) for part in view))
    kind = env.battles.episode.roster.kind[:5].expand(-1, many)
    actions = player(repeated, kind, torch.zeros(many, dtype=torch.int64), luck)
    for name, group in env.groups.items():
        shown = {
            "observation": view.observation[:, player._rows[name]],
            "active": view.alive[:, player._rows[name]],
            "action_mask": view.offered[:, player._rows[name]],
        }
        seen = TensorDict({name: shown, "step_count": torch.zeros(1, 1).long()}, batch_size=[1])
        expected = player._actors[name].get_dist(seen).probs[0]
        for row, agent in zip(player._rows[name], range(len(group.agents)), strict=True):
            counted = torch.bincount(actions[:, row], minlength=11) / many
            torch.testing.assert_close(counted, expected[agent], rtol=0, atol=0.04)
            assert not counted[~view.offered[0, row]].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "3m"}, "trained as marauder_0, .* but the units of the other side are"),
        (
            {"scenario": "mini_MMM", "conic_fov": True},
            "trained with 82 observations .* environment has 84",
        ),
    ],
)
def test_a_policy_for_other_units_is_refused(settings, message):
    trained = opposed(1, scenario="mini_MMM")
    env = SkirmishEnv(opponent="policy", **settings)
    with pytest.raises(ValueError, match=message):
        env.oppose(trained.battles._adversary._player._actors, trained.groups)
