"""The layers of the package: imports point downwards, without cycles. See CONTRIBUTING."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "heteromark"

# The layers, from top to bottom. A module may import from its own layer and from lower ones.
# `training.factory_train` is an entry point to the commands, under its documented path.
LAYERS = (
    ("__main__",),
    ("cli", "training.factory_train"),
    ("ui", "doctor"),
    ("workflow",),
    ("commands",),
    ("llm",),
    ("training",),
    ("algorithm",),
    ("modules",),
    ("environment", "loss"),
    ("runs",),
    ("config",),
    ("seeds", "import_paths"),
    ("",),  # the package itself: its version
)
# Layers within a package, from top to bottom.
INNER_LAYERS = {
    "config": ("compose", "pettingllms", "rules", "models"),
    "ui": ("app", "views", "navigation", "drawing", "data"),
    "llm": ("kind", "tasks", "sandbox"),
}


def modules() -> dict[str, Path]:
    """Return every module of the package, by name without `heteromark.`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imported_by(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, including imports for type checkers."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports must be absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package != "heteromark":
                continue
            while rest and rest not in MODULES:
                rest = rest.rpartition(".")[0]
            yield rest


IMPORTS = {name: set(imported_by(path)) - {name} for name, path in MODULES.items()}


def layer_of(module: str) -> int:
    """Return the number of a module's layer, from the bottom. The longest matching entry counts."""
    numbers = {entry: number for number, layer in enumerate(reversed(LAYERS)) for entry in layer}
    matching = [entry for entry in numbers if f"{module}.".startswith(f"{entry}.") or not entry]
    return numbers[max(matching, key=len)]


def test_every_folder_has_a_layer():
    named = {entry for layer in LAYERS for entry in layer}
    for module in MODULES:
        top = module.partition(".")[0]
        assert top in named, f"{module} has no layer: add {top} to LAYERS"


def test_imports_point_down():
    upward = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if layer_of(other) > layer_of(name)
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize("package", INNER_LAYERS)
def test_imports_within_a_package_point_down(package):
    numbers = {folder: number for number, folder in enumerate(reversed(INNER_LAYERS[package]))}

    def number_of(module):
        folder = module.removeprefix(f"{package}.").partition(".")[0]
        return numbers.get(folder)

    upward = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if name.startswith(f"{package}.") and other.startswith(f"{package}.")
        if None not in (number_of(name), number_of(other)) and number_of(other) > number_of(name)
    ]
    assert not upward, "\n".join(upward)


def test_there_are_no_import_cycles():
    graphlib.TopologicalSorter(IMPORTS).prepare()


@pytest.mark.parametrize("package", ["modules", "llm.policies", "algorithm", "environment"])
def test_components_do_not_use_the_run_store(package):
    users = [
        name
        for name, others in IMPORTS.items()
        if f"{name}.".startswith(f"{package}.") and "runs.store" in others
    ]
    assert not users
