"""What agents said, for people to read in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

BAR = "    │ "


def shown_transcript(number: int, transcript: Mapping[str, Any]) -> Text:
    """One problem's transcript, as `llm.evaluation.evaluate` writes it down.

    What was said stands there as it is: brackets style nothing, and characters that would steer
    the terminal are written as Python writes them in a string.

    Args:
        number: of the problem, from 1.
    """
    solved = transcript["solved"]
    shown = Text.assemble(
        (f"problem {number}: ", "bold"),
        ("solved", "green") if solved else ("not solved", "red"),
        f", reward {transcript['reward']:.2f}\n",
    )
    for step in transcript["steps"]:
        shown.append(f"  round {step['turn'] + 1}, ").append(step["role"], "bold")
        shown.append(
            f": reward {step['reward']:.2f} (team {step['team']:.2f}, local {step['local']:.2f})\n"
        )
        shown.append("    prompt\n", "dim").append(_quoted(step["prompt"]), "dim")
        shown.append("    response\n").append(_quoted(step["response"]), "cyan")
    return shown


def _quoted(said: str) -> str:
    lines = (
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in said.split("\n")
    )
    return "".join(f"{BAR}{line}\n" for line in lines)
