"""Shared by all pages: the history, links between pages, and selections kept in the address."""

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

# Last part of a page's address, as in http://localhost:5173/training.
TRAINING, RUN, COMPARE, SWEEP = "training", "training_run", "compare", "sweep"
_PAGES = "pages"
_ICONS = {
    TRAINING: ":material/list:",
    RUN: ":material/open_in_full:",
    COMPARE: ":material/compare_arrows:",
}


def results_folder() -> Path:
    """Return the results folder."""
    return Path(os.environ.get(RESULTS_VARIABLE) or RESULTS)


def history() -> History:
    """Return the history, shared by all browser sessions so that each file is read once."""
    return _history(RunStore().root, results_folder())


@st.cache_resource(show_spinner=False)
def _history(store: Path, results: Path) -> History:
    return History(RunStore(store), results)


def register_pages(pages: Mapping[str, Any]) -> None:
    """Register the pages for `link`, keyed by the last part of their address."""
    st.session_state[_PAGES] = dict(pages)


def link(page: str, label: str, **selection: str | Sequence[str]) -> None:
    """Draw a link to a page with a selection. `label` is Markdown: never pass text from a run."""
    parameters = [
        (name, value)
        for name, values in selection.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    st.page_link(
        st.session_state[_PAGES][page], label=label, icon=_ICONS[page], query_params=parameters
    )


# Selections live in the address. It is read before a widget is drawn and written when the user
# selects something, so that links, shared addresses and the back button work. Unknown values in
# the address are ignored.


def choose(
    label: str,
    parameter: str,
    options: Sequence[str],
    label_of: Callable[[str], str] = str,
    placeholder: str = "all",
) -> list[str]:
    """Draw a multi-select; `label_of` returns the plain-text label of an option."""
    requested = dict.fromkeys(st.query_params.get_all(parameter))
    binding = _bind(parameter, [value for value in requested if value in options])
    return st.multiselect(label, options, format_func=label_of, placeholder=placeholder, **binding)


def choose_one(
    label: str, parameter: str, options: Sequence[str], label_of: Callable[[str], str] = str
) -> str:
    """Draw a select box. The first option is the default if the address has no valid one."""
    requested = st.query_params.get(parameter)
    binding = _bind(parameter, requested if requested in options else options[0])
    return st.selectbox(label, options, format_func=label_of, **binding)


def choose_axis() -> Axis:
    """Draw the control for the x axis of curves."""
    requested = st.query_params.get("x")
    binding = _bind("x", requested if requested in COLUMN_OF_AXIS else "frames")
    return st.segmented_control("X axis", list(COLUMN_OF_AXIS), required=True, **binding)


def enter_text(label: str, parameter: str, placeholder: str) -> str:
    """Draw a text field."""
    binding = _bind(parameter, st.query_params.get(parameter, ""))
    return st.text_input(label, placeholder=placeholder, **binding)


def _bind(parameter: str, value: Any) -> dict[str, Any]:
    """Return options that give a widget this value and write the user's input into the address.

    The value is set only if it differs: setting it could undo an input made in the meantime.
    """
    key = f"choose_{parameter}"
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
    return {"key": key, "on_change": lambda: _write(parameter, st.session_state[key])}


def _write(parameter: str, value: str | list[str]) -> None:
    """Write a selection into the address; an empty selection is removed."""
    if value:
        st.query_params[parameter] = value
    else:
        st.query_params.pop(parameter, None)


def selectable_table(
    table: pd.DataFrame, keys: Sequence[str], parameter: str, **appearance: Any
) -> list[str]:
    """Draw a table whose selected rows are kept in the address; return the selected keys.

    The selection is stored by key, because row numbers change when runs are added or removed.
    """
    widget, shown_keys = f"table_{parameter}", f"table_{parameter}_keys"

    def write() -> None:
        rows = st.session_state[widget]["selection"]["rows"]
        _write(parameter, [st.session_state[shown_keys][row] for row in sorted(rows)])

    requested = st.query_params.get_all(parameter)
    rows = [row for row, key in enumerate(keys) if key in requested]
    if widget not in st.session_state or st.session_state[widget]["selection"]["rows"] != rows:
        st.session_state[widget] = {"selection": {"rows": rows}}
    st.session_state[shown_keys] = list(keys)
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
    """Return the metrics of a run and "", or an empty table and why the file cannot be read.

    The file is read again only if it has changed.
    """
    path = run.folder / METRICS_FILE
    try:
        state = os.stat(path)
        return _metrics(path, state.st_mtime_ns, state.st_size), ""
    except FileNotFoundError:  # the run ended before its first iteration
        return pd.DataFrame(), ""
    except (OSError, ValueError) as error:
        return pd.DataFrame(), f"{path} cannot be read: {error}"


@st.cache_data(show_spinner=False, max_entries=1000)
def _metrics(path: Path, modified: int, size: int) -> pd.DataFrame:
    return read_metrics(path)


def find_run(runs: Sequence[HistoryRun], key: str) -> HistoryRun | None:
    """Return the run with this key or with a key that starts with it; None if none or ambiguous."""
    matches = [run for run in runs if run.key == key] or [
        run for run in runs if key and run.key.startswith(key)
    ]
    return matches[0] if len(matches) == 1 else None
