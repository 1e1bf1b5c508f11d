"""Animated GIFs of an episode: their pictures, and which files are never overwritten."""

from __future__ import annotations

import numpy as np
import pytest
from engine_config import TIC_TAC_TOE, make_config
from PIL import Image

from heteromark.commands.gif import check_gif_path, record_episode, write_gif
from heteromark.config.errors import ConfigError
from heteromark.environment.opponents.pool import OpponentPool
from heteromark.training.components import ComponentFactory
from heteromark.training.evaluator import evaluate
from heteromark.training.loaded_policy import LoadedPolicy


def untrained(config):
    components = ComponentFactory(config).create()
    components.environment.close()
    groups = components.environment.groups
    return LoadedPolicy(config, components.learner.actors, groups, None, 0)


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
    assert marks == sorted(set(marks)), "every picture has more marks than the previous one"


def test_past_policies_play_in_a_recorded_episode(tmp_path):
    config = make_config(
        **TIC_TAC_TOE, environment__opponent={"kind": "past_self"}, evaluation__episodes=1
    )
    policy = untrained(config)
    with pytest.raises(ValueError, match="no past policies"):
        record_episode(policy, config.evaluation, seed=0)
    pool = OpponentPool(size=1)
    pool.add(policy.actors)
    policy = policy._replace(opponent_pool=pool.state_dict())
    pictures = record_episode(policy, config.evaluation, seed=0)
    report = evaluate(config, policy.actors, 0, opponent_pool=policy.opponent_pool)
    (steps,) = report["lengths"]
    assert len(pictures) == steps + 1
    start, end = (np.asarray(picture.convert("RGB"), np.int64) for picture in pictures[::steps])
    cells = [cell for row in np.array_split((start != end).any(-1), 3) for cell in marked(row)]
    assert sum(cells) > steps, "there are also marks of the past policy"


def marked(row):
    """Return for each of a row's three cells whether it has a mark."""
    return [bool(cell.any()) for cell in np.array_split(row, 3, axis=1)]


def test_an_environment_that_cannot_render_is_reported():
    config = make_config(environment__name="battle", environment__task="toy_environments:ToyBattle")
    with pytest.raises(ValueError, match="environment 'battle' cannot render"):
        record_episode(untrained(config), config.evaluation, seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movie.mp4", "must end in .gif"),
        ("gif", "must end in .gif"),
        ("folder.gif", "is a folder"),
        ("notes.gif", "exists but is not a GIF, so it is not overwritten"),
    ],
)
def test_only_gifs_are_overwritten(tmp_path, name, message):
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "notes.gif").write_text("my notes")
    with pytest.raises(ConfigError, match=message) as error:
        check_gif_path(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["old.gif", "new.GIF"])
def test_a_gif_may_be_replaced(tmp_path, name):
    Image.new("P", (2, 2)).save(tmp_path / "old.gif")
    check_gif_path(tmp_path / name)
    pictures = [Image.new("RGB", (3, 5), color).convert("P") for color in ("red", "blue")]
    write_gif(pictures, tmp_path / name, fps=10)
    with Image.open(tmp_path / name) as animation:
        assert (animation.format, animation.size, animation.n_frames) == ("GIF", (3, 5), 2)
    assert {path.name for path in tmp_path.iterdir()} == {"old.gif", name}, "no temporary file"
