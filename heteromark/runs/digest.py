"""A run's identity: the SHA-256 over everything that determines its result.

In it: the resolved config with environment, mode, budget and seed; the source of the training code
and of the environment; the versions of torch, torchrl and tensordict. Not in it: names and
descriptions, the machine (`device: auto` stays `auto`), documentation, comments, docstrings, the
user interface and the workflow. torch is never imported to find its version.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import heteromark
from heteromark.config.schema import Hyperparameters, RunConfig

DIGEST_LENGTH = 12
VERSIONED = ("torch", "torchrl", "tensordict")
TRAINING_CODE = ("environment", "modules", "loss", "algorithm", "llm", "training")
# In those packages, but around the training rather than in it.
NOT_TRAINING_CODE = ("launch.py", "progress.py", "request.py", "evaluate_run.py")


def run_digest(config: RunConfig) -> str:
    """Identity of one run, `DIGEST_LENGTH` hex digits."""
    return _digest(_identity(config))


def config_digest(config: RunConfig) -> str:
    """Identity of a run but for its seed: what the seeds of one config have in common."""
    return _digest({**_identity(config), "seed": None})


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the libraries that a run's result depends on."""
    return {name: metadata.version(name) for name in VERSIONED}


def _identity(config: RunConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    data["agent"] = {key: data["agent"][key] for key in Hyperparameters.model_fields}
    # The name and the length of an episode inform people and budgets; they train nothing.
    data["environment"] = {
        key: value
        for key, value in data["environment"].items()
        if key not in ("name", "episode_length")
    }
    return {
        **data,
        "code": training_code_fingerprint(),
        "environment_code": environment_fingerprint(config.environment.task),
        "versions": versions(),
    }


def _digest(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


@functools.cache
def training_code_fingerprint() -> str:
    """Fingerprint of the packages that train; the same for code that differs in comments only."""
    package = Path(heteromark.__file__).parent
    return code_fingerprint(
        path
        for name in TRAINING_CODE
        for path in package.joinpath(name).rglob("*.py")
        if path.name not in NOT_TRAINING_CODE
    )


@functools.cache
def environment_fingerprint(task: str) -> str:
    """Version of the installed distribution that a task comes from, else its source's fingerprint.

    Args:
        task: import path `module:callable`. Nothing is imported; a module that does not exist has
            the fingerprint `missing` (building the environment tells).
    """
    top = task.partition(":")[0].partition(".")[0]
    try:
        return f"{top} {metadata.version(top)}"
    except metadata.PackageNotFoundError:
        pass
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        return "missing"
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    if folders:
        return code_fingerprint(path for folder in folders for path in folder.rglob("*.py"))
    return code_fingerprint([Path(spec.origin)]) if spec.origin else "missing"


def code_fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the syntax trees of Python files, without comments and docstrings.

    A file that does not parse counts with its bytes.
    """
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.name.encode() + b"\0")
        source = path.read_bytes()
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            total.update(source)
            continue
        _strip_docstrings(tree)
        total.update(ast.dump(tree).encode())
    return total.hexdigest()[:16]


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest or [ast.Pass()]
