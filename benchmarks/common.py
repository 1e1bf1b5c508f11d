"""Helpers for benchmarks: reports with command, machine and versions, and plots."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def write_report(
    name: str, script: str, versioned: Iterable[str], measured: dict[str, Any]
) -> None:
    """Write benchmarks/results/{name}.json with command, machine, versions and figures.

    Args:
        name: name of the file.
        script: path of the benchmark within the project.
        versioned: packages whose versions are recorded.
        measured: the figures.
    """
    report = {
        "command": " ".join(["python", script, *map(_shortened, sys.argv[1:])]),
        "machine": machine(),
        "versions": {package: metadata.version(package) for package in versioned},
        **measured,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def _shortened(argument: str) -> str:
    """Shorten an absolute path, whose folders mean nothing on another machine."""
    path = Path(argument)
    return "/".join(["…", *path.parts[-2:]]) if path.is_absolute() else argument


def machine() -> dict[str, Any]:
    """Return processor, cores, operating system and Python version."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the processor's name, if the system provides it."""
    try:
        text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "Model name" in line]
    return names[0] if names else platform.processor()


def commit() -> str | None:
    """Return the checked-out commit, with "-dirty" if files differ from it; None without git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def svg_plots() -> Any:
    """Return matplotlib's pyplot, set up to write identical SVG files for identical curves."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "heteromark"
    from matplotlib import pyplot

    return pyplot


def label_curves(axis: Any, title: str, measured: str) -> None:
    """Set title, axis labels and grid of a panel of learning curves."""
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("thousand frames", fontsize=8)
    axis.set_ylabel(measured, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
