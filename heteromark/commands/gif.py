"""An episode as an animated GIF."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heteromark.config.errors import ConfigError
from heteromark.runs.files import atomic_path

if TYPE_CHECKING:
    from PIL.Image import Image

    from heteromark.config.models.components import EvaluationConfig
    from heteromark.training.loaded_policy import LoadedPolicy

_SIGNATURES = (b"GIF87a", b"GIF89a")


def check_gif_path(path: Path) -> None:
    """Refuse a path that a GIF should not be written to; a GIF that is there is replaced.

    Raises:
        ConfigError: another suffix, a folder, or a file of another kind.
    """
    if path.suffix.lower() != ".gif":
        raise ConfigError.single("--gif", f"{path} must end in .gif")
    if path.is_dir():
        raise ConfigError.single("--gif", f"{path} is a folder")
    if path.is_file():
        with path.open("rb") as file:
            signature = file.read(6)
        if signature not in _SIGNATURES:
            raise ConfigError.single("--gif", f"{path} is no GIF, so it is not overwritten")


def record_episode(policy: LoadedPolicy, settings: EvaluationConfig, seed: int) -> list[Image]:
    """Pictures of one episode: after its reset, and after each of its steps.

    With most likely actions it is the first of the episodes that an evaluation with this seed
    plays, except against past selves, who sample theirs.

    Raises:
        ValueError: the environment cannot draw itself.
    """
    from PIL import Image

    from heteromark.modules.policy import recurrent_groups
    from heteromark.training.environments import make_evaluation_environment
    from heteromark.training.evaluator import bring_past_selves, play

    _draw_without_display()
    environment = make_evaluation_environment(
        policy.config, settings, 1, remembering=recurrent_groups(policy.actors), render=True
    )
    pictures = []

    def see(after: Any, _cut_off: Any) -> bool:
        picture = Image.fromarray(environment.render())
        # 256 colours, as in the file: a third of the memory
        pictures.append(picture.convert("P", palette=Image.Palette.ADAPTIVE))
        return not after["done"].any()

    try:
        bring_past_selves(environment, policy.actors, policy.opponent_pool)
        play(environment, policy.actors, settings, seed, see)
    finally:
        environment.close()
    return pictures


def write_gif(pictures: Sequence[Image], path: Path, fps: int) -> None:
    """Write pictures as an endless animation, atomically.

    Args:
        fps: pictures per second; GIF counts in hundredths of a second, so this is rounded.
    """
    first, *others = pictures
    with atomic_path(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=round(100 / fps) * 10,
            loop=0,
        )


def _draw_without_display() -> None:
    """Let environments that draw with SDL do so where no screen is."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in screens):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
