"""Find and fingerprint the code that a run depends on, by following imports in its source.

Nothing is imported. The search starts at the run's root modules: the training loop, the builder of
its kind of agents, its environment, its algorithm, and all components named by an import path.
Source files are fingerprinted by their syntax trees, so comments, docstrings and layout do not
matter. Installed packages are identified by their versions. Imports whose module name is computed
cannot be followed; `runs.seal` notices them when the run is trained.

Config values are part of a run's identity already. From `heteromark.config`, the fingerprint
therefore includes only the properties and methods of the models, without their validation. It
excludes `heteromark.runs`, which stores results but does not compute any. Imports for type checkers
are not followed.
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


class Source(NamedTuple):
    """A Python file, and the package that its relative imports start from ("": none)."""

    file: Path
    package: str


class Code(NamedTuple):
    """The result of following imports.

    Attributes:
        sources: Python files.
        installed: `name version` of each distribution imported by files outside heteromark.
    """

    sources: frozenset[Path]
    installed: frozenset[str]


def roots_of(config: RunConfig) -> list[str]:
    """Return a run's root modules, except those its config names by import path."""
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
    """Return the fingerprint of heteromark's code in a run."""
    return own_fingerprint(*roots_of(config))


@functools.cache
def own_fingerprint(*modules: str) -> str:
    """Return the fingerprint of heteromark modules and of all heteromark modules they import."""
    return code_fingerprint(code_of(*modules).sources) + _computed_by_config()


@functools.cache
def source_fingerprint(path: str) -> str:
    """Return the fingerprint of an import path: its source code and the versions it imports.

    Source code is the module of the path, or its whole package, and everything it imports,
    including heteromark modules and editable installations. Imports from installed distributions
    are represented by the versions of these distributions.

    Args:
        path: import path `module:callable`. Nothing is imported. The fingerprint of a module that
            does not exist is `missing`; the error is reported when the component is built.
    """
    module = path.partition(":")[0]
    if not files_of(module):
        return "missing"
    code = code_of(module)
    return " ".join([*sorted(code.installed), code_fingerprint(code.sources)])


def is_own(file: Path) -> bool:
    """Return whether a file is one of heteromark's."""
    return file.is_relative_to(Path(heteromark.__file__).parent)


def module_exists(name: str) -> bool:
    """Return whether a module's source exists, without importing it."""
    return bool(files_of(name))


@functools.cache
def code_of(*modules: str) -> Code:
    """Return the code of modules and of all that they import."""
    sources: set[Path] = set()
    installed: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        top, _, rest = name.partition(".")
        if top == OWN and rest.partition(".")[0] in _LEFT_OUT:
            continue
        found = files_of(name)
        if top != OWN and any(_is_installed(source.file, top) for source in found):
            installed.add(version_of(top))
            continue
        for file, package in found:
            if file not in sources:
                imported = _absolute(_parsed(file.read_bytes()).imported, package)
                # The versions of heteromark's libraries are part of a run's identity already.
                pending += [each for each in imported if top != OWN or each.startswith(f"{OWN}.")]
            sources.add(file)
    return Code(frozenset(sources), frozenset(installed))


@functools.cache
def files_of(module: str) -> tuple[Source, ...]:
    """Return the Python files of a module.

    A module in a user's package counts with all files of that package. A module of heteromark, or
    in a folder without `__init__.py`, counts alone. Modules of the standard library and modules
    that do not exist have no files.
    """
    top, *rest = module.split(".")
    if top == OWN:
        base = Path(heteromark.__file__).parent.joinpath(*rest)
        candidates = (base / "__init__.py", base.with_suffix(".py"))
        return tuple(_source(f, module) for f in candidates if rest and f.is_file())
    if top in sys.stdlib_module_names:
        return ()
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if not spec.submodule_search_locations:
        origin = spec.origin if spec.has_location else None
        return (Source(Path(origin), ""),) if origin else ()
    for folder in map(Path, spec.submodule_search_locations):
        parts, package = iter(rest), top
        while not (folder / "__init__.py").is_file():
            part = next(parts, None)
            if part is None:
                break
            if (folder / f"{part}.py").is_file():
                return (Source(folder / f"{part}.py", package),)
            folder, package = folder / part, f"{package}.{part}"
        else:
            if _is_installed(folder / "__init__.py", top):
                return (Source(folder / "__init__.py", package),)
            return tuple(
                Source(file, ".".join([package, *file.relative_to(folder).parent.parts]))
                for file in sorted(folder.rglob("*.py"))
            )
    return ()


def _source(file: Path, module: str) -> Source:
    is_package = file.name == "__init__.py"
    return Source(file, module if is_package else module.rpartition(".")[0])


def _absolute(imported: Iterable[str], package: str) -> Iterator[str]:
    """Yield the absolute names of modules; n leading dots are relative to the n-th package up."""
    for name in imported:
        bare = name.lstrip(".")
        level = len(name) - len(bare)
        if not level:
            yield name
            continue
        parts = package.split(".") if package else []
        if level <= len(parts):
            yield ".".join([*parts[: len(parts) - level + 1], *([bare] if bare else [])])


@functools.cache
def _is_installed(file: Path, top: str) -> bool:
    """Return whether an installer wrote a file, in site-packages or in any other folder.

    Args:
        top: the top-level module of the file.
    """
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    names = [number for number, part in enumerate(file.parts) if part in (top, f"{top}.py")]
    return any(_lists(Path(*file.parts[:number]), top) for number in names)


@functools.cache
def _lists(folder: Path, top: str) -> bool:
    """Return whether a distribution's RECORD in `folder` lists a top-level module.

    The RECORD of an editable installation lists no modules: their source stays in its project.
    """
    return any(
        line.startswith((f"{top}/", f"{top}.py,"))
        for record in folder.glob("*.dist-info/RECORD")
        for line in record.read_text(encoding="utf-8").splitlines()
    )


def version_of(module: str) -> str:
    """Return `name version` of the distribution that installed a top-level module."""
    try:
        return f"{module} {metadata.version(module)}"
    except metadata.PackageNotFoundError:
        names = sorted(set(_distributions().get(module, ())))
        return " ".join(f"{name} {metadata.version(name)}" for name in names) or module


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


# Where a statement, a handler of exceptions or a case of a match holds further ones.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class _Parsed(NamedTuple):
    """A file's code without comments and docstrings, and the modules that it may import.

    `from a import b` may mean the module `a.b`. Relative imports begin with dots. If a file does
    not parse, `content` is its bytes.
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
    for node in _statements(tree, at_runtime=True):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dots, module = "." * node.level, node.module
            inside = f"{module}." if module else ""
            names |= {f"{dots}{module or ''}", *(f"{dots}{inside}{a.name}" for a in node.names)}
    if b"import_module" in source or b"__import__" in source:
        names |= set(_imported_by_call(tree))
    _strip_docstrings(tree)
    # Not ast.dump: its output depends on the Python version.
    return _Parsed(ast.unparse(tree).encode(), frozenset(names))


def _imported_by_call(tree: ast.AST) -> Iterator[str]:
    """Yield the names that `importlib.import_module` and `__import__` are called with literally."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = [*node.args, *(k.value for k in node.keywords if k.arg == "name")]
        if function not in ("import_module", "__import__") or not given:
            continue
        name = getattr(given[0], "value", None)
        if isinstance(name, str):
            packages = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "package")]
            package = getattr(packages[0], "value", None) if packages else None
            # a package that is no literal is taken to be the file's own
            relative = name.startswith(".") and isinstance(package, str)
            yield from _absolute([name], str(package)) if relative else [name]


def _statements(tree: ast.AST, *, at_runtime: bool) -> Iterator[ast.AST]:
    """Yield a tree's statements and the clauses around them; expressions hold none, so skip them.

    Args:
        at_runtime: skip code under `if TYPE_CHECKING`.
    """
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        blocks = ("orelse",) if at_runtime and _is_type_checking(node) else _BLOCKS
        for block in blocks:
            pending += getattr(node, block, ())


def _is_type_checking(node: ast.AST) -> bool:
    """Return whether a node is `if TYPE_CHECKING` or `if typing.TYPE_CHECKING`."""
    if not isinstance(node, ast.If):
        return False
    return "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", ""))


def code_fingerprint(paths: Iterable[Path]) -> str:
    """Return a SHA-256 over the syntax trees of Python files, without comments and docstrings.

    For a file that does not parse, its bytes are hashed instead.
    """
    # Sort by name and content: the order of full paths depends on where the project lies.
    files = sorted((path.name, _parsed(path.read_bytes()).content) for path in paths)
    total = hashlib.sha256()
    for name, content in files:
        total.update(name.encode() + b"\0" + content)
    return total.hexdigest()[:16]


@functools.cache
def _computed_by_config() -> str:
    """Return the fingerprint of the properties and methods of config models."""
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
    for node in _statements(tree, at_runtime=False):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
