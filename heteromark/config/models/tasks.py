"""The typed, immutable models of the tasks for language-model agents: difficulty and rewards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from heteromark.config.fields import Coefficient, Count, Frozen, Number, Probability

Operator = Literal["+", "-", "*"]


class MathConfig(Frozen):
    """Arithmetic problems, word problems, or problems from a file."""

    source: Literal["arithmetic", "word", "file"] = Field(
        "arithmetic",
        description="arithmetic: 12+34; word: sums as short stories; file: the problems in `file`.",
    )
    file: str | None = Field(
        None,
        description="For source file: a JSON Lines file with question and answer. The answer is a "
        "number, or text ending in #### and the number, as in GSM8K.",
    )
    operators: Annotated[tuple[Operator, ...], Field(min_length=1)] = ("+",)
    max_operand: Annotated[int, Field(gt=0), Number] = Field(
        99, description="Largest number in a question."
    )
    num_operands: Annotated[int, Field(ge=2, le=6), Number] = 2
    tags: bool = Field(
        False,
        description="Ask for <reasoning>…</reasoning><answer>…</answer> and reward this format; "
        "false: the answer is the last line of the response.",
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if (self.source == "file") != (self.file is not None):
            yield "file", f"must be set if, and only if, source is file (source is {self.source})"


class PlanPathConfig(Frozen):
    """Path planning in a grid with walls."""

    size: Annotated[int, Field(ge=2, le=20), Number] = Field(4, description="Cells per side.")
    walls: Probability = Field(0.22, description="Fraction of cells that are walls.")
    min_distance: Count = Field(2, description="Minimum steps from start to goal.")
    goal_reward: Coefficient = 1.0
    optimal_reward: Coefficient = Field(
        0.5, description="Extra reward for reaching the goal by a shortest path."
    )
    invalid_penalty: Coefficient = Field(
        0.1, description="Penalty for a step into a wall, which ends the walk."
    )
    step_penalty: Coefficient = Field(
        0.01, description="Penalty per move, whether made or left over when the walk ends."
    )


class SokobanConfig(Frozen):
    """Sokoban: push boxes onto goals. Every level is solvable."""

    size: Annotated[int, Field(ge=5, le=12), Number] = Field(
        6, description="Cells per side, including the border of walls."
    )
    boxes: Annotated[int, Field(ge=1, le=4), Number] = 1
    walls: Probability = Field(0.1, description="Fraction of inner cells that are walls.")
    pulls: Count = Field(
        6, description="Levels are built by up to this many box pulls away from the goals."
    )


class SudokuConfig(Frozen):
    """Sudokus with one solution."""

    size: Literal[4, 9] = 4
    holes: Count = Field(
        6, description="Cells to fill in; fewer if the solution would not be unique."
    )


class CodeConfig(Frozen):
    """Small Python functions, checked by hidden tests."""

    hidden_tests: Annotated[int, Field(ge=4), Number] = Field(
        8,
        description="Number of inputs that a program is tested on. With too few, wrong programs "
        "pass.",
    )
    timeout: Annotated[float, Field(gt=0, le=60), Number] = Field(
        2.0, description="Seconds for all tests of one program."
    )
    memory_mib: Annotated[int, Field(ge=64), Number] = Field(
        256, description="Address space of one program in MiB."
    )


class SearchConfig(Frozen):
    """Questions about a synthetic knowledge base."""

    entities: Annotated[int, Field(ge=4, le=200), Number] = 20
    hops: Annotated[int, Field(ge=1, le=4), Number] = Field(
        2, description="Number of facts that an answer combines."
    )
    passages: Count = Field(2, description="Number of passages that a search returns.")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for key in ("hops", "passages"):
            if getattr(self, key) >= self.entities:
                yield key, f"must be less than entities, which is {self.entities}"


# Roles by task, in their default order. The last role can solve the task alone.
TASK_ROLES: dict[str, tuple[str, ...]] = {
    "math": ("tool", "reasoner"),
    "plan_path": ("tool", "planner"),
    "sokoban": ("tool", "planner"),
    "sudoku": ("tool", "reasoner"),
    "code": ("tester", "coder"),
    "search": ("searcher", "reasoner"),
}

TASK_CONFIGS: dict[str, type[Frozen]] = {
    "math": MathConfig,
    "plan_path": PlanPathConfig,
    "sokoban": SokobanConfig,
    "sudoku": SudokuConfig,
    "code": CodeConfig,
    "search": SearchConfig,
}
