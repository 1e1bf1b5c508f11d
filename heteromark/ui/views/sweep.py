"""/sweep: the candidates, the winner, and the rank check of its long run."""

from __future__ import annotations

import streamlit as st
from streamlit.column_config import NumberColumn, TextColumn

from heteromark.ui.data.candidates import Sweep, candidates_table, coordinates, read_sweep
from heteromark.ui.drawing import html as text
from heteromark.ui.drawing.sweep_charts import (
    MAX_ROWS,
    parallel_coordinates,
    rank_check_chart,
    ranking_chart,
)
from heteromark.ui.navigation import COMPARE, history, link, results_folder, selectable_table

NO_SWEEP = """
No finished sweep yet. Run one in the project folder. It trains every agent config with several
seeds, selects the best one and trains it longer:

```bash
snakemake --cores 2
```

Use `dvc repro` to version the results with DVC. `params.yaml` defines the sweep.
"""
KIND_OF_CHECK = {"confirmed": "good", "questioned": "warning", "unknown": "note"}


def show() -> None:
    """Draw the page."""
    results = results_folder()
    sweep = read_sweep(results)
    st.html(text.heading("Sweep", small=f"selection in {results}"))
    if sweep is None:
        st.info(f"{NO_SWEEP}\nSearched {text.literal(results)}.")
        return
    if isinstance(sweep, str):
        st.error(
            f"The selection cannot be read: {text.literal(sweep)}. Delete it and run the workflow "
            "again; finished runs are not repeated."
        )
        return
    for error in sweep.errors:
        st.warning(f"Cannot be read: {text.literal(error)}")
    _winner(sweep)
    if sweep.bracket:
        _bracket(sweep.bracket)
    _ranking(sweep)
    _hyperparameters(sweep)
    _rank_check(sweep)


def _winner(sweep: Sweep) -> None:
    winner, settings = sweep.selection.winner, sweep.selection.settings
    fields = {
        "Config": winner.name,
        "Score": text.number(winner.score),
        "Selected by": f"{settings.statistic} of {settings.metric}",
        "Minimum seeds": str(settings.min_seeds),
        "Config path": winner.config_path,
        "Why": winner.why,
    }
    st.html(text.card("Winner", fields))


def _bracket(picture: str) -> None:
    st.subheader("Successive halving")
    st.image(picture, width=820)
    st.caption(
        "Scores after each rung. The best configs continue from their checkpoints. Later rungs are "
        "longer, so scores of different rungs are not comparable."
    )


def _ranking(sweep: Sweep) -> None:
    st.subheader("Candidates")
    st.altair_chart(ranking_chart(sweep.selection), width="stretch")
    candidates = sweep.selection.candidates
    first = f"The first {MAX_ROWS} of {len(candidates):,}. " if len(candidates) > MAX_ROWS else ""
    st.caption(
        f"{first}Large marks: scores. Bars: bootstrap 95 % intervals; with two or three seeds, "
        "their range. Ticks: single seeds."
    )
    digests = [candidate.config_digest for candidate in candidates]
    selected = selectable_table(
        candidates_table(sweep),
        digests,
        "config",
        column_config={
            "rank": NumberColumn("Rank", width=55),
            "config": TextColumn("Config", width=230),
            "score": NumberColumn("Score", format="%.2f", width=75),
            "low": NumberColumn("95 % from", format="%.2f", width=85),
            "high": NumberColumn("to", format="%.2f", width=75),
            "beaten": NumberColumn(
                "P(winner better)",
                format="%.2f",
                width=115,
                help="Probability that a run of the winner scores higher than a run of this "
                "config: the share of all pairs of runs; ties count half. Only for runs of equal "
                "length.",
            ),
            "frames": NumberColumn("Frames", format="localized", width=85),
            "completed": TextColumn("Completed", width=90),
            "verdict": TextColumn("Verdict", width=85),
            "why": TextColumn("Why", width=900),
        },
    )
    label = f"Compare {len(selected)} selected" if selected else f"Compare all {len(digests)}"
    link(COMPARE, f"{label}, with learning curves", config=selected or digests)
    with st.expander("Reason for each rank"):
        reasons = [
            ("good" if candidate.rank == 1 else "note", f"{candidate.label}: {candidate.why}")
            for candidate in candidates
        ]
        st.html(text.list_card("Reasons", reasons))


def _hyperparameters(sweep: Sweep) -> None:
    st.subheader("Hyperparameters of the candidates")
    data = coordinates(sweep, history().runs())
    if data.empty:
        st.caption(
            "Nothing to draw. At least two candidates need a score, runs in this store, and "
            "different hyperparameters."
        )
        return
    st.altair_chart(parallel_coordinates(data), width="stretch")
    st.caption(
        "One line per candidate; the thick line is the winner. Hyperparameter values are sorted "
        "and equally spaced; the score axis is to scale."
    )


def _rank_check(sweep: Sweep) -> None:
    st.subheader("Did the smoke predict the long run?")
    check = sweep.rank_check
    if check is None:
        st.info("Not known yet. The workflow checks this after the winner's long run.")
        return
    st.html(text.list_card(check.verdict.capitalize(), [(KIND_OF_CHECK[check.verdict], check.why)]))
    if check.runs:
        left, right = st.columns([3, 2])
        if len(check.runs) > 1:
            right.altair_chart(rank_check_chart(check), width="stretch")
        left.dataframe(
            [run.model_dump() for run in check.runs],
            hide_index=True,
            column_config={
                "config": "Config",
                "smoke": NumberColumn("Smoke score", format="%.2f"),
                "long": NumberColumn("Long score", format="%.2f"),
            },
        )
