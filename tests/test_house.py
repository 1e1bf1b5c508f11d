"""Imports point one way, and there are no circles: the house's floors, as CONTRIBUTING has them."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "heteromark"

# From the top floor down. A module may import from the floors below its own, and from its own.
# `training.factory_train` is a door to the commands, at the address that is documented.
FLOORS = (
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
# Rooms within a floor, each from its top down.
ROOMS = {
    "config": ("compose", "pettingllms", "rules", "models"),
    "ui": ("app", "views", "navigation", "drawing", "data"),
    "llm": ("kind", "tasks", "sandbox"),
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name without `heteromark.`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imported_by(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in it, for type checkers included."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports here are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            own, _, rest = name.partition(".")
            if own != "heteromark":
                continue
            while rest and rest not in MODULES:
                rest = rest.rpartition(".")[0]
            yield rest


IMPORTS = {name: set(imported_by(path)) - {name} for name, path in MODULES.items()}


def floor_of(module: str) -> int:
    """The number of a module's floor, from the bottom; the longest entry that fits counts."""
    places = {entry: number for number, floor in enumerate(reversed(FLOORS)) for entry in floor}
    fitting = [entry for entry in places if f"{module}.".startswith(f"{entry}.") or not entry]
    return places[max(fitting, key=len)]


def test_every_folder_has_a_floor():
    named = {entry for floor in FLOORS for entry in floor}
    for module in MODULES:
        top = module.partition(".")[0]
        assert top in named, f"{module} has no floor: put {top} into FLOORS"


def test_imports_point_down():
    upward = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if floor_of(other) > floor_of(name)
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize("floor", ROOMS)
def test_rooms_of_a_floor_are_in_order(floor):
    order = {room: number for number, room in enumerate(reversed(ROOMS[floor]))}

    def place(module):
        room = module.removeprefix(f"{floor}.").partition(".")[0]
        return order.get(room)

    upward = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if name.startswith(f"{floor}.") and other.startswith(f"{floor}.")
        if None not in (place(name), place(other)) and place(other) > place(name)
    ]
    assert not upward, "\n".join(upward)


def test_there_are_no_circles():
    graphlib.TopologicalSorter(IMPORTS).prepare()


@pytest.mark.parametrize("room", ["modules", "llm.policies", "algorithm", "environment"])
def test_what_builds_components_opens_no_run_store(room):
    openers = [
        name
        for name, others in IMPORTS.items()
        if f"{name}.".startswith(f"{room}.") and "runs.store" in others
    ]
    assert not openers
