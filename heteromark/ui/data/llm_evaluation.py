"""The evaluation of a team of language models, as evaluation.json tells it."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError

from heteromark.runs.record import EVALUATION_FILE
from heteromark.ui.data.history import HistoryRun

# Of control characters: U+2400 and on, and U+2421 for DEL.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}


def visible(text: str) -> str:
    """The text with control characters as their pictures, and half characters as `?`.

    No page could show them otherwise, and half ones cannot even be sent to a browser. Line breaks
    and tabs stay.
    """
    return text.encode("utf-8", "replace").decode("utf-8").translate(_PICTURES)


# What was said may hold any characters, even some that no page can.
Said = Annotated[
    str, BeforeValidator(lambda text: visible(text) if isinstance(text, str) else text)
]


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class Step(_Report):
    """One response: the round, counted from 0, the role, and what it earned."""

    turn: int
    role: Said
    prompt: Said
    response: Said
    reward: float
    team: float
    local: float


class Transcript(_Report):
    """All that was said about one problem in one pass."""

    key: Said
    solved: bool
    reward: float
    steps: tuple[Step, ...]


class RoleFigures(_Report):
    """How long a role's responses were on average, in tokens, and which share was cut off."""

    responses: int
    response_length: FiniteFloat | None
    cut_off: FiniteFloat | None


class Sampling(_Report):
    """Which tokens responses were sampled among; a temperature of None is that of training."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float = 1.0


class TextEvaluation(_Report):
    """What a team achieved; see `heteromark.llm.evaluation.evaluate` for what its fields say."""

    preset: str = ""
    generation: Sampling = Sampling()
    problems: int
    passes: int
    solve_rate: FiniteFloat
    solve_rate_standard_error: FiniteFloat | None
    pass_at_k: dict[int, FiniteFloat]
    solved_passes: tuple[int, ...]
    reward: FiniteFloat
    turns: FiniteFloat
    roles: dict[Said, RoleFigures]
    judgement: dict[Said, FiniteFloat]
    transcripts: tuple[Transcript, ...]


def text_evaluation_of(run: HistoryRun) -> TextEvaluation | None:
    """What evaluation.json says of a team; None where it is missing, or says nothing of one."""
    try:
        report = json.loads((run.folder / EVALUATION_FILE).read_text(encoding="utf-8"))
        return TextEvaluation.model_validate(report["text"])
    except (OSError, ValueError, TypeError, LookupError, ValidationError):
        return None


def sampling_in_words(evaluation: TextEvaluation) -> str:
    """How responses were sampled: the preset's name, and what it means."""
    sampling = evaluation.generation
    told = []
    if sampling.top_k == 1:
        told.append("the most likely token")
    else:
        if sampling.temperature is not None:
            told.append(f"temperature {sampling.temperature:g}")
        if sampling.top_k is not None:
            told.append(f"the {sampling.top_k:,} most likely tokens")
        if sampling.top_p < 1:
            told.append(f"top_p {sampling.top_p:g}")
    meaning = ", ".join(told) or "as in training"
    return f"{evaluation.preset} ({meaning})" if evaluation.preset else meaning
