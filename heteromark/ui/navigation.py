"""What all pages share: the history they show, links among them, and selections in the address."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from heteromark.runs.record import METRICS_FILE, RESULTS
from heteromark.runs.store import RunStore
from heteromark.ui.data.history import History, HistoryRun
from heteromark.ui.data.metrics import COLUMN_OF_AXIS, Axis, read_metrics
from heteromark.ui.server import RESULTS_VARIABLE

REFRESH_SECONDS = 2.0

# Last part of a page's address, e.g. http://localhost:5173/training.
TRAINING, RUN, COMPARE, SWEEP = "training", "training_run", "compare", "sweep"
_PAGES = "pages"
_ICONS = {
    TRAINING: ":material/list:",
    RUN: ":material/open_in_full:",
    COMPARE: ":material/compare_arrows:",
}


def results_folder() -> Path:
    """Where the project's results are."""
    return Path(os.environ.get(RESULTS_VARIABLE) or RESULTS)


def history() -> History:
    """The history that all readers share, so that each file is read once."""
    return _history(RunStore().root, results_folder())


@st.cache_resource(show_spinner=False)
def _history(store: Path, results: Path) -> History:
    return History(RunStore(store), results)


def offer(pages: Mapping[str, Any]) -> None:
    """Let `link` know the pages, by the last part of their addresses."""
    st.session_state[_PAGES] = dict(pages)


def link(page: str, label: str, **selection: str | Sequence[str]) -> None:
    """A link to a page that shows the selection; `label` is Markdown, so no text from elsewhere."""
    parameters = [
        (name, value)
        for name, values in selection.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    st.page_link(
        st.session_state[_PAGES][page], label=label, icon=_ICONS[page], query_params=parameters
    )


# Selections: the address is what counts. It is read before a widget is drawn and written when the
# reader chooses, so that links, shared addresses and the browser's back button all work. What the
# address says and a page does not know is left out.


def choose(
    label: str,
    parameter: str,
    options: Sequence[str],
    told: Callable[[str], str] = str,
    placeholder: str = "all",
) -> list[str]:
    """A choice of several; `told` says what an option is called, in plain text."""
    wanted = st.query_params.get_all(parameter)
    bound = _bound(parameter, [one for one in dict.fromkeys(wanted) if one in options])
    return st.multiselect(label, options, format_func=told, placeholder=placeholder, **bound)


def choose_one(
    label: str, parameter: str, options: Sequence[str], told: Callable[[str], str] = str
) -> str:
    """A choice of one; the first option stands for the rest of the address."""
    wanted = st.query_params.get(parameter)
    bound = _bound(parameter, wanted if wanted in options else options[0])
    return st.selectbox(label, options, format_func=told, **bound)


def choose_axis() -> Axis:
    """What curves are drawn over."""
    wanted = st.query_params.get("x")
    bound = _bound("x", wanted if wanted in COLUMN_OF_AXIS else "frames")
    return st.segmented_control("Over", list(COLUMN_OF_AXIS), required=True, **bound)


def ask(label: str, parameter: str, placeholder: str) -> str:
    """A line of text."""
    bound = _bound(parameter, st.query_params.get(parameter, ""))
    return st.text_input(label, placeholder=placeholder, **bound)


def _bound(parameter: str, value: Any) -> dict[str, Any]:
    """Options of a widget that has this value, and writes what a reader chooses into the address.

    The value is set only if it is another: setting it may undo what a reader does meanwhile.
    """
    key = f"choose_{parameter}"
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
    return {"key": key, "on_change": lambda: _write(parameter, st.session_state[key])}


def _write(parameter: str, value: str | list[str]) -> None:
    """Write a selection into the address; an empty one leaves it."""
    if value:
        st.query_params[parameter] = value
    else:
        st.query_params.pop(parameter, None)


def choosable_table(
    table: pd.DataFrame, keys: Sequence[str], parameter: str, **appearance: Any
) -> list[str]:
    """A table whose chosen rows the address holds by their keys; returns those that are chosen.

    Rows move when others come and go: what is chosen follows the keys, not the places.
    """
    widget, shown = f"table_{parameter}", f"table_{parameter}_keys"

    def write() -> None:
        rows = st.session_state[widget]["selection"]["rows"]
        _write(parameter, [st.session_state[shown][row] for row in sorted(rows)])

    wanted = st.query_params.get_all(parameter)
    rows = [row for row, key in enumerate(keys) if key in wanted]
    if widget not in st.session_state or st.session_state[widget]["selection"]["rows"] != rows:
        st.session_state[widget] = {"selection": {"rows": rows}}
    st.session_state[shown] = list(keys)
    st.dataframe(
        table,
        key=widget,
        on_select=write,
        selection_mode="multi-row",
        hide_index=True,
        placeholder="",
        **appearance,
    )
    return [keys[row] for row in rows]


def metrics_of(run: HistoryRun) -> tuple[pd.DataFrame, str]:
    """A run's metrics, read again when they have changed; else an empty table and why."""
    path = run.folder / METRICS_FILE
    try:
        state = os.stat(path)
        return _metrics(path, state.st_mtime_ns, state.st_size), ""
    except FileNotFoundError:  # it ended before its first iteration
        return pd.DataFrame(), ""
    except (OSError, ValueError) as error:
        return pd.DataFrame(), f"{path} cannot be read: {error}"


@st.cache_data(show_spinner=False, max_entries=1000)
def _metrics(path: Path, modified: int, size: int) -> pd.DataFrame:
    return read_metrics(path)


def find_run(runs: Sequence[HistoryRun], key: str) -> HistoryRun | None:
    """The run with a key, or with a digest that begins so; None if there is none or several."""
    matches = [run for run in runs if run.key == key] or [
        run for run in runs if key and run.key.startswith(key)
    ]
    return matches[0] if len(matches) == 1 else None
