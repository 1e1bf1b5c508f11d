"""Checks of what is installed: Python, packages, torch on a machine with a GPU, a compiler."""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from heteromark.doctor.finding import Finding, Project, note, ok, problem, warning
from heteromark.runs.digest import VERSIONED

LOCK_FILE = "requirements.lock"


def python_version(project: Project) -> Iterator[Finding]:
    """Is this Python one that pyproject.toml allows?"""
    path = project.root / "pyproject.toml"
    running = platform.python_version()
    if path.is_file():
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        required = settings.get("project", {}).get("requires-python", "")
        if not SpecifierSet(required).contains(running, prereleases=True):
            yield problem(
                f"this is Python {running}",
                file=path.name,
                key="project.requires-python",
                value=required,
                advice="install such a Python, then: rm -r .venv && make setup PYTHON=/path/to/it",
            )
            return
    yield ok(f"Python {running}")


def packages(project: Project) -> list[Finding]:
    """Is installed what requirements.lock names? `2.13.0+cpu` counts as 2.13.0."""
    path = project.root / LOCK_FILE
    if not path.is_file():
        return [ok(f"there is no {LOCK_FILE} to compare with")]
    findings, count = [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        wanted = line.partition("#")[0].rstrip("\\ \t").strip()
        if not wanted or wanted.startswith("-"):  # an option of pip's
            continue
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement as error:
            message = f"line {number} does not parse: {error}"
            advice = "write it as name==version"
            findings.append(problem(message, LOCK_FILE, value=wanted, advice=advice))
            continue
        if requirement.marker and not requirement.marker.evaluate():
            continue
        count += 1
        findings += _difference(requirement)
    return findings or [ok(f"{count} packages as in {LOCK_FILE}")]


def gpu(project: Project) -> Iterator[Finding]:
    """Can torch use the GPU, where there is one? Imports torch only there."""
    gpus = _gpus()
    if not gpus:
        yield ok("no NVIDIA GPU here")
        return
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return  # the packages tell
    if _cuda_of_torch() is None:
        yield warning(
            f"is built without CUDA, so everything trains on the CPU beside {gpus}",
            key="torch",
            value=version,
            command=f"{_python()} -m pip uninstall --yes torch && {_install_locked()}",
        )
        return
    import torch

    if torch.cuda.is_available():
        yield ok(f"torch {version} uses {torch.cuda.get_device_name()}")
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = (
            f"the driver is too old for CUDA {torch.version.cuda}, or does not answer"
            if visible is None
            else f"CUDA_VISIBLE_DEVICES is {visible!r}"
        )
        yield warning(
            f"sees no GPU, though there is {gpus}: {reason}",
            key="torch",
            value=version,
            command="nvidia-smi" if visible is None else "unset CUDA_VISIBLE_DEVICES",
        )


def compiler(project: Project) -> Iterator[Finding]:
    """Is there a C++ compiler, for battles that are compiled?"""
    names = (os.environ.get("CXX"), "g++", "clang++")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found:
        yield ok(found)
    else:
        yield note(
            "there is no C++ compiler: the battles of Skirmish are not compiled, and slower",
            key="skirmish.compile",
            advice="install one; on Debian: apt install g++",
        )


def _difference(requirement: Requirement) -> Iterator[Finding]:
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        message = "is not installed"
    else:
        if requirement.specifier.contains(installed, prereleases=True):
            return
        message = f"{installed} is installed"
        if requirement.name in VERSIONED:
            message += "; it is part of every run's identity, so runs of both are not shared"
    yield warning(
        message,
        file=LOCK_FILE,
        key=requirement.name,
        value=str(requirement.specifier).removeprefix("=="),
        command=_install_locked(),
    )


def _install_locked() -> str:
    return f"{_python()} -m pip install --requirement {LOCK_FILE}"


def _python() -> str:
    """This Python as one would type it: by its path, unless its environment is active."""
    found = shutil.which("python")
    same = found and Path(found).parent == Path(sys.executable).parent
    return "python" if same else shlex.quote(sys.executable)


def _gpus() -> str:
    """The first GPU's name and how many there are, by NVIDIA's tool or its driver; or nothing."""
    names: list[str] = []
    if tool := shutil.which("nvidia-smi"):
        told = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
        names = [line for line in told.stdout.splitlines() if line.startswith("GPU ")]
    if not names:  # a container may lack the tool
        names = [f"GPU {path.name}" for path in Path("/proc/driver/nvidia/gpus").glob("*")]
    if not names:
        return ""
    return names[0].partition(" (UUID")[0] + (f" and {len(names) - 1} more" if names[1:] else "")


def _cuda_of_torch() -> str | None:
    """The CUDA version that the installed torch was built with, read without importing it."""
    spec = importlib.util.find_spec("torch")
    source = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "cuda":
            return ast.literal_eval(node.value)
    return None
