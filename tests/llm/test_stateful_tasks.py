"""Test that Sokoban, Sudoku and search draw the same problems for any hash seed, without torch."""

from __future__ import annotations

import os
import subprocess
import sys

DRAW = """
import sys
from heteromark.config.models.tasks import TASK_CONFIGS
from heteromark.llm.tasks.search import SearchTask
from heteromark.llm.tasks.sokoban import SokobanTask
from heteromark.llm.tasks.sudoku import SudokuTask

for kind in (SearchTask, SokobanTask, SudokuTask):
    task = kind(TASK_CONFIGS[kind.name]())
    for seed in range(5):
        problem = task.problem(seed)
        print(problem.key)
        for name, role in kind.roles.items():
            print(problem.prompt(name, role.templates[0]), problem.demonstration(name))
            print(problem.act(name, problem.demonstration(name)))
assert "torch" not in sys.modules
"""


def test_problems_are_the_same_in_every_process():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", DRAW],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1_000
