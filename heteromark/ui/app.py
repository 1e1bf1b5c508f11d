"""The script that Streamlit runs: the pages and their addresses."""

from __future__ import annotations

import streamlit as st

from heteromark.ui.drawing import style
from heteromark.ui.navigation import COMPARE, RUN, SWEEP, TRAINING, register_pages
from heteromark.ui.views import compare as compare_page
from heteromark.ui.views import list as list_page
from heteromark.ui.views import run as run_page
from heteromark.ui.views import sweep as sweep_page


def _open_list() -> None:
    st.switch_page(PAGES[TRAINING])


st.set_page_config(page_title="HeteroMARK: Training History", layout="wide")
PAGES = {
    TRAINING: st.Page(list_page.show, url_path=TRAINING, title="Training History"),
    COMPARE: st.Page(compare_page.show, url_path=COMPARE, title="Compare"),
    SWEEP: st.Page(sweep_page.show, url_path=SWEEP, title="Sweep"),
    RUN: st.Page(run_page.show, url_path=RUN, title="Run", visibility="hidden"),
}
register_pages(PAGES)
# The bare address redirects to the list at /training.
start = st.Page(_open_list, url_path="start", title="Start", default=True, visibility="hidden")
page = st.navigation([start, *PAGES.values()], position="top")
st.html(style.CSS)
page.run()
