"""Animated GIFs of an episode: what is in them, and what is never overwritten."""

from __future__ import annotations

import numpy as np
import pytest
from engine_config import TIC_TAC_TOE, make_config
from PIL import Image

from heteromark.config.errors import ConfigError
from heteromark.environment.opponent_pool import OpponentPool
from heteromark.training.components import ComponentFactory
from heteromark.training.evaluate import LoadedPolicy, evaluate
from heteromark.training.gif import check_gif_path, record_episode, write_gif


def untrained(config):
    components = ComponentFactory(config).create()
    components.environment.close()
    return LoadedPolicy(config, components.learner.policies.actors, None, 0)


@pytest.mark.parametrize("max_steps", [None, 2])
def test_an_episode_is_shown_from_its_start_to_its_end(tmp_path, max_steps):
    config = make_config(
        **TIC_TAC_TOE,
        environment__opponent={"kind": "random"},
        evaluation__episodes=1,
        evaluation__max_steps=max_steps,
    )
    policy = untrained(config)
    pictures = record_episode(policy, config.evaluation, seed=0)
    (steps,) = evaluate(config, policy.actors, seed=0)["lengths"]
    assert len(pictures) == steps + 1
    path = tmp_path / "deep" / "episode.gif"
    write_gif(pictures, path, fps=4)
    with Image.open(path) as animation:
        assert (animation.format, animation.n_frames) == ("GIF", steps + 1)
        assert animation.info["loop"] == 0
        board, marks = None, []
        for i in range(animation.n_frames):
            animation.seek(i)
            assert animation.info["duration"] == 250
            picture = np.asarray(animation.convert("RGB"), np.int64)
            board = picture if board is None else board
            marks.append(int((picture != board).any(-1).sum()))
    assert marks == sorted(set(marks)), "every picture has more marks than the one before"


def test_past_selves_play_in_the_picture(tmp_path):
    config = make_config(**TIC_TAC_TOE, environment__opponent={"kind": "past_self"})
    policy = untrained(config)
    with pytest.raises(ValueError, match="no past selves"):
        record_episode(policy, config.evaluation, seed=0)
    pool = OpponentPool(size=1)
    pool.add(policy.actors)
    policy = policy._replace(opponent_pool=pool.state_dict())
    assert record_episode(policy, config.evaluation, seed=0)


def test_what_cannot_draw_itself_says_so():
    config = make_config(environment__name="battle", environment__task="toy_environments:ToyBattle")
    with pytest.raises(ValueError, match="environment 'battle' cannot draw"):
        record_episode(untrained(config), config.evaluation, seed=0)


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
