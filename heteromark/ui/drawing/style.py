"""Styles of the pages: line colours and dashes, the theme, CSS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heteromark.workflow.colours import PALETTE

# Solid, dashed, dotted, dash-dot, in pixels.
DASHES = ((1, 0), (7, 3), (2, 2), (8, 3, 2, 3))

GOOD, WARNING, NOTE = "#009E73", "#D55E00", "#8A8A8A"
ACCENT = PALETTE[0]

THEME = {
    "theme.base": "light",
    "theme.primaryColor": ACCENT,
    "theme.baseRadius": "small",
    "theme.codeTextColor": "#1F2937",
}

CSS = f"""<style>
[data-testid="stMainBlockContainer"] {{ padding: 4.2rem 2.5rem 4rem; }}
.hm-heading h1 {{ font-size: 1.7rem; margin: 0; padding: 0; overflow-wrap: anywhere; }}
.hm-heading p {{ color: #5F6B7A; margin: .2rem 0 0; overflow-wrap: anywhere; }}
.hm-caption {{ color: #5F6B7A; font-size: .85rem; margin: 0; overflow-wrap: anywhere; }}
.hm-card {{ border: 1px solid #D9DEE5; border-radius: .5rem; padding: .9rem 1.1rem; }}
.hm-card h2 {{ font-size: 1.05rem; margin: 0; padding: 0 0 .6rem; }}
.hm-card dl {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
  gap: .5rem 1rem; margin: 0; padding: 0; }}
.hm-card dl div.hm-long {{ grid-column: span 2; }}
.hm-card dl div.hm-longer {{ grid-column: 1 / -1; }}
.hm-card dt {{ color: #5F6B7A; font-size: .8rem; font-weight: 400; margin: 0; padding: 0; }}
.hm-card dd {{ margin: 0; padding: 0; overflow-wrap: anywhere; }}
.hm-card ul {{ list-style: none; margin: 0; padding: 0; }}
.hm-card li {{ margin: 0 0 .4rem; padding-left: 1.5rem; text-indent: -1.5rem;
  overflow-wrap: anywhere; font-size: .95rem; }}
.hm-card li::before {{ display: inline-block; width: 1.5rem; text-indent: 0; font-weight: 700; }}
.hm-steps h3 {{ font-size: .95rem; margin: 1rem 0 .3rem; padding: 0; }}
.hm-steps h3 span {{ color: #5F6B7A; font-weight: 400; }}
.hm-steps section:first-child h3 {{ margin-top: 0; }}
.hm-step {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr));
  gap: .3rem 1rem; }}
.hm-step p {{ color: #5F6B7A; font-size: .8rem; margin: 0; }}
.hm-verbatim {{ font-family: "Source Code Pro", ui-monospace, monospace; font-size: .82rem;
  white-space: pre-wrap; overflow-wrap: anywhere; overflow-y: auto; max-height: 16rem;
  background: #F6F8FA; border-radius: .3rem; padding: .5rem .7rem; tab-size: 4; }}
.hm-empty {{ color: #5F6B7A; font-style: italic; font-size: .85rem; padding: .5rem .7rem; }}
.hm-good::before {{ content: "✓"; color: {GOOD}; }}
.hm-warning::before {{ content: "!"; color: {WARNING}; }}
.hm-note::before {{ content: "·"; color: {NOTE}; }}
</style>"""


@dataclass(frozen=True)
class LineStyle:
    """The colour of a line, and its dash pattern in pixels."""

    colour: str
    dash: tuple[int, ...]


def styles_of(shown: Iterable[str], known: Iterable[str]) -> dict[str, LineStyle]:
    """Return the line style of each config in a chart. A config keeps its colour if possible.

    Args:
        shown: digests of the configs in the chart.
        known: digests of all configs; new configs are appended.

    Returns:
        Digest -> style. The index among all configs sets the colour. If another config of the chart
        already has that colour, the next free one is used. Dashes distinguish lines without colour.
    """
    indices = {digest: index for index, digest in enumerate(known)}
    styles: dict[str, LineStyle] = {}
    for digest in sorted(shown, key=lambda digest: indices.get(digest, len(indices))):
        start = indices.get(digest, len(indices)) % len(PALETTE)
        colours = PALETTE[start:] + PALETTE[:start]
        taken = list(styles.values())
        colour = min(colours, key=lambda colour: sum(style.colour == colour for style in taken))
        dash = min(
            DASHES,
            key=lambda dash: (
                LineStyle(colour, dash) in taken,
                sum(style.dash == dash for style in taken),
            ),
        )
        styles[digest] = LineStyle(colour, dash)
    return styles
