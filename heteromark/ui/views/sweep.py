"""/sweep: the candidates, why one of them won, and whether its long run agreed."""

from __future__ import annotations

import streamlit as st
from streamlit.column_config import NumberColumn, TextColumn

from heteromark.ui.data.candidates import Sweep, candidates_table, coordinates, read_sweep
from heteromark.ui.drawing import html as text
from heteromark.ui.drawing.sweep_charts import (
    MOST_ROWS,
    parallel_coordinates,
    rank_check_chart,
    ranking_chart,
)
from heteromark.ui.navigation import COMPARE, choosable_table, history, link, results_folder

NO_SWEEP = """
There is no finished sweep here yet. In the project's folder, this runs every agent config over
several seeds, selects one and trains it long:

```bash
snakemake --cores 2
```

or, versioned by DVC, `dvc repro`. What is swept stands in `params.yaml`.
"""
KIND_OF_CHECK = {"confirmed": "good", "questioned": "warning", "unknown": "note"}


def show() -> None:
    """Draw the page."""
    results = results_folder()
    sweep = read_sweep(results)
    st.html(text.heading("Sweep", small=f"the selection in {results}"))
    if sweep is None:
        st.info(f"{NO_SWEEP}\nLooked in {text.literal(results)}.")
        return
    if isinstance(sweep, str):
        st.error(
            f"The selection cannot be read: {text.literal(sweep)}. Remove it and run the workflow "
            "again: finished runs are not repeated."
        )
        return
    for fault in sweep.faults:
        st.warning(f"Cannot be read: {text.literal(fault)}")
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
        "Seeds needed": str(settings.min_seeds),
        "Config path": winner.config_path,
        "Why": winner.why,
    }
    st.html(text.card("Winner", fields))


def _bracket(picture: str) -> None:
    st.subheader("Successive halving")
    st.image(picture, width=820)
    st.caption(
        "Scores after each rung; the best go on, from their own checkpoints. Scores of different "
        "rungs are of runs of different length."
    )


def _ranking(sweep: Sweep) -> None:
    st.subheader("Candidates")
    st.altair_chart(ranking_chart(sweep.selection), width="stretch")
    candidates = sweep.selection.candidates
    first = f"The first {MOST_ROWS} of {len(candidates):,}. " if len(candidates) > MOST_ROWS else ""
    st.caption(
        f"{first}Large marks: scores. Bars: their bootstrap 95 % intervals; of two or three seeds "
        "their range. Ticks: single seeds."
    )
    everything = [candidate.config_digest for candidate in candidates]
    chosen = choosable_table(
        candidates_table(sweep),
        everything,
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
                help="How likely a run of the winner scores higher than a run of this config: the "
                "share of pairs of runs, ties half. Only among runs of equal length.",
            ),
            "frames": NumberColumn("Frames", format="localized", width=85),
            "completed": TextColumn("Completed", width=90),
            "verdict": TextColumn("Verdict", width=85),
            "why": TextColumn("Why", width=900),
        },
    )
    label = f"Compare {len(chosen)} chosen" if chosen else f"Compare all {len(everything)}"
    link(COMPARE, f"{label}, with learning curves", config=chosen or everything)
    with st.expander("Why each candidate stands where it stands"):
        reasons = [
            ("good" if candidate.rank == 1 else "note", f"{candidate.label}: {candidate.why}")
            for candidate in candidates
        ]
        st.html(text.listed("Reasons", reasons))


def _hyperparameters(sweep: Sweep) -> None:
    st.subheader("What the candidates vary")
    data = coordinates(sweep, history().runs())
    if data.empty:
        st.caption(
            "Nothing to draw: fewer than two scored candidates whose runs are here, or no "
            "hyperparameter in which they differ."
        )
        return
    st.altair_chart(parallel_coordinates(data), width="stretch")
    st.caption(
        "A line per candidate, the winner's is thick. The values of a hyperparameter are in order "
        "and equally far apart; the score is to scale."
    )


def _rank_check(sweep: Sweep) -> None:
    st.subheader("Did the smoke predict the long run?")
    check = sweep.rank_check
    if check is None:
        st.info("Not known yet: the workflow checks it after the long run of the winner.")
        return
    st.html(text.listed(check.verdict.capitalize(), [(KIND_OF_CHECK[check.verdict], check.why)]))
    if check.runs:
        left, right = st.columns([3, 2])
        if len(check.runs) > 1:
            right.altair_chart(rank_check_chart(check), width="stretch")
        left.dataframe(
            [run.model_dump() for run in check.runs],
            hide_index=True,
            column_config={
                "config": "Trained long",
                "smoke": NumberColumn("Smoke score", format="%.2f"),
                "long": NumberColumn("Long score", format="%.2f"),
            },
        )
