"""Checks of the installation: Python, packages, torch and GPU, C++ compiler."""

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
    """Check that pyproject.toml allows this Python version."""
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
    """Check that the packages of requirements.lock are installed. `2.13.0+cpu` counts as 2.13.0."""
    path = project.root / LOCK_FILE
    if not path.is_file():
        return [ok(f"there is no {LOCK_FILE} to compare with")]
    findings, count = [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        wanted = line.partition("#")[0].rstrip("\\ \t").strip()
        if not wanted or wanted.startswith("-"):  # an option for pip
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
    """Check that torch can use the GPU. Imports torch only if there is a GPU."""
    gpus = _gpus()
    if not gpus:
        yield ok("no NVIDIA GPU here")
        return
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return  # reported by `packages`
    if _cuda_of_torch() is None:
        yield warning(
            f"is built without CUDA, so everything trains on the CPU although there is {gpus}",
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
            f"the driver is too old for CUDA {torch.version.cuda} or does not respond"
            if visible is None
            else f"CUDA_VISIBLE_DEVICES is {visible!r}"
        )
        yield warning(
            f"finds no GPU although there is {gpus}: {reason}",
            key="torch",
            value=version,
            command="nvidia-smi" if visible is None else "unset CUDA_VISIBLE_DEVICES",
        )


def compiler(project: Project) -> Iterator[Finding]:
    """Check for a C++ compiler, which compiles the battles of Skirmish."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found:
        yield ok(found)
    else:
        yield note(
            "no C++ compiler found: the battles of Skirmish run uncompiled, which is slower",
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
            message += "; its version is part of a run's identity, so the two do not share runs"
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
    """Return the command that starts this Python: `python` if its environment is active."""
    found = shutil.which("python")
    is_active = found and Path(found).parent == Path(sys.executable).parent
    return "python" if is_active else shlex.quote(sys.executable)


def _gpus() -> str:
    """Return the first GPU's name and the number of further ones; "" if there is no GPU."""
    names: list[str] = []
    if tool := shutil.which("nvidia-smi"):
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
        names = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    if not names:  # nvidia-smi may be missing in a container
        names = [f"GPU {path.name}" for path in Path("/proc/driver/nvidia/gpus").glob("*")]
    if not names:
        return ""
    return names[0].partition(" (UUID")[0] + (f" and {len(names) - 1} more" if names[1:] else "")


def _cuda_of_torch() -> str | None:
    """Return the CUDA version of the installed torch, without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "cuda" and node.value:
            return ast.literal_eval(node.value)
    return None
