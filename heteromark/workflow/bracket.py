"""The plot of successive halving: every config's score after each rung that it trained in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from heteromark.workflow.colours import LEFT_OUT_COLOUR, PALETTE
from heteromark.workflow.plots import STYLE, figure_with_axes, legend_mark
from heteromark.workflow.select import RankedCandidate, Selection
from heteromark.workflow.words import counted, unit, words

_FINALIST, _WINNER = PALETTE[0], PALETTE[1]
_NAME_HEIGHT = 0.035  # height of a name, as a share of the axis


def draw_bracket(rungs: Sequence[Selection]) -> Figure:
    """Draw scores over frames, with one line per config up to its last rung.

    Args:
        rungs: the ranking after each rung; the last one is the selection.
    """
    last = len(rungs)
    entrants = [
        [candidate for candidate in ranking.candidates if candidate.rung == number]
        for number, ranking in enumerate(rungs, start=1)
    ]
    selection = rungs[-1]
    with mpl.rc_context(STYLE):
        figure, axes = figure_with_axes(height=4.6)
        ends = []
        for first in entrants[0]:
            path = [c for of_rung in entrants for c in of_rung if c.names == first.names]
            if scored := [(c, c.score) for c in path if c.score is not None]:
                is_winner = first.names[0] == selection.winner.name
                colour = _draw_path(axes, scored, last, is_winner)
                ends.append((*scored[-1], colour))
        _name_ends(axes, ends)
        _mark_rungs(axes, entrants)
        axes.set_ylabel(f"{words(selection.settings.metric)} ({unit(selection.settings.metric)})")
        axes.set_title(f"Successive halving: {describe_frames(entrants)}", loc="left")
        _legend(figure, last)
    return figure


def describe_frames(entrants: Sequence[Sequence[RankedCandidate]]) -> str:
    """Return the number of frames that the rungs trained, compared with a grid.

    Args:
        entrants: for each rung, the candidates that trained in it.
    """
    trained, before = 0, 0
    for of_rung in entrants:
        longest = max(candidate.frames for candidate in of_rung)
        trained += sum((candidate.frames - before) * candidate.seeds for candidate in of_rung)
        before = longest
    grid = before * sum(candidate.seeds for candidate in entrants[0])
    return f"{trained:,} frames instead of a grid's {grid:,} ({grid / trained:.1f} times fewer)"


def _draw_path(
    axes: Axes, scored: Sequence[tuple[RankedCandidate, float]], last: int, is_winner: bool
) -> str:
    """Draw one config's scores, by rung; return the line's colour."""
    end, end_score = scored[-1]
    is_finalist = end.rung == last
    colour = _WINNER if is_winner else _FINALIST if is_finalist else LEFT_OUT_COLOUR
    frames = [candidate.frames for candidate, _ in scored]
    scores = [score for _, score in scored]
    width, order = (2.4, 3) if is_winner else (1.2, 2)
    dots: dict[str, Any] = {"marker": "o", "markersize": 4}
    axes.plot(frames, scores, color=colour, linewidth=width, zorder=order, **dots)
    marker = "*" if is_winner else "o" if is_finalist else "x"
    axes.plot(end.frames, end_score, color=colour, marker=marker, markersize=12 if is_winner else 7)
    return colour


def _name_ends(axes: Axes, ends: Sequence[tuple[RankedCandidate, float, str]]) -> None:
    """Write the names beside the ends of the lines; names at one rung do not overlap."""
    low, high = axes.get_ylim()
    reached: dict[int, float] = {}
    beside: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
    for candidate, score, colour in sorted(ends, key=lambda end: end[1]):
        lowest = reached.get(candidate.rung, low) + _NAME_HEIGHT * (high - low)
        at = reached[candidate.rung] = max(score, lowest)
        point = (candidate.frames, at)
        axes.annotate(candidate.label, point, color=colour, fontsize="x-small", **beside)


def _mark_rungs(axes: Axes, entrants: Sequence[Sequence[RankedCandidate]]) -> None:
    """Draw a tick for each rung, with the length of its runs and the number of its configs."""
    frames = [max(candidate.frames for candidate in of_rung) for of_rung in entrants]
    counts = dict(zip(frames, map(len, entrants), strict=True))
    axes.set_xscale("log")
    room_for_names = max(frames[-1] / frames[0], 3) ** 0.35
    axes.set_xlim(frames[0] / 1.15, frames[-1] * room_for_names)
    axes.xaxis.set_major_locator(FixedLocator(frames))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: f"{at:,.0f}\n{counted(counts.get(round(at), 0), 'config')}")
    )
    axes.set_xlabel("environment frames per run, and number of configs trained that far")


def _legend(figure: Figure, last: int) -> None:
    marks = [
        legend_mark("winner", _WINNER, marker="*", markersize=12),
        legend_mark(f"reached rung {last}", _FINALIST, marker="o", markersize=7),
        legend_mark("dropped earlier", LEFT_OUT_COLOUR, marker="x", markersize=7),
    ]
    figure.legend(handles=marks, loc="outside lower left", ncols=len(marks))
