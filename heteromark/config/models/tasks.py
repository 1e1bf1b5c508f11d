"""The typed, frozen models of the tasks for language-model agents: how hard, how rewarded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from heteromark.config.fields import Coefficient, Count, Frozen, Number, Probability

Operator = Literal["+", "-", "*"]


class MathConfig(Frozen):
    """Arithmetic and word problems, or those of a file."""

    source: Literal["arithmetic", "word", "file"] = Field(
        "arithmetic", description="arithmetic: 12+34; word: in a short story; file: of `file`."
    )
    file: str | None = Field(
        None,
        description="For source file: JSON Lines with question and answer, a number (or GSM8K's "
        "text that ends in #### and the number).",
    )
    operators: Annotated[tuple[Operator, ...], Field(min_length=1)] = ("+",)
    max_operand: Annotated[int, Field(gt=0), Number] = Field(
        99, description="Largest number in a question."
    )
    num_operands: Annotated[int, Field(ge=2, le=6), Number] = 2
    tags: bool = Field(
        False,
        description="The answer is asked for as <reasoning>…</reasoning><answer>…</answer>, with "
        "rewards for that format, rather than as the response's last line.",
    )

    def misfits(self) -> Iterator[tuple[str, str]]:
        if (self.source == "file") != (self.file is not None):
            yield "file", f"must be set with source file, and only then ({self.source})"


class PlanPathConfig(Frozen):
    """A way through a grid with walls."""

    size: Annotated[int, Field(ge=2, le=20), Number] = Field(4, description="Cells of a side.")
    walls: Probability = Field(0.22, description="Share of cells that are walls.")
    min_distance: Count = Field(2, description="Steps of the shortest way, at least.")
    goal_reward: Coefficient = 1.0
    optimal_reward: Coefficient = Field(0.5, description="More for arriving by a shortest way.")
    invalid_penalty: Coefficient = Field(
        0.1, description="Less for a step into a wall, which ends the walk."
    )
    step_penalty: Coefficient = Field(
        0.01, description="Less for each move, made or left over at the walk's end."
    )


class SokobanConfig(Frozen):
    """Boxes to be pushed onto goals; solvable by construction."""

    size: Annotated[int, Field(ge=5, le=12), Number] = Field(
        6, description="Cells of a side, the border of walls among them."
    )
    boxes: Annotated[int, Field(ge=1, le=4), Number] = 1
    walls: Probability = Field(0.1, description="Share of inner cells that are walls.")
    pulls: Count = Field(6, description="Boxes start as far as up to so many pulls from goals.")


class SudokuConfig(Frozen):
    """Latin squares with boxes and one solution."""

    size: Literal[4, 9] = 4
    holes: Count = Field(6, description="Cells to be filled in; fewer where more are ambiguous.")


class CodeConfig(Frozen):
    """Small Python functions, judged by hidden tests."""

    hidden_tests: Annotated[int, Field(ge=4), Number] = Field(
        8, description="Inputs that a program is judged by; fewer would let wrong programs pass."
    )
    timeout: Annotated[float, Field(gt=0, le=60), Number] = Field(
        2.0, description="Seconds for all tests of one program."
    )
    memory_mib: Annotated[int, Field(ge=64), Number] = Field(
        256, description="Address space of one program."
    )


class SearchConfig(Frozen):
    """Questions over a made-up knowledge base."""

    entities: Annotated[int, Field(ge=4, le=200), Number] = 20
    hops: Annotated[int, Field(ge=1, le=4), Number] = Field(
        2, description="Facts that must be combined for an answer."
    )
    passages: Count = Field(2, description="Passages that a search shows.")

    def misfits(self) -> Iterator[tuple[str, str]]:
        for key in ("hops", "passages"):
            if getattr(self, key) >= self.entities:
                yield key, f"must be lower than entities, which is {self.entities}"


# Roles by task, in the order in which they act unless told otherwise; the last can solve it alone.
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
