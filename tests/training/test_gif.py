"""Animated GIFs of an episode: what is in them, and what is never overwritten."""

from __future__ import annotations

import numpy as np
import pytest
from engine_config import make_config
from PIL import Image
from toy_games import PICTURE, create_toy_game

from heteromark.config.errors import ConfigError
from heteromark.modules.environment import EnvironmentFactory
from heteromark.training.components import ComponentFactory
from heteromark.training.evaluate import LoadedPolicy
from heteromark.training.gif import check_gif_path, record_episode, write_gif


@pytest.fixture
def policy(monkeypatch):
    """An untrained policy in a toy game of four moves."""
    monkeypatch.setattr(EnvironmentFactory, "create", create_toy_game)
    config = make_config(algorithm="IPPO", environment__kwargs={"length": 4})
    actors = ComponentFactory(config).create().learner.policies.actors
    return LoadedPolicy(config, actors, None, 0)


@pytest.mark.parametrize(("max_steps", "steps"), [(None, 4), (2, 2)])
def test_an_episode_is_shown_from_its_start_to_its_end(tmp_path, policy, max_steps, steps):
    settings = policy.config.evaluation.model_copy(update={"max_steps": max_steps})
    pictures = record_episode(policy, settings, seed=0)
    path = tmp_path / "deep" / "episode.gif"
    write_gif(pictures, path, fps=4)
    with Image.open(path) as animation:
        assert (animation.format, animation.n_frames) == ("GIF", steps + 1)
        assert animation.info["loop"] == 0
        for i in range(animation.n_frames):
            animation.seek(i)
            assert animation.info["duration"] == 250
            picture = np.asarray(animation.convert("RGB"))
            assert picture.shape == PICTURE
            assert (picture == 50 * i).all()


def test_what_cannot_draw_itself_says_so():
    config = make_config(environment__name="battle", environment__task="toy_environments:ToyBattle")
    actors = ComponentFactory(config).create().learner.policies.actors
    with pytest.raises(ValueError, match="environment 'battle' cannot draw"):
        record_episode(LoadedPolicy(config, actors, None, 0), config.evaluation, seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movie.mp4", "must end in .gif"),
        ("gif", "must end in .gif"),
        ("folder.gif", "is a folder"),
        ("notes.gif", "is no GIF, so it is not overwritten"),
    ],
)
def test_nothing_else_is_overwritten(tmp_path, name, message):
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "notes.gif").write_text("my notes")
    with pytest.raises(ConfigError, match=message) as error:
        check_gif_path(tmp_path / name)
    assert name in str(error.value)


def test_a_gif_may_be_replaced(tmp_path):
    path = tmp_path / "old.gif"
    Image.new("P", (2, 2)).save(path)
    check_gif_path(path)
    check_gif_path(tmp_path / "new.GIF")
