"""A run's identity: the SHA-256 over everything that determines its result.

In it: the resolved config with environment, mode, budget and seed; the source of the training code
and of the environment; the versions of torch, torchrl and tensordict. Not in it: keys that cannot
act in the run, names and descriptions, the machine (`device: auto` stays `auto`), documentation,
comments, docstrings, the user interface and the workflow. torch is never imported to find its
version.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import heteromark
from heteromark.config.models.components import EnvironmentConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.models.tasks import CAST
from heteromark.config.rules.effect import idle_keys, is_own
from heteromark.config.rules.llm_effect import text_defaults
from heteromark.runs.files import sha256_of

DIGEST_LENGTH = 12
VERSIONED = ("torch", "torchrl", "tensordict")
TRAINING_CODE = ("environment", "modules", "loss", "algorithm", "llm", "training")
# Beyond the last iteration, they are the same by any number.
_CLAMPED = (("training", "checkpoint_interval"), ("evaluation", "interval"))
# In those packages, but around the training rather than in it.
NOT_TRAINING_CODE = (
    "environment/skirmish/draw.py",
    "training/factory_train.py",
)


def run_digest(config: RunConfig) -> str:
    """Identity of one run, `DIGEST_LENGTH` hex digits."""
    return _digest(_identity(config))


def config_digest(config: RunConfig) -> str:
    """Identity of a run but for its seed: what the seeds of one config have in common."""
    return _digest({**_identity(config), "seed": None})


def trajectory_digest(config: RunConfig) -> str:
    """Identity of a run but for when it ends: of two that share it, one continues the other.

    How a run is judged at its end is not in it either; evaluations leave the training alone.
    """
    identity = _identity(config)
    del identity["mode"]
    for section, key in _CLAMPED:
        identity[section][key] = getattr(getattr(config, section), key)
    identity["training"]["checkpoints_after"] = _further_checkpoints(config)
    if not config.evaluation.interval:
        del identity["evaluation"]
    if not _knows_its_end(config):
        del identity["iterations"]
    return _digest(identity)


def _knows_its_end(config: RunConfig) -> bool:
    """Whether what is learnt may depend on the number of iterations to come."""
    scheduler = config.scheduler
    return scheduler.decay != "none" or scheduler.warmup_ratio > 0 or is_own(config.agent.algorithm)


@functools.cache
def text_versions() -> dict[str, str]:
    """The same for language-model agents; "missing" where one is not installed."""
    return {name: _version_or_missing(name) for name in ("transformers", "peft", "tokenizers")}


def _version_or_missing(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the libraries that a run's result depends on."""
    return {name: metadata.version(name) for name in VERSIONED}


def _identity(config: RunConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    # The components hold every hyperparameter; of the agent only the algorithm says more.
    data["agent"] = {"algorithm": config.agent.algorithm}
    idle = idle_keys(config)
    for key in idle:
        _delete(data, key)
    _say_in_one_way(data, config)
    _name_by_content(data["environment"].get("skirmish", {}), "checkpoint")
    if config.env_type == "text":
        _say_text_in_one_way(data, config)
    # These inform people, or change the speed; they train nothing.
    for key in ("name", "num_workers"):
        data["environment"].pop(key, None)
    # The frames are rounded up to whole iterations, which are told below.
    for key in ("num_batches", "epochs"):
        data["training"].pop(key, None)
    del data["logger"], data["training"]["keep_checkpoints"], data["training"]["total_frames"]
    return {
        **data,
        "iterations": config.num_iterations,
        "code": training_code_fingerprint(),
        "own_code": {
            key: source_fingerprint(path)
            for key, path in config.import_paths.items()
            if key not in idle
        },
        # 2.13.0+cpu is 2.13.0: a run is found on machines with other devices
        "versions": {name: version.partition("+")[0] for name, version in versions().items()},
    }


def _delete(data: dict[str, Any], key: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        data = data[section]
    del data[last]


def _name_by_content(section: dict[str, Any], key: str) -> None:
    """Let a file or folder be what it holds, wherever it lies; other names stay as they are."""
    path = section.get(key) and Path(section[key]).expanduser()
    if path and path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        held = [[file.name, sha256_of(file)] for file in files]
        section[key] = hashlib.sha256(json.dumps(held).encode()).hexdigest()
    elif path and path.is_file():
        section[key] = sha256_of(path)


def task_identity(environment: EnvironmentConfig) -> dict[str, Any]:
    """What a language-model task's problems follow from: its settings, files and own code."""
    data, task = environment.model_dump(mode="json"), environment.text.task
    _name_questions_by_content(data)
    return {
        "task": task,
        "settings": data["text"].get(task),
        "kwargs": data["kwargs"],
        "code": source_fingerprint(task) if environment.text.task_is_own else None,
    }


def _name_questions_by_content(environment: dict[str, Any]) -> None:
    """Let a file of questions be what it holds, in whichever section it is named."""
    text = environment["text"]
    settings = environment.get("kwargs", {}).get("settings")
    of_math = settings if text["task"] == CAST and settings else text.get("math", {})
    _name_by_content(of_math, "file")


def _say_text_in_one_way(data: dict[str, Any], config: RunConfig) -> None:
    """The same for language-model agents: what they are made of, and who has which policy."""
    text, model = data["environment"]["text"], data["model"]
    for key in text_defaults(config):
        text.pop(key, None)  # what it is a default of is told
    _name_questions_by_content(data["environment"])
    for section in (model, *model["by_policy"].values()):
        _name_by_content(section, "path")
    model.pop("policies", None)
    text["turn_order"] = turn_order = config.turn_order
    if turn_order is not None:
        model["roles"] = {role: config.policy_of(role) for role in turn_order}
    data["text_versions"] = text_versions()


def _say_in_one_way(data: dict[str, Any], config: RunConfig) -> None:
    """Replace words that mean another value here, so that either makes the same run."""
    if config.env_type != "text":
        policy, optimizer = data["policy"], data["optimizer"]
        policy["critic"] = config.critic
        data["environment"].setdefault("state", False)  # one that nothing sees is none
        if policy.get("critic_input") == "auto" and config.env_type != "custom":
            policy["critic_input"] = "state" if config.environment.state else "observations"
        optimizer["critic_learning_rate"] = (
            optimizer["critic_learning_rate"] or optimizer["learning_rate"]
        )
    for section, key in _CLAMPED:
        data[section][key] = min(data[section][key], config.num_iterations)
    data["training"]["checkpoints_after"] = [
        iteration for iteration in _further_checkpoints(config) if iteration < config.num_iterations
    ]


def _further_checkpoints(config: RunConfig) -> list[int]:
    """Iterations that have a checkpoint besides those of the interval."""
    training = config.training
    further = (i for i in training.checkpoints_after if i % training.checkpoint_interval)
    return sorted(set(further))


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
        if path.relative_to(package).as_posix() not in NOT_TRAINING_CODE
    )


@functools.cache
def source_fingerprint(path: str) -> str:
    """What an import path consists of: source that is developed here, versions of the rest.

    Source counts with its syntax trees: the path's module, or its whole package, and whatever that
    imports from outside site-packages, editable installations included. What it imports from
    installed distributions counts with their versions.

    Args:
        path: import path `module:callable`. Nothing is imported; a module that does not exist has
            the fingerprint `missing` (building the component tells).
    """
    module = path.partition(":")[0]
    if not _files_of(module):
        return "missing"
    sources: set[Path] = set()
    versions: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        files = set(_files_of(name))
        if any(_is_installed(file) for file in files):
            versions.add(_version_of(name.partition(".")[0]))
            continue
        pending += [imported for file in files - sources for imported in _imported_by(file)]
        sources |= files
    return " ".join([*sorted(versions), code_fingerprint(sources)])


def module_exists(name: str) -> bool:
    """Whether a module has source to import, without importing it."""
    if name.startswith("heteromark."):
        path = Path(heteromark.__file__).parents[1].joinpath(*name.split("."))
        return path.is_dir() or path.with_suffix(".py").is_file()
    return bool(_files_of(name))


@functools.cache
def _files_of(module: str) -> tuple[Path, ...]:
    """Python files of a module: itself, or all of the package that it lies in.

    In a folder without `__init__.py`, modules are on their own. Standard library, heteromark and
    what does not exist have none.
    """
    top, *rest = module.split(".")
    if top in sys.stdlib_module_names or top == "heteromark":
        return ()
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if not spec.submodule_search_locations:
        return (Path(spec.origin),) if spec.has_location else ()
    for folder in map(Path, spec.submodule_search_locations):
        parts = iter(rest)
        while not (folder / "__init__.py").is_file():
            part = next(parts, None)
            if part is None:
                break
            if (folder / f"{part}.py").is_file():
                return (folder / f"{part}.py",)
            folder /= part
        else:
            return tuple(sorted(folder.rglob("*.py")))
    return ()


def _is_installed(file: Path) -> bool:
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return any(file.is_relative_to(place) for place in places)


def _version_of(module: str) -> str:
    """`name version` of the distribution that installed a top-level module."""
    try:
        return f"{module} {metadata.version(module)}"
    except metadata.PackageNotFoundError:
        names = sorted(set(_distributions().get(module, ())))
        return " ".join(f"{name} {metadata.version(name)}" for name in names) or module


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _imported_by(file: Path) -> set[str]:
    """Modules that a file may import: `from a import b` may mean the module `a.b`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


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
        # Not ast.dump: what it prints changes with the version of Python.
        total.update(ast.unparse(tree).encode())
    return total.hexdigest()[:16]


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest or [ast.Pass()]
