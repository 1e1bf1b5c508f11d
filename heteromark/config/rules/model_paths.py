"""Whether the models that a run names are there, and long enough: looked up, not loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from heteromark.config.errors import Fault
from heteromark.config.models.llm import TINY
from heteromark.config.models.run import RunConfig

_ON_THE_HUB = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


def model_faults(config: RunConfig) -> list[Fault]:
    """What is wrong with the model paths of a run of language-model agents; of unknown file."""
    return [
        fault for key, path in model_paths(config).items() for fault in _faults(config, key, path)
    ]


def model_paths(config: RunConfig) -> dict[str, str]:
    """The paths of a run's models, by the key that says each."""
    paths = {"model.path": config.model.path}
    for name, policy in config.model.by_policy.items():
        if policy.path is not None and policy.kind == "language_model":
            paths[f"model.by_policy.{name}.path"] = policy.path
    return paths


def model_folder(path: str) -> Path | None:
    """The folder that a path means; None: it is tiny, or a name on the hub."""
    if path == TINY:
        return None
    is_folder = path.startswith((".", "/", "~")) or Path(path).exists()
    return Path(path).expanduser() if is_folder or not _ON_THE_HUB.match(path) else None


def longest_sequence(folder: Path) -> int | None:
    """Tokens that the model in a folder takes, as its config.json says; None: it does not.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = said.get("text_config", said)
    return said.get("max_position_embeddings")


def _faults(config: RunConfig, key: str, path: str) -> Iterator[Fault]:
    folder = model_folder(path)
    if folder is None:
        return
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "does not exist"
        message = f"{what}; give a folder written by save_pretrained, a name on the hub, or {TINY}"
        yield Fault("", message, key, path)
        return
    try:
        longest = longest_sequence(folder)
    except (OSError, ValueError, AttributeError) as error:
        yield Fault("", f"its config.json cannot be read: {error}", key, path)
        return
    generation = config.generation
    wanted = generation.max_prompt_length + generation.max_response_length
    if longest is not None and wanted > longest:
        message = (
            f"and generation.max_response_length {generation.max_response_length} come to {wanted} "
            f"tokens, but the model in {path} takes {longest}; lower one of them"
        )
        yield Fault("", message, "generation.max_prompt_length", generation.max_prompt_length)
