"""The script that Streamlit runs: which pages there are, and their addresses."""

from __future__ import annotations

import streamlit as st

from heteromark.ui import compare_page, list_page, run_page, style, sweep_page
from heteromark.ui.pages import COMPARE, RUN, SWEEP, TRAINING, offer


def _start() -> None:
    st.switch_page(PAGES[TRAINING])


st.set_page_config(page_title="HeteroMARK: Training History", layout="wide")
PAGES = {
    TRAINING: st.Page(list_page.show, url_path=TRAINING, title="Training History"),
    COMPARE: st.Page(compare_page.show, url_path=COMPARE, title="Compare"),
    SWEEP: st.Page(sweep_page.show, url_path=SWEEP, title="Sweep"),
    RUN: st.Page(run_page.show, url_path=RUN, title="Run", visibility="hidden"),
}
offer(PAGES)
# The bare address leads to the list, which has one of its own.
start = st.Page(_start, url_path="start", title="Start", default=True, visibility="hidden")
page = st.navigation([start, *PAGES.values()], position="top")
st.html(style.CSS)
page.run()
