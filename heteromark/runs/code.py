"""What code a run consists of: found by following imports, without importing anything.

A run's own code is the closure of imports from its roots: the loop, what builds its kind of agents,
its environment, its algorithm, and whatever it names by an import path. Code counts with its syntax
trees, so that comments, docstrings and layout do not; what is installed counts with its version.

Of heteromark's `config`, whose values are in a run's identity by themselves, only what models
compute counts: their properties and methods, but not which values they refuse. `runs`, which keeps
results and makes none, is left out. Imports for type checkers are not followed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import heteromark
from heteromark.config.models.algorithms import ALGORITHM_OF_LOSS, COMPONENTS_OF, NETWORKS, ROW_OF
from heteromark.config.models.run import RunConfig

OWN = "heteromark"
_LEFT_OUT = ("config", "runs")


class Code(NamedTuple):
    """What was found by following imports.

    Attributes:
        sources: Python files.
        installed: `name version` of distributions that files outside heteromark import from.
    """

    sources: frozenset[Path]
    installed: frozenset[str]


def roots_of(config: RunConfig) -> list[str]:
    """The modules that a run begins with, but for those that its config names by import path."""
    roots = ["training.loop", COMPONENTS_OF[config.kind]]
    if config.kind == NETWORKS:
        roots.append(f"environment.{config.env_type}.factory")
    elif not config.environment.text.task_is_custom:
        roots.append(f"llm.tasks.{config.environment.text.task}")
    for algorithm in (config.agent.algorithm, ALGORITHM_OF_LOSS.get(config.loss_type)):
        if row := ROW_OF.get(algorithm or ""):
            roots.append(row.home)
    return [f"{OWN}.{root}" for root in roots]


def run_code(config: RunConfig) -> str:
    """Fingerprint of heteromark's own code in a run."""
    return own_fingerprint(*roots_of(config))


@functools.cache
def own_fingerprint(*modules: str) -> str:
    """Fingerprint of some of heteromark's modules, and all that they import of it."""
    return code_fingerprint(code_of(*modules).sources) + _computed_by_config()


@functools.cache
def source_fingerprint(path: str) -> str:
    """What an import path consists of: source that is developed here, versions of the rest.

    Source counts with its syntax trees: the path's module, or its whole package, and whatever that
    imports, heteromark's own modules and editable installations included. What it imports from
    installed distributions counts with their versions.

    Args:
        path: import path `module:callable`. Nothing is imported; a module that does not exist has
            the fingerprint `missing` (building the component reports it).
    """
    module = path.partition(":")[0]
    if not files_of(module):
        return "missing"
    code = code_of(module)
    return " ".join([*sorted(code.installed), code_fingerprint(code.sources)])


def module_exists(name: str) -> bool:
    """Whether a module has source to import, without importing it."""
    return bool(files_of(name))


@functools.cache
def code_of(*modules: str) -> Code:
    """What modules consist of, with all that they import."""
    sources: set[Path] = set()
    installed: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        top, _, rest = name.partition(".")
        if top == OWN and rest.partition(".")[0] in _LEFT_OUT:
            continue
        files = set(files_of(name))
        if top != OWN and any(_is_installed(file, top) for file in files):
            installed.add(_version_of(top))
            continue
        for file in files - sources:
            imported = _parsed(file.read_bytes()).imported
            # heteromark's libraries are in a run's identity already, with the versions that matter
            pending += [each for each in imported if top != OWN or each.startswith(f"{OWN}.")]
        sources |= files
    return Code(frozenset(sources), frozenset(installed))


@functools.cache
def files_of(module: str) -> tuple[Path, ...]:
    """Python files of a module: itself, or all of the user's package that it lies in.

    In a folder without `__init__.py`, and in heteromark, modules are on their own. The standard
    library and what does not exist have none.
    """
    top, *rest = module.split(".")
    if top == OWN:
        place = Path(heteromark.__file__).parent.joinpath(*rest)
        candidates = (place / "__init__.py", place.with_suffix(".py"))
        return tuple(file for file in candidates if rest and file.is_file())
    if top in sys.stdlib_module_names:
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
            if _is_installed(folder / "__init__.py", top):
                return (folder / "__init__.py",)
            return tuple(sorted(folder.rglob("*.py")))
    return ()


@functools.cache
def _is_installed(file: Path, top: str) -> bool:
    """Whether an installer put a file where it is, wherever that is: site-packages or elsewhere.

    Args:
        top: the top-level module that it belongs to.
    """
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    names = [number for number, part in enumerate(file.parts) if part in (top, f"{top}.py")]
    return any(_lists(Path(*file.parts[:number]), top) for number in names)


@functools.cache
def _lists(folder: Path, top: str) -> bool:
    """Whether the record of a distribution in a folder lists a top-level module there.

    An editable installation lists none: its source is developed where it is.
    """
    return any(
        line.startswith((f"{top}/", f"{top}.py,"))
        for record in folder.glob("*.dist-info/RECORD")
        for line in record.read_text(encoding="utf-8").splitlines()
    )


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


class _Parsed(NamedTuple):
    """A file's code without comments and docstrings, and the modules that it may import.

    `from a import b` may mean the module `a.b`. A file that does not parse counts with its bytes.
    """

    content: bytes
    imported: frozenset[str]


@functools.cache
def _parsed(source: bytes) -> _Parsed:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return _Parsed(source, frozenset())
    names: set[str] = set()
    for node in _what_runs(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    _strip_docstrings(tree)
    # Not ast.dump: what it prints changes with the version of Python.
    return _Parsed(ast.unparse(tree).encode(), frozenset(names))


def _what_runs(node: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes, but for what only type checkers see."""
    yield node
    test = node.test if isinstance(node, ast.If) else None
    is_typing = "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))
    for child in node.orelse if is_typing else ast.iter_child_nodes(node):
        yield from _what_runs(child)


def code_fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the syntax trees of Python files, without comments and docstrings.

    A file that does not parse counts with its bytes.
    """
    # In an order of their own: that of whole paths would depend on where a project lies.
    files = sorted((path.name, _parsed(path.read_bytes()).content) for path in paths)
    total = hashlib.sha256()
    for name, content in files:
        total.update(name.encode() + b"\0" + content)
    return total.hexdigest()[:16]


@functools.cache
def _computed_by_config() -> str:
    """Fingerprint of the properties and methods of config models."""
    total = hashlib.sha256()
    for path in sorted(Path(heteromark.__file__).parent.glob("config/models/*.py")):
        tree = ast.parse(path.read_bytes())
        _strip_docstrings(tree)
        classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        for function in (node for found in classes for node in found.body):
            if isinstance(function, ast.FunctionDef) and "conflicts" not in function.name:
                total.update(ast.unparse(function).encode())
    return total.hexdigest()[:16]


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
