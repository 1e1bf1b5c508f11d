"""Text that was written elsewhere, in configs and records, shown as text and never as markup."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping

NOT_MEASURED = "-"
# On a card, values of more characters take the room of two, or the whole width.
LONG, LONGER = 20, 40


def literal(text: object) -> str:
    """Markdown that shows the text as it stands, in the font of code.

    Backslashes would not do: Streamlit looks for `:material/…:` icons, emoji shortcodes and arrows
    after Markdown is parsed, everywhere but in code.
    """
    line = " ".join(str(text).split())
    if not line:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    # A space that stands on both sides is taken off again; it keeps backticks apart.
    return f"{fence} {line} {fence}" if "`" in (line[0], line[-1]) else f"{fence}{line}{fence}"


def verbatim(text: str) -> str:
    """HTML of a text with all its spaces and line breaks, in letters of one width; it scrolls.

    Line breaks are written as references: Streamlit takes the spaces out of lines that have
    nothing else. It is no `pre`, of which browsers drop a first line break.
    """
    shown = html.escape(text).replace("\n", "&#10;")
    if not text:
        return '<div class="hm-nothing">nothing</div>'
    return f'<div class="hm-verbatim">{shown}</div>'


def heading(text: str, small: str = "") -> str:
    """HTML of a page's heading, with a quieter line below it."""
    below = f"<p>{html.escape(small)}</p>" if small else ""
    return f'<div class="hm-heading"><h1>{html.escape(text)}</h1>{below}</div>'


def quiet(text: str) -> str:
    """HTML of a line below a picture."""
    return f'<p class="hm-quiet">{html.escape(text)}</p>'


def card(title: str, fields: Mapping[str, str]) -> str:
    """HTML of a card: a title, and values below their names."""
    entries = "".join(
        f"<div{_room(value)}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in fields.items()
    )
    return f'<div class="hm-card"><h2>{html.escape(title)}</h2><dl>{entries}</dl></div>'


def _room(value: str) -> str:
    if len(value) > LONGER:
        return ' class="hm-longer"'
    return ' class="hm-long"' if len(value) > LONG else ""


def listed(title: str, entries: Iterable[tuple[str, str]]) -> str:
    """HTML of a card of sentences, each with its kind: good, warning or note."""
    items = "".join(
        f'<li class="hm-{html.escape(kind)}">{html.escape(text)}</li>' for kind, text in entries
    )
    return f'<div class="hm-card"><h2>{html.escape(title)}</h2><ul>{items}</ul></div>'


# --- numbers ----------------------------------------------------------------------------------


def number(value: float | None, digits: int = 2) -> str:
    """`1,234.50`; a dash where nothing was measured."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """`83 %`, from 0.83."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{value:.0%}"


def clock(seconds: float | None) -> str:
    """`1:02:03`, hours first."""
    if seconds is None:
        return NOT_MEASURED
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}"
