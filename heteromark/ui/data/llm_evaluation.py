"""Read the evaluation of a team of language models from evaluation.json."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError

from heteromark.runs.record import EVALUATION_FILE
from heteromark.ui.data.history import HistoryRun

# Unicode control pictures: U+2400 and up, and U+2421 for DEL.
_CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {
    127: 0x2421
}


def printable(text: str) -> str:
    """Replace control characters by control pictures, and lone surrogates by `?`.

    Browsers do not show control characters, and lone surrogates cannot be encoded as UTF-8. Line
    breaks and tabs are kept.
    """
    return text.encode("utf-8", "replace").decode("utf-8").translate(_CONTROL_PICTURES)


# Text from models and tasks may contain any characters.
PrintableText = Annotated[
    str, BeforeValidator(lambda text: printable(text) if isinstance(text, str) else text)
]


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class Step(_Report):
    """One response and its reward. `turn` is the round, counted from 0."""

    turn: int
    role: PrintableText
    prompt: PrintableText
    response: PrintableText
    reward: float
    team: float
    local: float


class Transcript(_Report):
    """All prompts and responses of one pass over one problem."""

    key: PrintableText
    solved: bool
    reward: float
    steps: tuple[Step, ...]


class RoleFigures(_Report):
    """The mean response length of a role, in tokens, and the share of responses cut off."""

    responses: int
    response_length: FiniteFloat | None
    cut_off: FiniteFloat | None


class Sampling(_Report):
    """Sampling settings. A temperature of None is the one used in training."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float = 1.0


class TextEvaluation(_Report):
    """The results of a team; `heteromark.llm.evaluation.evaluate` documents the fields."""

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
    roles: dict[PrintableText, RoleFigures]
    judgement: dict[PrintableText, FiniteFloat]
    transcripts: tuple[Transcript, ...]


def text_evaluation_of(run: HistoryRun) -> TextEvaluation | None:
    """Read the team's part of evaluation.json; None if it is missing or invalid."""
    try:
        report = json.loads((run.folder / EVALUATION_FILE).read_text(encoding="utf-8"))
        return TextEvaluation.model_validate(report["text"])
    except (OSError, ValueError, TypeError, LookupError, ValidationError):
        return None


def sampling_in_words(evaluation: TextEvaluation) -> str:
    """Describe how responses were sampled: the name of the preset, and its settings."""
    sampling = evaluation.generation
    parts = []
    if sampling.top_k == 1:
        parts.append("the most likely token")
    else:
        if sampling.temperature is not None:
            parts.append(f"temperature {sampling.temperature:g}")
        if sampling.top_k is not None:
            parts.append(f"the {sampling.top_k:,} most likely tokens")
        if sampling.top_p < 1:
            parts.append(f"top_p {sampling.top_p:g}")
    meaning = ", ".join(parts) or "as in training"
    return f"{evaluation.preset} ({meaning})" if evaluation.preset else meaning
