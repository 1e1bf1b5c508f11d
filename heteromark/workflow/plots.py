"""The plots of a sweep: learning curves, the selection, the long run.

Figures are drawn without pyplot, so they need no global state and no display. They are saved
without dates or random identifiers: with one version of matplotlib, identical tables give identical
bytes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from heteromark.runs.files import atomic_path
from heteromark.workflow.aggregate import Tables
from heteromark.workflow.colours import LEFT_OUT_COLOUR, PALETTE
from heteromark.workflow.select import RankedCandidate, Selection
from heteromark.workflow.statistics import CONFIDENCE, RANGE_SEEDS
from heteromark.workflow.words import counted, unit, words

LINE_STYLES = ("-", "--", ":", "-.")  # changes each time the palette starts again
LINES = [{"color": colour, "linestyle": style} for style in LINE_STYLES for colour in PALETTE]

# The keys are those of matplotlib's rcParams.
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "heteromark",  # identifiers in the SVG are hashes; unsalted, they are random
}
# Remove dates and the writer's version, so that identical figures give identical bytes.
UNDATED = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}

WIDTH = 8.0  # inches
ROW_HEIGHT = 0.5
# Distance below a candidate's line, in rows: its seeds, so that the interval does not hide them,
# and the reason why it was left out.
SEED_OFFSET = 0.2
REASON_OFFSET = 0.4
REASON_LENGTH = 115  # characters that fit beside a name of about 30 characters


def save_figure(figure: Figure, path: Path) -> None:
    """Save atomically in the format of the suffix (.svg or .png).

    Raises:
        ValueError: the suffix is not supported.
    """
    kind = Path(path).suffix.removeprefix(".")
    if kind not in UNDATED:
        raise ValueError(
            f"{path}: plots must be saved as {' or '.join(f'.{name}' for name in UNDATED)}"
        )
    with mpl.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=UNDATED[kind])


def draw_learning_curves(tables: Tables) -> Figure:
    """Draw the training return over frames: mean and 95 % band over each config's completed seeds.

    A config without a completed seed appears only in the legend, with its statuses.
    """
    with mpl.rc_context(STYLE):
        figure, axes = figure_with_axes(height=4.2)
        for row, style in zip(tables.summary.itertuples(), cycle(LINES), strict=False):
            curve = tables.curves[tables.curves["config"] == row.config]
            if curve.empty:
                axes.plot([], [], color=LEFT_OUT_COLOUR, label=f"{row.config} ({row.statuses})")
            else:
                _draw_curve(axes, curve, label=f"{row.config} ({row.verdict})", **style)
        _finish_curve_axes(axes, f"Learning curves: mean over seeds{_describe_band(tables.curves)}")
        _legend_below(figure, axes)
    return figure


def draw_selection(selection: Selection) -> Figure:
    """Draw one row per candidate, best on top: score, 95 % interval and the value of each seed.

    With few seeds, the interval is their range, and the legend says so. Candidates that were left
    out are grey, with the reason in their row.
    """
    settings = selection.settings
    with mpl.rc_context(STYLE):
        figure, axes = figure_with_axes(height=1.4 + ROW_HEIGHT * len(selection.candidates))
        for candidate in selection.candidates:
            _draw_candidate(axes, candidate)
        ranks = [candidate.rank for candidate in selection.candidates]
        axes.set_yticks(ranks, _tick_labels(selection.candidates))
        for tick, candidate in zip(axes.get_yticklabels(), selection.candidates, strict=True):
            tick.set_color("black" if candidate.eligible else LEFT_OUT_COLOUR)
            tick.set_fontweight("bold" if candidate.rank == 1 else "normal")
        axes.set_ylim(len(selection.candidates) + 0.6, 0.4)  # rank 1 on top
        axes.grid(False, axis="y")
        axes.set_xlabel(f"{words(settings.metric)} ({unit(settings.metric)})")
        axes.set_title(
            f"Selection by {settings.statistic} of {words(settings.metric)} over at least "
            f"{counted(settings.min_seeds, 'completed seed')}",
            loc="left",
        )
        _selection_legend(figure, seeds=max(len(each.values) for each in selection.candidates))
    return figure


def draw_long_run(selection: Selection, smoke: Tables, long: Tables) -> Figure:
    """Draw the learning curves of the long runs and, for comparison, the end of their smokes."""
    with mpl.rc_context(STYLE):
        figure, axes = figure_with_axes(height=4.2)
        for row, style in zip(long.summary.itertuples(), cycle(LINES), strict=False):
            curve = long.curves[long.curves["config"] == row.config]
            if curve.empty:
                axes.plot([], [], color=LEFT_OUT_COLOUR, label=f"{row.config} ({row.statuses})")
                continue
            _draw_curve(axes, curve, label=f"{row.config}: long run", **style)
            _draw_smoke_level(axes, smoke, row.config, style["color"])
        _finish_curve_axes(axes, f"Long run of the winner, {selection.winner.name}")
        _legend_below(figure, axes)
    return figure


# --- parts ------------------------------------------------------------------------------------


def figure_with_axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _draw_curve(axes: Axes, curve: pd.DataFrame, label: str, color: str, linestyle: str) -> None:
    frames = curve["frames"].to_numpy(dtype=float)
    # A single iteration has no line; a marker makes it visible.
    marker = "o" if len(curve) == 1 else None
    axes.plot(frames, curve["mean"], label=label, color=color, linestyle=linestyle, marker=marker)
    axes.fill_between(frames, curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)


def _draw_smoke_level(axes: Axes, smoke: Tables, config: str, color: str) -> None:
    """Draw the final training return of the smoke.

    The smoke's evaluation return cannot be compared with the curve: the evaluation takes the most
    likely actions, while training samples them.
    """
    curve = smoke.curves[smoke.curves["config"] == config]
    if curve.empty:
        return
    level, end = curve["mean"].iloc[-1], int(curve["frames"].iloc[-1])
    dotted: dict[str, Any] = {"color": color, "linestyle": ":", "linewidth": 1}
    axes.axhline(level, **dotted)
    label = f"{config}: end of the smoke ({level:.4g})"
    axes.plot(end, level, marker="D", label=label, **dotted)


def _finish_curve_axes(axes: Axes, title: str) -> None:
    axes.set_xlabel("environment frames")
    axes.set_ylabel("training return (reward per episode)")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left")
    if not any(np.size(line.get_xdata()) for line in axes.lines):
        axes.text(0.5, 0.5, "no completed run", transform=axes.transAxes, ha="center")


def _describe_band(curves: pd.DataFrame) -> str:
    seeds = curves["seeds"].max() if len(curves) else 0
    if seeds < 2:
        return ""
    if seeds <= RANGE_SEEDS:
        return "; band: their range"
    return f"; band: bootstrap {CONFIDENCE:.0%} interval of the mean"


def _tick_labels(candidates: Sequence[RankedCandidate]) -> list[str]:
    """Return the names, with the frames of each if the candidates trained for different lengths."""
    is_one_length = len({candidate.frames for candidate in candidates}) == 1
    return [
        "\n= ".join(each.names) + ("" if is_one_length else f"\n{each.frames:,} frames")
        for each in candidates
    ]


def _draw_candidate(axes: Axes, candidate: RankedCandidate) -> None:
    is_winner = candidate.rank == 1
    colour = LEFT_OUT_COLOUR if not candidate.eligible else PALETTE[1] if is_winner else PALETTE[0]
    seeds, row = list(candidate.values.values()), candidate.rank + SEED_OFFSET
    hollow: dict[str, Any] = {"markersize": 4, "markerfacecolor": "none", "markeredgecolor": colour}
    axes.plot(seeds, [row] * len(seeds), linestyle="none", marker="o", **hollow)
    if candidate.interval is not None:
        axes.plot(candidate.interval, [candidate.rank] * 2, color=colour, linewidth=2)
    if candidate.score is not None:
        point = candidate.score, candidate.rank
        marker, size = ("*", 13) if is_winner else ("o", 7)
        axes.plot(*point, color=colour, marker=marker, markersize=size)
        above: dict[str, Any] = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{candidate.score:.4g}", point, color=colour, fontsize="x-small", **above)
    if not candidate.eligible:
        axes.text(
            0.01,
            candidate.rank + (REASON_OFFSET if candidate.values else 0),
            textwrap.shorten(candidate.why, REASON_LENGTH, placeholder=" ..."),
            transform=axes.get_yaxis_transform(),
            color=LEFT_OUT_COLOUR,
            fontsize="x-small",
            va="center",
            clip_on=True,
            in_layout=False,
        )


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 1 if max(map(len, labels)) > 45 else 2
        figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def _selection_legend(figure: Figure, seeds: int) -> None:
    interval = "range of the seeds" if seeds <= RANGE_SEEDS else f"{CONFIDENCE:.0%} interval"
    none: dict[str, Any] = {"linestyle": "none"}
    marks = [
        legend_mark("winner", PALETTE[1], marker="*", markersize=13, **none),
        legend_mark("eligible", PALETTE[0], marker="o", markersize=7, **none),
        legend_mark("left out", LEFT_OUT_COLOUR, marker="o", markersize=7, **none),
        legend_mark("one seed", "black", marker="o", markersize=4, markerfacecolor="none", **none),
        legend_mark(interval, "black", linewidth=2),
    ]
    figure.legend(handles=marks, loc="outside lower left", ncols=len(marks))


def legend_mark(label: str, colour: str, **style: Any) -> Line2D:
    """Return a line or marker that appears only in the legend."""
    return Line2D([], [], color=colour, label=label, **style)
