"""Evaluation: which episodes are played, and that a saved policy plays like the trained one."""

from __future__ import annotations

import json

import pytest
import torch
from engine_config import TIC_TAC_TOE, make_config
from pydantic import ValidationError
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.config.errors import faults_of
from heteromark.config.models.components import EvaluationConfig, OpponentConfig
from heteromark.config.models.run import RunConfig
from heteromark.environment.opponents.pool import OpponentPool
from heteromark.training.components import ComponentFactory
from heteromark.training.environments import make_environment
from heteromark.training.evaluator import Episode, Evaluator, as_report, evaluate
from heteromark.training.loaded_policy import load_policy
from heteromark.training.loop import train

TOY = "toy_environments:ToyBattle"


def untrained_actors(config):
    components = ComponentFactory(config).create()
    components.environment.close()
    return components.learner.actors


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_saved_policy_plays_like_the_trained_one(tmp_path, deterministic):
    config = make_config(evaluation__episodes=5, evaluation__deterministic=deterministic)
    train(config, tmp_path)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    loaded = load_policy(tmp_path / "checkpoint.pt")
    assert loaded.config == config
    assert loaded.iteration == 4
    assert evaluate(loaded.config, loaded.actors, config.seed) == written
    other = evaluate(loaded.config, loaded.actors, config.seed + 1)
    assert other["returns"] != written["returns"]


@pytest.mark.parametrize("episodes", [1, 3, 7])
def test_every_copy_plays_its_share(episodes):
    """The lengths are those of the first episodes of each copy, short or long."""
    config = make_config(
        environment__task=TOY,
        environment__kwargs={"length": None},
        environment__num_parallel_envs=4,
        evaluation__episodes=episodes,
    )
    components = ComponentFactory(config).create()
    actors = components.learner.actors
    report = evaluate(config, actors, seed=0)
    copies = min(episodes, 4)
    assert report["episodes"] == len(report["lengths"]) == episodes

    components.environment.reseed(0, "evaluation")
    now = components.environment.reset()
    played = [[] for _ in range(4)]
    with torch.no_grad():
        for _ in range(40):
            for actor in actors.values():
                now = actor(now)
            stepped, now = components.environment.step_and_maybe_reset(now)
            for i in range(4):
                if stepped["next", "done"][i]:
                    played[i].append(int(stepped["next", "step_count"][i]))
    assert report["lengths"] == [played[e % copies][e // copies] for e in range(episodes)]


def test_an_evaluator_plays_the_same_episodes_again():
    config = make_config(evaluation__deterministic=False)
    evaluator = Evaluator(config, untrained_actors(config))
    first, other, again = (evaluator.evaluate(seed) for seed in (0, 1, 0))
    evaluator.close()
    assert first == again
    assert first["returns"] != other["returns"]


def test_evaluation_preserves_the_random_state():
    config = make_config(evaluation__deterministic=False)
    actors = untrained_actors(config)
    before = torch.get_rng_state()
    evaluate(config, actors, seed=0)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize(
    ("max_steps", "length", "achieved", "cut_off", "win_rate"),
    [
        # Rewards per step: 1, 2 and 3, then (without archer_1) 1 and 3; mean over three agents.
        (1, 1, 2.0, 5, None),
        (3, 3, 16 / 3, 5, None),
        (5, 5, 8.0, 0, 1.0),
        (6, 5, 8.0, 0, 1.0),
    ],
)
def test_episodes_are_cut_off(max_steps, length, achieved, cut_off, win_rate):
    config = make_config(
        environment__task=TOY,
        environment__kwargs={"says_won": True, "ends": "terminated"},
        evaluation__episodes=5,
        evaluation__max_steps=max_steps,
    )
    report = evaluate(config, untrained_actors(config), seed=0)
    assert report["lengths"] == [length] * 5
    assert report["returns"] == pytest.approx([achieved] * 5)
    assert (report["cut_off"], report["max_steps"]) == (cut_off, max_steps)
    assert report["win_rate"] == win_rate


def test_some_episodes_may_be_cut_off():
    config = make_config(
        environment__task=TOY,
        environment__kwargs={"length": None, "says_won": True},
        evaluation__episodes=20,
    )
    actors = untrained_actors(config)
    whole = evaluate(config, actors, seed=0)
    cut = evaluate(config, actors, 0, config.evaluation.model_copy(update={"max_steps": 5}))
    assert min(whole["lengths"]) < 5 < max(whole["lengths"])
    # The first episodes are the same; later ones depend on the lengths of earlier ones.
    assert cut["lengths"][:2] == [min(5, length) for length in whole["lengths"][:2]]
    assert 0 < cut["cut_off"] == sum(not won for won in cut["wins"]) < 20
    assert all(cut["lengths"][i] == 5 for i, won in enumerate(cut["wins"]) if not won)
    assert cut["win_rate"] == 1 - cut["cut_off"] / 20


def game(**overrides):
    return make_config(**TIC_TAC_TOE, **{"evaluation__episodes": 40, **overrides})


def test_games_are_counted_by_outcome():
    config = game(
        environment__opponent={"kind": "random", "seat": "second"}, evaluation__deterministic=False
    )
    report = evaluate(config, untrained_actors(config), seed=0)
    assert (report["opponent"], report["seat"]) == ("random", "second")
    outcomes = {"won": 1.0, "drawn": 0.0, "lost": -1.0}
    assert report["outcomes"] == {
        name: report["returns"].count(value) for name, value in outcomes.items()
    }
    assert min(report["outcomes"].values()) > 0, (
        "this seed does not test all outcomes: choose another one"
    )
    assert report["win_rate"] == report["outcomes"]["won"] / 40
    assert report["not_lost_rate"] == (40 - report["outcomes"]["lost"]) / 40


def test_an_evaluation_may_have_a_different_opponent():
    config = game(environment__opponent={"kind": "random"}, evaluation__opponent="heuristic")
    actors = untrained_actors(config)
    report = evaluate(config, actors, seed=0)
    assert (report["opponent"], report["seat"]) == ("heuristic", "alternate")
    assert report["not_lost_rate"] < 0.3, "it never misses a win or a threat"
    weaker = config.evaluation.model_copy(update={"opponent": None, "seat": "first"})
    report = evaluate(config, actors, 0, weaker)
    assert (report["opponent"], report["seat"]) == ("random", "first")
    assert report["not_lost_rate"] > 0.3


def test_self_play_has_no_outcomes():
    config = game(evaluation__seat="first")
    report = evaluate(config, untrained_actors(config), seed=0)
    assert (report["opponent"], report["seat"], report["outcomes"]) == ("self", None, None)


def test_outcomes_are_none_if_all_games_were_cut_off():
    first = {"kind": "random", "seat": "first"}
    config = game(environment__opponent=first, evaluation__max_steps=2)
    report = evaluate(config, untrained_actors(config), seed=0)
    assert (report["cut_off"], report["win_rate"], report["outcomes"]) == (40, None, None)


def test_an_evaluation_against_past_selves_needs_past_policies():
    config = game(environment__opponent={"kind": "past_self"})
    actors = untrained_actors(config)
    with pytest.raises(ValueError, match=r"the run has no past policies, .*kind=past_self"):
        evaluate(config, actors, seed=0)
    pool = OpponentPool(size=1)
    pool.add(untrained_actors(game(seed=1)))
    report = evaluate(config, actors, 0, opponent_pool=pool.state_dict())
    assert report["opponent"] == "past_self"
    assert sum(report["outcomes"].values()) == 40


def test_recurrent_actors_keep_their_state_within_an_episode_only():
    config = make_config(policy_type="gru", evaluation__episodes=6)
    actors = untrained_actors(config)
    report = evaluate(config, actors, seed=0)
    environment = make_environment(config, 2, recurrent=[*actors])
    environment.reseed(0, "evaluation")
    now, played = environment.reset(), [[], []]
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        while min(map(len, played)) < 3:
            for actor in actors.values():
                now = actor(now)
            stepped, now = environment.step_and_maybe_reset(now)
            for i in stepped["next", "done"].squeeze(-1).nonzero()[:, 0].tolist():
                played[i].append(float(stepped["next", "episode_return"][i]))
    assert report["returns"] == [played[e % 2][e // 2] for e in range(6)]


def test_a_seat_is_rejected_if_all_agents_act_at_once():
    config = make_config()
    settings = EvaluationConfig(seat="first")
    message = "--seat is first, but in environment 'test' all agents act at once; .*: remove --s"
    with pytest.raises(ValueError, match=message):
        evaluate(config, untrained_actors(config), seed=0, settings=settings)


def test_a_seat_is_rejected_in_self_play():
    config = game()
    settings = EvaluationConfig(seat="first")
    with pytest.raises(ValueError, match="--seat is first, but the policy plays all seats; add --"):
        evaluate(config, untrained_actors(config), seed=0, settings=settings)


def test_a_run_without_past_selves_cannot_be_evaluated_against_them():
    with pytest.raises(ValidationError) as error:
        make_config(evaluation__opponent="past_self")
    (fault,) = faults_of(error.value, RunConfig, "config")
    assert fault.key == "evaluation.opponent"
    assert "a run trained against self keeps no past policies" in fault.message
    make_config(evaluation__opponent="past_self", environment__opponent={"kind": "past_self"})


def test_a_report_is_fit_for_json():
    settings = EvaluationConfig()
    report = as_report([Episode(1.0, 5, 1), Episode(float("inf"), 7, -1)], settings, 0)
    assert report["returns"] == [1.0, None]
    assert report["return_mean"] is report["wins"] is report["win_rate"] is None
    assert report["length_mean"] == 6
    json.dumps(report, allow_nan=False)


def test_cut_off_episodes_have_no_outcome():
    episodes = [
        Episode(1.0, 5, 1),
        Episode(0.0, 9, 0),
        Episode(-1.0, 5, 0),
        Episode(0.0, 10, -1, cut_off=True),
    ]
    report = as_report(episodes, EvaluationConfig(max_steps=10), 0, OpponentConfig(kind="random"))
    assert report["wins"] == [True, False, False, False]
    assert report["win_rate"] == 0.25
    assert report["outcomes"] == {"won": 1, "drawn": 1, "lost": 1}
    assert (report["not_lost_rate"], report["cut_off"]) == (0.5, 1)


def test_a_policy_of_another_environment_is_rejected(tmp_path):
    train(make_config(training__total_frames=64), tmp_path)
    path = tmp_path / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    saved["actors"]["ghost"] = saved["actors"].pop("speaker")
    torch.save(saved, path)
    with pytest.raises(
        ValueError, match=r"has actors for the groups listener, ghost, .* train the run again"
    ):
        load_policy(path)
    saved["actors"]["speaker"] = saved["actors"].pop("ghost")
    saved["actors"]["speaker"], saved["actors"]["listener"] = (
        saved["actors"]["listener"],
        saved["actors"]["speaker"],
    )
    torch.save(saved, path)
    with pytest.raises(
        ValueError,
        match=r"actor of 'speaker' .* has shape \[8, 11\], expected \[8, 3\]; train",
    ):
        load_policy(path)
    saved["config"]["algorithm"] = "unheard of"
    torch.save(saved, path)
    with pytest.raises(ValueError, match="this heteromark rejects the config in "):
        load_policy(path)


# --- Skirmish -------------------------------------------------------------------------------------


def skirmish(**overrides):
    return make_config(
        env_type="skirmish",
        environment__task=None,
        environment__skirmish={"scenario": "3m"},
        environment__num_parallel_envs=4,
        **overrides,
    )


def test_an_evaluation_may_use_a_different_script():
    config = skirmish(evaluation__episodes=8)
    actors = untrained_actors(config)
    reports = {
        name: evaluate(config, actors, 0, config.evaluation.model_copy(update={"opponent": name}))
        for name in (None, "nearest", "kite")
    }
    assert [report["opponent"] for report in reports.values()] == ["nearest", "nearest", "kite"]
    assert reports[None] == reports["nearest"]
    assert reports["kite"]["lengths"] != reports["nearest"]["lengths"]
    by_config = skirmish(evaluation__episodes=8, evaluation__opponent="kite")
    assert evaluate(by_config, actors, 0) == reports["kite"]


@pytest.mark.parametrize(
    ("make", "opponent", "message"),
    [
        (skirmish, "heuristic", " a script commands the other side; use nearest, attack_move, "),
        (game, "kite", " is a Skirmish script; in environment 'test' use self, random"),
        (make_config, "kite", " in environment 'test' .*must be self"),
    ],
)
def test_an_opponent_that_cannot_play_is_rejected(make, opponent, message):
    config = make()
    settings = EvaluationConfig(opponent=opponent)
    with pytest.raises(ValueError, match=f"--opponent is {opponent}, (which|but).*{message}"):
        evaluate(config, untrained_actors(config), seed=0, settings=settings)
