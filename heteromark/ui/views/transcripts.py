"""The evaluation of language models on the page of a run: results and transcripts."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
from streamlit.column_config import NumberColumn

from heteromark.ui.data.configs import value_text
from heteromark.ui.data.files import Evaluation
from heteromark.ui.data.llm_evaluation import Step, TextEvaluation, Transcript, sampling_in_words
from heteromark.ui.drawing import html as text
from heteromark.ui.drawing.charts import evaluation_histogram, solved_histogram

KEY_LENGTH = 70  # maximum characters of a problem in the title of its transcript
CHART_HEIGHT = 280  # pixels, including title and legend
MARKS = {True: "✓ solved", False: "✗ not solved"}


def show_evaluation(
    found: TextEvaluation, evaluation: Evaluation | None, config: Mapping[str, Any]
) -> None:
    """Draw results, charts and transcripts.

    Args:
        evaluation: returns of the same passes.
        config: config of the run, with dotted keys.
    """
    left, right = st.columns([3, 2])
    left.html(text.card("Solved", _figures(found)))
    if found.judgement:
        judgement = {
            name.replace("_percent", " %").replace("_", " ").capitalize(): _percent(share)
            for name, share in found.judgement.items()
        }
        left.html(text.card("Task metrics", judgement))
    with right:
        _roles(found)
    charts: dict[str, alt.LayerChart | alt.Chart] = {}
    if evaluation is not None:
        charts["Passes by reward"] = evaluation_histogram(
            evaluation, "passes", "reward of a pass", "solved"
        )
    if found.passes > 1:
        charts["Problems by number of solving passes"] = solved_histogram(
            found.solved_passes, found.passes
        )
    for column, (title, chart) in zip(st.columns(2), charts.items(), strict=False):
        column.altair_chart(chart.properties(title=title, height=CHART_HEIGHT), width="stretch")
    _transcripts(found, config)


def _figures(found: TextEvaluation) -> dict[str, str]:
    error = found.solve_rate_standard_error
    rate = _percent(found.solve_rate)
    return {
        "Solve rate (pass@1)": rate if error is None else f"{rate} ± {_percent(error)}",
        **{f"pass@{k}": _percent(share) for k, share in found.pass_at_k.items() if k > 1},
        "Problems": f"{found.problems:,}",
        "Passes per problem": f"{found.passes:,}",
        "Reward per pass": text.number(found.reward),
        "Rounds per pass": text.number(found.turns),
        "Sampling": sampling_in_words(found),
    }


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _roles(found: TextEvaluation) -> None:
    rows = [
        (role, stats.responses, stats.response_length, stats.cut_off and 100 * stats.cut_off)
        for role, stats in found.roles.items()
    ]
    table = pd.DataFrame(rows, columns=["role", "responses", "length", "cut_off"])
    st.dataframe(
        table,
        hide_index=True,
        placeholder="",
        column_config={
            "role": "Role",
            "responses": NumberColumn("Responses", format="localized"),
            "length": NumberColumn(
                "Length", format="%.1f", help="Mean length in tokens, including the end token."
            ),
            "cut_off": NumberColumn(
                "Cut off", format="%.1f %%", help="Responses that hit the length limit."
            ),
        },
    )
    st.caption(
        "± is the standard error over problems. pass@k: solved by at least one of k attempts. "
        "Length: mean tokens per response."
    )


# --- transcripts ------------------------------------------------------------------------------


def _transcripts(found: TextEvaluation, config: Mapping[str, Any]) -> None:
    if not found.transcripts:
        return
    st.subheader("Transcripts")
    alpha = config.get("grpo.alpha")
    weight = "" if alpha in (None, 1) else f"{value_text(alpha)} times "
    st.caption(
        f"The first pass over the first {len(found.transcripts):,} of {found.problems:,} problems. "
        f"The reward of a response is {weight}the team reward plus its local reward."
    )
    for transcript in found.transcripts:
        with st.expander(_title(transcript)):
            steps = "".join(map(_step, transcript.steps))
            st.html(f'<div class="hm-steps">{steps}</div>')


def _title(transcript: Transcript) -> str:
    """Return the title of a transcript, as Markdown."""
    key = " ".join(transcript.key.split())
    key = key if len(key) <= KEY_LENGTH else f"{key[: KEY_LENGTH - 1]}…"
    mark = MARKS[transcript.solved]
    return f"{mark} · reward {text.number(transcript.reward)} · {text.literal(key)}"


def _step(step: Step) -> str:
    reward = (
        f"reward {text.number(step.reward)} (team {text.number(step.team)}, "
        f"local {text.number(step.local)})"
    )
    return (
        f"<section><h3>Round {step.turn + 1} · {html.escape(step.role)} "
        f"<span>· {reward}</span></h3>"
        f'<div class="hm-step"><div><p>Prompt</p>{text.verbatim(step.prompt)}</div>'
        f"<div><p>Response</p>{text.verbatim(step.response)}</div></div></section>"
    )
