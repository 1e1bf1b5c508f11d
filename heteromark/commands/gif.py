"""Record an episode as an animated GIF."""

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
    """Check that a GIF may be written to a path. An existing GIF may be overwritten.

    Raises:
        ConfigError: the suffix is not .gif, or the path is a folder or a file that is not a GIF.
    """
    if path.suffix.lower() != ".gif":
        raise ConfigError.single("--gif", f"{path} must end in .gif")
    if path.is_dir():
        raise ConfigError.single("--gif", f"{path} is a folder")
    if path.is_file():
        with path.open("rb") as file:
            signature = file.read(6)
        if signature not in _SIGNATURES:
            message = f"{path} exists but is not a GIF, so it is not overwritten; choose another"
            raise ConfigError.single("--gif", message)


def record_episode(policy: LoadedPolicy, settings: EvaluationConfig, seed: int) -> list[Image]:
    """Return pictures of one episode: after its reset and after each step.

    With deterministic actions this is the first episode of an evaluation with this seed, except
    against past policies, which sample their actions.

    Raises:
        ValueError: the environment cannot render.
    """
    from PIL import Image

    from heteromark.modules.rollout import RolloutPolicy
    from heteromark.training.environments import make_evaluation_environment
    from heteromark.training.evaluator import load_past_policies, play

    _draw_without_display()
    environment = make_evaluation_environment(policy.config, settings, 1, render=True)
    pictures = []

    def on_step(after: Any, _cut_off: Any) -> bool:
        picture = Image.fromarray(environment.render())
        # Convert to 256 colours, as in the file: this takes a third of the memory.
        pictures.append(picture.convert("P", palette=Image.Palette.ADAPTIVE))
        return not after["done"].any()

    try:
        load_past_policies(environment, policy.actors, policy.opponent_pool)
        memory = policy.config.policy.gru.memory_size
        actor = RolloutPolicy(policy.actors, memory, is_deterministic=settings.deterministic)
        play(environment, [actor], settings, [seed], on_step)
    finally:
        environment.close()
    return pictures


def write_gif(pictures: Sequence[Image], path: Path, fps: int) -> None:
    """Write pictures as an endless animation, atomically.

    Args:
        fps: pictures per second. GIF durations are in hundredths of a second, so it is rounded.
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
    """Let environments that render with SDL work without a display."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in screens):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
