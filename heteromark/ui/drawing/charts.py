"""Charts of runs and configs. Data is embedded; names and labels are drawn as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from heteromark.ui.data.files import Evaluation
from heteromark.ui.data.metrics import COLUMN_OF_AXIS, Axis, columns_of, thinned
from heteromark.ui.drawing.style import DASHES, LineStyle
from heteromark.workflow.colours import PALETTE

HEIGHT = 230
TALL = 420

# Titles and units of the columns of metrics.csv.
TITLES = {
    "episode_return": "Training return (reward per episode)",
    "evaluation_return": "Evaluation return (reward per episode)",
    "win_rate": "Win rate in training",
    "evaluation_win_rate": "Win rate in evaluations",
    "loss_objective": "Policy loss",
    "loss_critic": "Critic loss",
    "entropy": "Entropy (nats)",
    "kl_approx": "KL divergence per update (nats)",
    "clip_fraction": "Clip fraction",
    "explained_variance": "Explained variance of the critic",
    "frames_per_second": "Frames per second",
    "episode_length": "Episode length (frames)",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "factor_mean": "Mean factor of the sequential update",
    "episodes": "Episodes per iteration",
    "pass_at_1": "pass@1 (solved in one attempt)",
    "reward": "Reward of a response",
    "response_length": "Response length (tokens)",
    "cut_off": "Responses cut off",
    "flat_share": "Zero-std groups (all rewards equal)",
    "kl_reference": "KL from the initial model (nats per token)",
    "loss_kl": "KL penalty",
    "best_wording": "Best wording (its index)",
    "ratio_max": "Largest probability ratio of a token",
}
# Titles that replace these if all runs are of language models.
LANGUAGE_TITLES = {
    "episode_return": "Training return (reward per trajectory)",
    "evaluation_return": "Evaluation return (reward per pass)",
    "win_rate": "Solve rate in training",
    "evaluation_win_rate": "Solve rate in evaluations",
    "kl_approx": "KL divergence per update (nats per token)",
    "episode_length": "Rounds per trajectory",
    "episodes": "Trajectories per iteration",
}
# Drawn as x axes, not as curves.
COUNTERS = frozenset({"iteration", *COLUMN_OF_AXIS.values()})

_SHARES = frozenset(
    {"win_rate", "evaluation_win_rate", "clip_fraction", "pass_at_1", "flat_share", "cut_off"}
)


def title_of(metric: str, language_models: bool = False) -> str:
    """Return the title of a metric; unknown metrics get their column name in words."""
    known = TITLES | LANGUAGE_TITLES if language_models else TITLES
    return known.get(metric, metric.replace("_", " ").capitalize())


def run_chart(
    table: pd.DataFrame, metric: str, axis: Axis, language_models: bool = False
) -> alt.LayerChart | None:
    """Draw a metric of one run, one line per group; None if nothing was measured."""
    title = title_of(metric, language_models)
    if COLUMN_OF_AXIS[axis] not in table:
        return None
    measured = [pd.DataFrame()]
    for group, column in columns_of(table, metric).items():
        x, y = thinned(table[COLUMN_OF_AXIS[axis]].to_numpy(), table[column].to_numpy())
        measured.append(pd.DataFrame({"x": x, "y": y, "label": group or title}))
    data = pd.concat(measured)
    if data.empty:
        return None
    unit, per_unit = _unit_of(axis, data["x"].max())
    data["x"] /= per_unit
    labels = list(dict.fromkeys(data["label"]))
    styles = {
        label: LineStyle(PALETTE[index % len(PALETTE)], DASHES[index % len(DASHES)])
        for index, label in enumerate(labels)
    }
    lines = alt.Chart(data).mark_line(strokeWidth=1.8, point=len(data) <= len(labels))
    lines = lines.encode(
        x=_x(axis, None if axis == "frames" else unit),
        y=_y(metric),
        **_style_encodings(styles, legend=len(labels) > 1),
    )
    return alt.LayerChart(layer=[lines, _hover_points(data, axis, metric)]).properties(
        height=HEIGHT, title=title
    )


def comparison_chart(
    data: pd.DataFrame, styles: Mapping[str, LineStyle], metric: str, axis: Axis
) -> alt.LayerChart:
    """Draw mean curves with interval bands.

    Args:
        data: columns label, x, mean, low, high, seeds.
        styles: label -> style.
    """
    unit, per_unit = _unit_of(axis, data["x"].max())
    data = data.assign(x=data["x"] / per_unit, y=data["mean"])
    base = alt.Chart(data).encode(x=_x(axis, unit))
    encodings = _style_encodings(styles, legend=True)
    line = base.mark_line(strokeWidth=2).encode(y=_y(metric), **encodings)
    layers = [line, _hover_points(data, axis, metric, banded=True)]
    if data["low"].notna().any():
        band = base.mark_area(opacity=0.18).encode(
            y=alt.Y("low:Q", title=None), y2="high:Q", color=encodings["color"]
        )
        layers.insert(0, band)
    return alt.LayerChart(layer=layers).properties(height=TALL)


def profile_chart(data: pd.DataFrame, styles: Mapping[str, LineStyle]) -> alt.LayerChart:
    """Draw performance profiles with interval bands.

    Args:
        data: columns label, threshold, share, low, high.
        styles: label -> style.
    """
    encodings = _style_encodings(styles, legend=True)
    base = alt.Chart(data).encode(
        x=alt.X("threshold:Q", title="normalised score", axis=alt.Axis(tickCount=6))
    )
    share = alt.Axis(format="~%", tickCount=5)
    line = base.mark_line(strokeWidth=2, interpolate="step-after").encode(
        y=alt.Y("share:Q", title="share of runs with a higher score", axis=share),
        tooltip=[
            alt.Tooltip("label:N", title="agent"),
            alt.Tooltip("threshold:Q", title="score", format=".2f"),
            alt.Tooltip("share:Q", title="runs above", format=".0%"),
        ],
        **encodings,
    )
    band = base.mark_area(opacity=0.15, interpolate="step-after").encode(
        y=alt.Y("low:Q", title=None), y2="high:Q", color=encodings["color"]
    )
    return alt.LayerChart(layer=[band, line]).properties(height=HEIGHT + 60)


def evaluation_histogram(
    evaluation: Evaluation,
    noun: str = "episodes",
    measure: str = "return of an episode",
    success: str = "won",
) -> alt.LayerChart:
    """Draw a histogram of episode returns, coloured by outcome if known, with a line at the mean.

    Args:
        noun, measure, success: words for episodes, their returns, and won episodes.
    """
    returns, wins = evaluation.returns, evaluation.wins
    outcome = [noun] * len(returns)
    if wins is not None:
        outcome = [success if won else f"not {success}" for won in wins]
    data = pd.DataFrame({"episode_return": returns, "outcome": outcome})
    styles = {success: PALETTE[2], f"not {success}": PALETTE[4], noun: PALETTE[0]}
    shown = [name for name in styles if name in set(outcome)]
    number = alt.Axis(format="~g", labelOverlap="greedy", labelSeparation=12)
    legend = None if wins is None else alt.Legend(title=None, orient="top")
    colours = alt.Scale(domain=shown, range=[styles[name] for name in shown])
    bars = alt.Chart(data).mark_bar(stroke="white", strokeWidth=1)
    bars = bars.encode(
        x=alt.X("episode_return:Q", bin=alt.Bin(maxbins=30), title=measure, axis=number),
        y=alt.Y("count():Q", title=noun, axis=alt.Axis(tickMinStep=1)),
        color=alt.Color("outcome:N", scale=colours, legend=legend),
        tooltip=[
            alt.Tooltip("episode_return:Q", bin=True, title="return"),
            alt.Tooltip("count():Q", title=noun),
            alt.Tooltip("outcome:N", title="outcome"),
        ],
    )
    mean = pd.DataFrame({"mean": [float(np.mean(returns))]})
    rule = alt.Chart(mean).mark_rule(strokeWidth=2, strokeDash=[5, 3], color="black")
    rule = rule.encode(
        x="mean:Q", tooltip=alt.Tooltip("mean:Q", format=",.2f", title="mean return")
    )
    return alt.LayerChart(layer=[bars, rule]).properties(height=HEIGHT)


def solved_histogram(solved_passes: Sequence[int], passes: int) -> alt.Chart:
    """Draw a histogram of problems by the number of passes that solved them."""
    counts = Counter(solved_passes)
    data = pd.DataFrame(
        {"solved": range(passes + 1), "problems": [counts[n] for n in range(passes + 1)]}
    )
    bars = alt.Chart(data, height=HEIGHT).mark_bar(color=PALETTE[0])
    return bars.encode(
        x=alt.X("solved:O", title=f"passes that solved the problem (of {passes})").axis(
            labelAngle=0
        ),
        y=alt.Y("problems:Q", title="problems", axis=alt.Axis(tickMinStep=1)),
        tooltip=[
            alt.Tooltip("solved:O", title="passes that solved the problem"),
            alt.Tooltip("problems:Q", title="problems"),
        ],
    )


# --- parts ------------------------------------------------------------------------------------


def _unit_of(axis: Axis, largest: float) -> tuple[str, float]:
    """Return the title of the x axis, and the divisor of its values."""
    if axis == "frames":
        return "environment frames", 1
    if largest > 3 * 3600:
        return "hours of training", 3600
    return ("minutes of training", 60) if largest > 180 else ("seconds of training", 1)


def _x(axis: Axis, title: str | None) -> alt.X:
    # 40k, 300k, 1M
    number = alt.Axis(format="~s", tickCount=6) if axis == "frames" else alt.Axis(tickCount=6)
    return alt.X("x:Q", title=title, axis=number, scale=alt.Scale(nice=False))


def _y(metric: str) -> alt.Y:
    if metric in _SHARES:
        return alt.Y("y:Q", title=None, axis=alt.Axis(format="~%", tickCount=5))
    return alt.Y("y:Q", title=None, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=False))


def _style_encodings(
    styles: Mapping[str, LineStyle], legend: bool
) -> dict[str, alt.Color | alt.StrokeDash]:
    appearance = alt.Legend(
        title=None,
        orient="bottom",
        columns=1 if max(map(len, styles)) > 45 else 3,
        labelLimit=600,
        symbolType="stroke",
        symbolSize=500,
        symbolStrokeWidth=2.5,
        symbolOpacity=1,
    )
    shown_legend = appearance if legend else None
    colours = alt.Scale(domain=[*styles], range=[style.colour for style in styles.values()])
    dashes = alt.Scale(domain=[*styles], range=[[*style.dash] for style in styles.values()])
    return {
        "color": alt.Color("label:N", scale=colours, legend=shown_legend),
        "strokeDash": alt.StrokeDash("label:N", scale=dashes, legend=shown_legend),
    }


def _hover_points(data: pd.DataFrame, axis: Axis, metric: str, banded: bool = False) -> alt.Chart:
    """Draw invisible points that show their values in a tooltip."""
    number = ".1%" if metric in _SHARES else ",.4~g"
    tooltips = [
        alt.Tooltip("label:N", title="line"),
        alt.Tooltip("x:Q", title=axis, format=",.0f" if axis == "frames" else ",.2f"),
        alt.Tooltip("y:Q", title="mean over seeds" if banded else "value", format=number),
    ]
    if banded:
        tooltips += [
            alt.Tooltip("low:Q", title="from", format=number),
            alt.Tooltip("high:Q", title="to", format=number),
            alt.Tooltip("seeds:Q", title="seeds"),
        ]
    points = alt.Chart(data).mark_point(opacity=0, size=60, filled=True)
    return points.encode(x="x:Q", y="y:Q", tooltip=tooltips)
