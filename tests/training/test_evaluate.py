"""Evaluation: which episodes are played, and that a saved policy plays as the trained one did."""

from __future__ import annotations

import json

import pytest
import torch
from engine_config import make_config

from heteromark.training.components import ComponentFactory
from heteromark.training.evaluate import as_report, evaluate, load_policy
from heteromark.training.loop import train

TOY = "toy_environments:ToyBattle"


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_saved_policy_plays_as_the_trained_one_did(tmp_path, deterministic):
    config = make_config(evaluation__episodes=5, evaluation__deterministic=deterministic)
    train(config, tmp_path)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    loaded, actors = load_policy(tmp_path / "checkpoint.pt")
    assert loaded == config
    assert evaluate(loaded, actors, 5, config.seed, deterministic) == written
    other = evaluate(loaded, actors, 5, config.seed + 1, deterministic)
    assert other["returns"] != written["returns"]


@pytest.mark.parametrize("episodes", [1, 3, 7])
def test_every_copy_plays_its_share(episodes):
    """With 3 copies, the lengths are those of each copy's first episodes, short or long."""
    config = make_config(
        environment__task=TOY,
        environment__kwargs={"length": None},
        environment__num_parallel_envs=4,
    )
    components = ComponentFactory(config).create()
    actors = components.learner.policies.actors
    report = evaluate(config, actors, episodes, 0, True)
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


def test_the_training_streams_are_left_alone():
    config = make_config()
    actors = ComponentFactory(config).create().learner.policies.actors
    before = torch.get_rng_state()
    evaluate(config, actors, 2, 0, False)
    assert (torch.get_rng_state() == before).all()


def test_a_report_is_fit_for_json():
    report = as_report([(1.0, 5, 1), (float("inf"), 7, -1)], True, 0)
    assert report["returns"] == [1.0, None]
    assert report["return_mean"] is report["wins"] is report["win_rate"] is None
    assert report["length_mean"] == 6
    assert as_report([(1.0, 5, 1), (2.0, 5, 0)], True, 0)["win_rate"] == 0.5
    json.dumps(report, allow_nan=False)


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
    with pytest.raises(ValueError, match=r"the actor of 'speaker' .* does not fit"):
        load_policy(path)
    saved["config"]["algorithm"] = "unheard of"
    torch.save(saved, path)
    with pytest.raises(ValueError, match="holds a config that this heteromark rejects"):
        load_policy(path)
