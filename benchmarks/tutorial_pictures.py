"""Reproduce the plots and the output in docs/tutorial.md.

    python benchmarks/tutorial_pictures.py        a quarter of an hour on two cores

Runs every command of the tutorial in a copy of the project, with the budgets of params.yaml. Prints
the output of each command and writes the plots to docs/tutorial/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from projects import copy_project
from test_docs import FILE, commands_of, sections_of

DOCUMENT = "docs/tutorial.md"
PICTURES = (
    "results/tables/learning_curves.svg",
    "results/selected/selection.svg",
    "results/model/long_run.svg",
)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    target = ROOT / "docs" / "tutorial"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project", Path(folder) / "store")
        project.timeout = 3600
        project.run("git", "init", "--quiet")
        (tutorial,) = sections_of(DOCUMENT)
        for language, block in tutorial.blocks:
            if match := FILE.match(block):
                project.write(match[1], block[match.end() :])
            elif language == "bash":
                for command in commands_of(block):
                    started = time.monotonic()
                    done = project.run("bash", "-c", command)
                    print(f"$ {command}    ({time.monotonic() - started:.0f} s)")
                    print(done.stdout, flush=True)
                    keep_first(project.folder, target)
        print(project.read("results/selected/selection.json"))
        print(project.read("results/model/rank_check.json"))


def keep_first(project: Path, target: Path) -> None:
    """Copy the plots that did not exist before."""
    for picture in PICTURES:
        plot, copy = project / picture, target / Path(picture).name
        if plot.exists() and not copy.exists():
            shutil.copy(plot, copy)


if __name__ == "__main__":
    main()
