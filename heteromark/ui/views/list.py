"""/training: all runs, including those that are training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn, ProgressColumn, TextColumn

from heteromark.ui.data.history import STATUSES, HistoryRun
from heteromark.ui.data.listing import MARKS, ORDERS, Filters, options, ordered, table_of
from heteromark.ui.drawing import html as text
from heteromark.ui.navigation import (
    COMPARE,
    REFRESH_SECONDS,
    RUN,
    choose,
    choose_one,
    enter_text,
    history,
    link,
    selectable_table,
)
from heteromark.workflow.words import counted

NOTHING_TRAINED = """
No runs yet. Run the whole workflow in the project folder, which takes minutes:

```bash
make run
```

Or train one config. It appears here while it trains:

```bash
heteromark train --agent-config config/agents/happo_agent_v1.yaml
```
"""

FILTERS = {
    "agent_id": "Agent",
    "environment": "Environment",
    "algorithm": "Algorithm",
    "status": "Status",
}
COLUMNS = {
    "status": TextColumn("Status", width=108),
    "config": TextColumn("Config", width=172),
    "algorithm": TextColumn("Algorithm", width=98),
    "environment": TextColumn("Environment", width=148),
    "mode": TextColumn("Mode", width=58),
    "seed": NumberColumn("Seed", width=52),
    "started": DatetimeColumn(
        "Started", width=145, format="YYYY-MM-DD HH:mm:ss", help="Local time."
    ),
    "duration": NumberColumn(
        "Duration",
        width=73,
        format="compact",
        help="Wall-clock time over all attempts: hours, minutes, seconds.",
    ),
    "progress": ProgressColumn(
        "Progress", width=105, format="percent", help="Only of runs that are training."
    ),
    "frames": NumberColumn("Frames", width=86, format="localized"),
    "evaluation_return": NumberColumn(
        "Evaluation",
        width=86,
        format="%.2f",
        help="Mean return over the episodes of the final evaluation.",
    ),
    "win_rate": NumberColumn(
        "Win rate",
        width=76,
        format="%.1f %%",
        help="Win rate of the final evaluation; for language models, the share of problems solved.",
    ),
    "training_return": NumberColumn(
        "Training",
        width=76,
        format="%.2f",
        help="Mean return over the last tenth of the iterations; for unfinished runs, the return "
        "of the newest iteration.",
    ),
    "frames_per_second": NumberColumn("Frames/s", width=72, format="localized"),
    "run": TextColumn("Run", width=105, help="Digest of the run."),
}


def show() -> None:
    """Draw the page."""
    runs = history().runs()
    st.html(text.heading("Training History"))
    if not runs:
        st.fragment(_wait_for_a_run, run_every=REFRESH_SECONDS)()
        return
    filters, order = _controls(runs)
    st.fragment(_live_table, run_every=REFRESH_SECONDS)(filters, order)


def _wait_for_a_run() -> None:
    if history().runs():
        st.rerun()
    known = history()
    st.info(
        f"{NOTHING_TRAINED}\nSearched the run store {text.literal(str(known.store.root))} and "
        f"{text.literal(str(known.results))}. To search other folders: "
        "`heteromark ui --store DIR --results DIR`."
    )


def _controls(runs: Sequence[HistoryRun]) -> tuple[Filters, str]:
    """Draw the filters and the order; both are kept in the address."""
    columns = st.columns([1.1, 1.1, 1.1, 1.1, 1.5, 1])
    chosen = {}
    for column, field in zip(columns, FILTERS, strict=False):
        values = list(STATUSES) if field == "status" else options(runs, field)
        with column:
            chosen[field] = choose(FILTERS[field], field, values)
    with columns[-2]:
        words = enter_text("Text", "text", "name, path, digest, reason …")
    with columns[-1]:
        order = choose_one("Order", "order", list(ORDERS))
    return Filters(**chosen, text=words), order


def _live_table(filters: Filters, order: str) -> None:
    """Draw the table and the links for its selected rows; refreshed every few seconds."""
    runs = history().runs()
    shown = ordered([run for run in runs if filters.matches(run)], order)
    st.caption(_summary(runs, shown))
    if not shown:
        st.info("No run matches the filters. Remove a filter to see more runs.")
        return
    table = table_of(shown)
    is_live = table["progress"].notna().any()
    selected = selectable_table(
        table,
        [run.key for run in shown],
        "run",
        column_config=COLUMNS,
        column_order=[name for name in COLUMNS if is_live or name != "progress"],
        height=min(560, 38 + 35 * len(shown)),
    )
    _actions([run for run in shown if run.key in selected])


def _actions(selected: Sequence[HistoryRun]) -> None:
    """Draw links to open or compare the selected runs."""
    configs = list(dict.fromkeys(run.record.config_digest for run in selected if run.record))
    with st.container(horizontal=True, vertical_alignment="center"):
        if not selected:
            st.caption("Tick the boxes on the left to open or compare runs.")
            return
        link(RUN, "Open run" if len(selected) == 1 else "Open first run", run=selected[0].key)
        if configs:
            label = f"Compare {counted(len(configs), 'config')} over all seeds"
            link(COMPARE, label, config=configs)
        if len(selected) > 1:
            label = f"Compare {counted(len(selected), 'run')} individually"
            link(COMPARE, label, run=[run.key for run in selected])


def _summary(runs: Sequence[HistoryRun], shown: Sequence[HistoryRun]) -> str:
    statuses = Counter(run.status for run in runs)
    counts = " · ".join(
        f"{MARKS[status]} {statuses[status]:,} {status}" for status in STATUSES if statuses[status]
    )
    shown_of = "" if len(shown) == len(runs) else f"**{len(shown):,} shown** of "
    return f"{shown_of}{counted(len(runs), 'run')}: {counts}"
