"""Evaluation: which episodes are played, and that a saved policy plays as the trained one did."""

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
def test_a_saved_policy_plays_as_the_trained_one_did(tmp_path, deterministic):
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
    """With 3 copies, the lengths are those of each copy's first episodes, short or long."""
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


def test_the_training_streams_are_left_alone():
    config = make_config(evaluation__deterministic=False)
    actors = untrained_actors(config)
    before = torch.get_rng_state()
    evaluate(config, actors, seed=0)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize(
    ("max_steps", "length", "achieved", "cut_off", "win_rate"),
    [
        # a step of 1, 2 and 3, then, without archer_1, of 1 and 3; the mean over three agents
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


def test_of_episodes_some_may_be_cut_off():
    config = make_config(
        environment__task=TOY,
        environment__kwargs={"length": None, "says_won": True},
        evaluation__episodes=20,
    )
    actors = untrained_actors(config)
    whole = evaluate(config, actors, seed=0)
    cut = evaluate(config, actors, 0, config.evaluation.model_copy(update={"max_steps": 5}))
    assert min(whole["lengths"]) < 5 < max(whole["lengths"])
    # the first copy's first episodes are the same; later ones follow from how long those were
    assert cut["lengths"][:2] == [min(5, length) for length in whole["lengths"][:2]]
    assert 0 < cut["cut_off"] == sum(not won for won in cut["wins"]) < 20
    assert all(cut["lengths"][i] == 5 for i, won in enumerate(cut["wins"]) if not won)
    assert cut["win_rate"] == 1 - cut["cut_off"] / 20


def game(**overrides):
    return make_config(**TIC_TAC_TOE, **{"evaluation__episodes": 40, **overrides})


def test_games_are_told_by_outcome():
    config = game(
        environment__opponent={"kind": "random", "seat": "second"}, evaluation__deterministic=False
    )
    report = evaluate(config, untrained_actors(config), seed=0)
    assert (report["opponent"], report["seat"]) == ("random", "second")
    outcomes = {"won": 1.0, "drawn": 0.0, "lost": -1.0}
    assert report["outcomes"] == {
        name: report["returns"].count(value) for name, value in outcomes.items()
    }
    assert min(report["outcomes"].values()) > 0, "an uninteresting case: choose another seed"
    assert report["win_rate"] == report["outcomes"]["won"] / 40
    assert report["not_lost_rate"] == 1 - report["outcomes"]["lost"] / 40


def test_the_opponent_of_an_evaluation_may_be_another():
    config = game(environment__opponent={"kind": "random"}, evaluation__opponent="heuristic")
    actors = untrained_actors(config)
    report = evaluate(config, actors, seed=0)
    assert (report["opponent"], report["seat"]) == ("heuristic", "alternate")
    assert report["not_lost_rate"] < 0.3, "it never misses a win or a threat"
    weaker = config.evaluation.model_copy(update={"opponent": None, "seat": "first"})
    report = evaluate(config, actors, 0, weaker)
    assert (report["opponent"], report["seat"]) == ("random", "first")
    assert report["not_lost_rate"] > 0.3


def test_against_oneself_there_are_no_outcomes():
    config = game(evaluation__seat="first")
    report = evaluate(config, untrained_actors(config), seed=0)
    assert (report["opponent"], report["seat"], report["outcomes"]) == ("self", None, None)


def test_of_games_that_were_all_cut_off_nothing_is_known():
    first = {"kind": "random", "seat": "first"}
    config = game(environment__opponent=first, evaluation__max_steps=2)
    report = evaluate(config, untrained_actors(config), seed=0)
    assert (report["cut_off"], report["win_rate"], report["outcomes"]) == (40, None, None)


def test_past_selves_must_be_there():
    config = game(environment__opponent={"kind": "past_self"})
    actors = untrained_actors(config)
    with pytest.raises(ValueError, match=r"no past selves to play against.*kind=past_self"):
        evaluate(config, actors, seed=0)
    pool = OpponentPool(size=1)
    pool.add(untrained_actors(game(seed=1)))
    report = evaluate(config, actors, 0, opponent_pool=pool.state_dict())
    assert report["opponent"] == "past_self"
    assert sum(report["outcomes"].values()) == 40


def test_recurrent_actors_remember_within_an_episode_only():
    config = make_config(policy_type="gru", evaluation__episodes=6)
    actors = untrained_actors(config)
    report = evaluate(config, actors, seed=0)
    environment = make_environment(config, 2, remembering=[*actors])
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


def test_opponents_are_for_turns():
    config = make_config()
    settings = EvaluationConfig(seat="first")
    message = "--seat is first, but in environment 'test' all agents act at once; .*: leave out --s"
    with pytest.raises(ValueError, match=message):
        evaluate(config, untrained_actors(config), seed=0, settings=settings)


def test_a_seat_is_for_opponents():
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


def test_what_was_cut_off_is_no_outcome():
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


def test_a_policy_of_another_environment_is_refused(tmp_path):
    train(make_config(training__total_frames=64), tmp_path)
    path = tmp_path / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    saved["actors"]["ghost"] = saved["actors"].pop("speaker")
    torch.save(saved, path)
    with pytest.raises(
        ValueError, match=r"holds actors of listener, ghost, .* train the run again"
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
        match=r"actor of 'speaker' .* has shape \[8, 11\], but \[8, 3\] is expected; train",
    ):
        load_policy(path)
    saved["config"]["algorithm"] = "unheard of"
    torch.save(saved, path)
    with pytest.raises(ValueError, match="holds a config that this heteromark rejects"):
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


def test_another_script_may_command_the_other_side_in_an_evaluation():
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
        (skirmish, "heuristic", " a script commands the other side; use one of nearest, attack_mo"),
        (game, "kite", "cript of Skirmish; in environment 'test' use one of self, random"),
        (make_config, "kite", " in environment 'test' .*must be self"),
    ],
)
def test_who_cannot_play_here_is_refused(make, opponent, message):
    config = make()
    settings = EvaluationConfig(opponent=opponent)
    with pytest.raises(ValueError, match=f"--opponent is {opponent}, (a s|but).*{message}"):
        evaluate(config, untrained_actors(config), seed=0, settings=settings)
