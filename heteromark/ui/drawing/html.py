"""Escape text from configs and records, so that it is never shown as markup."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping

NOT_MEASURED = "-"
# On a card, values with more characters than this span two columns, or the whole width.
LONG, LONGER = 20, 40


def literal(text: object) -> str:
    """Return Markdown that shows the text unchanged, as inline code.

    Escaping with backslashes is not enough: after parsing Markdown, Streamlit replaces
    `:material/…:` icons, emoji shortcodes and arrows everywhere except in code.
    """
    line = " ".join(str(text).split())
    if not line:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    # Markdown strips one space from both ends; it separates the fence from backticks in the text.
    return f"{fence} {line} {fence}" if "`" in (line[0], line[-1]) else f"{fence}{line}{fence}"


def verbatim(text: str) -> str:
    """Return HTML of a text with all spaces and line breaks, in a scrolling monospace box.

    Line breaks are written as character references, because Streamlit removes spaces from blank
    lines. The box is not a `pre`, because browsers drop its first line break.
    """
    if not text:
        return '<div class="hm-empty">(empty)</div>'
    escaped = html.escape(text).replace("\n", "&#10;")
    return f'<div class="hm-verbatim">{escaped}</div>'


def heading(text: str, small: str = "") -> str:
    """Return HTML of a page heading, with a smaller line below it."""
    below = f"<p>{html.escape(small)}</p>" if small else ""
    return f'<div class="hm-heading"><h1>{html.escape(text)}</h1>{below}</div>'


def caption(text: str) -> str:
    """Return HTML of a caption below a picture."""
    return f'<p class="hm-caption">{html.escape(text)}</p>'


def card(title: str, fields: Mapping[str, str]) -> str:
    """Return HTML of a card: a title, and values below their names."""
    entries = "".join(
        f"<div{_width(value)}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in fields.items()
    )
    return f'<div class="hm-card"><h2>{html.escape(title)}</h2><dl>{entries}</dl></div>'


def _width(value: str) -> str:
    if len(value) > LONGER:
        return ' class="hm-longer"'
    return ' class="hm-long"' if len(value) > LONG else ""


def list_card(title: str, entries: Iterable[tuple[str, str]]) -> str:
    """Return HTML of a card that lists (kind, text) entries; kinds: good, warning, note."""
    items = "".join(
        f'<li class="hm-{html.escape(kind)}">{html.escape(text)}</li>' for kind, text in entries
    )
    return f'<div class="hm-card"><h2>{html.escape(title)}</h2><ul>{items}</ul></div>'


# --- numbers ----------------------------------------------------------------------------------


def number(value: float | None, digits: int = 2) -> str:
    """Format a number as `1,234.50`; `-` if it was not measured."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """Format 0.83 as `83%`; `-` if it was not measured."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{value:.0%}"


def duration(seconds: float | None) -> str:
    """Format seconds as `1:02:03` (hours, minutes, seconds); `-` if they were not measured."""
    if seconds is None:
        return NOT_MEASURED
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
