"""/training: all runs, those that train now included."""

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
    ask,
    choosable_table,
    choose,
    choose_one,
    history,
    link,
)
from heteromark.workflow.words import counted

NOTHING_TRAINED = """
Nothing has been trained yet. In the project's folder, this runs the whole workflow in minutes:

```bash
make run
```

and this trains one config, which shows up here while it trains:

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
        "Progress", width=105, format="percent", help="Of runs that train now."
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
        help="Of the final evaluation; of language models the share of problems that they solve.",
    ),
    "training_return": NumberColumn(
        "Training",
        width=76,
        format="%.2f",
        help="Mean return over the last tenth of the iterations; of unfinished runs, in the "
        "newest one.",
    ),
    "frames_per_second": NumberColumn("Frames/s", width=72, format="localized"),
    "run": TextColumn("Run", width=105, help="Its digest."),
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
        f"{NOTHING_TRAINED}\nLooked in the run store {text.literal(str(known.store.root))} and in "
        f"{text.literal(str(known.results))}; `heteromark ui --store DIR --results DIR` looks "
        "elsewhere."
    )


def _controls(runs: Sequence[HistoryRun]) -> tuple[Filters, str]:
    """The filters and the order, which the address holds."""
    columns = st.columns([1.1, 1.1, 1.1, 1.1, 1.5, 1])
    chosen = {}
    for column, field in zip(columns, FILTERS, strict=False):
        values = list(STATUSES) if field == "status" else options(runs, field)
        with column:
            chosen[field] = choose(FILTERS[field], field, values)
    with columns[-2]:
        words = ask("Text", "text", "name, path, digest, reason …")
    with columns[-1]:
        order = choose_one("Order", "order", list(ORDERS))
    return Filters(**chosen, text=words), order


def _live_table(filters: Filters, order: str) -> None:
    """The table and what can be done with its chosen rows; drawn anew every few seconds."""
    runs = history().runs()
    shown = ordered([run for run in runs if filters.let_through(run)], order)
    st.caption(_summary(runs, shown))
    if not shown:
        st.info("No run passes the filters. Take one of them away to see more.")
        return
    table = table_of(shown)
    is_live = table["progress"].notna().any()
    chosen = choosable_table(
        table,
        [run.key for run in shown],
        "run",
        column_config=COLUMNS,
        column_order=[name for name in COLUMNS if is_live or name != "progress"],
        height=min(560, 38 + 35 * len(shown)),
    )
    _actions([run for run in shown if run.key in chosen])


def _actions(chosen: Sequence[HistoryRun]) -> None:
    """Where the chosen rows lead to."""
    configs = list(dict.fromkeys(run.config_digest for run in chosen if run.record))
    with st.container(horizontal=True, vertical_alignment="center"):
        if not chosen:
            st.caption("Tick rows on their left to open or compare them.")
            return
        link(RUN, "Open the run" if len(chosen) == 1 else "Open the first", run=chosen[0].key)
        if configs:
            label = f"Compare {counted(len(configs), 'config')}, over all seeds"
            link(COMPARE, label, config=configs)
        if len(chosen) > 1:
            label = f"Compare {counted(len(chosen), 'run')} one by one"
            link(COMPARE, label, run=[run.key for run in chosen])


def _summary(runs: Sequence[HistoryRun], shown: Sequence[HistoryRun]) -> str:
    statuses = Counter(run.status for run in runs)
    told = " · ".join(
        f"{MARKS[status]} {statuses[status]:,} {status}" for status in STATUSES if statuses[status]
    )
    of_them = "" if len(shown) == len(runs) else f"**{len(shown):,} shown** of "
    return f"{of_them}{counted(len(runs), 'run')}: {told}"
