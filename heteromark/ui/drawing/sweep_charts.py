"""Charts of a sweep: the ranking, the hyperparameters, the rank check."""

from __future__ import annotations

import functools

import altair as alt
import pandas as pd

from heteromark.ui.drawing.charts import HEIGHT
from heteromark.workflow.colours import LEFT_OUT_COLOUR, PALETTE
from heteromark.workflow.rank_check import RankCheck
from heteromark.workflow.select import Selection
from heteromark.workflow.words import words

# Colour and shape per standing, as in the workflow's plots.
STANDINGS = {
    "winner": (PALETTE[1], "diamond"),
    "eligible": (PALETTE[0], "circle"),
    "left out": (LEFT_OUT_COLOUR, "cross"),
}
ROW_HEIGHT = 34
MAX_ROWS = 40  # the table shows all candidates
NUMBER = ",.4~g"
CONFIG_TOOLTIP = alt.Tooltip("label:N", title="config")
# Minimum distance between labels on one axis, as a share of its length.
LABEL_DISTANCE = 0.07


def ranking_chart(selection: Selection) -> alt.LayerChart:
    """Draw one row per candidate, by rank: score, interval, and the value of each seed.

    Only the first `MAX_ROWS` candidates are drawn.
    """
    rows, seeds = [], []
    for candidate in selection.candidates[:MAX_ROWS]:
        standing = (
            "winner" if candidate.rank == 1 else "eligible" if candidate.eligible else "left out"
        )
        label = {"label": f"{candidate.rank}. {candidate.label}", "standing": standing}
        low, high = candidate.interval or (None, None)
        rows.append({**label, "score": candidate.score, "low": low, "high": high})
        seeds += [
            {**label, "seed": seed, "value": value} for seed, value in candidate.values.items()
        ]
    data = pd.DataFrame(rows)
    order = list(data["label"])
    axis = alt.Axis(labelLimit=400, labelOverlap=False, grid=True)
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    colours, shapes = (
        alt.Scale(domain=[*STANDINGS], range=marks)
        for marks in zip(*STANDINGS.values(), strict=True)
    )
    y = alt.Y("label:N", sort=order, title=None, axis=axis, scale=alt.Scale(domain=order))
    colour = alt.Color("standing:N", scale=colours, legend=legend)
    title = f"{selection.settings.statistic} of {words(selection.settings.metric)}"
    interval = alt.Chart(data).transform_filter("isValid(datum.low)")
    interval = interval.mark_rule(strokeWidth=3, opacity=0.45)
    score = alt.Chart(data).transform_filter("isValid(datum.score)")
    score = score.mark_point(filled=True, size=130, opacity=1)
    x = alt.X("score:Q", title=title, axis=alt.Axis(tickCount=8), scale=alt.Scale(zero=False))
    layers = [
        interval.encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=colour),
        score.encode(
            x=x,
            y=y,
            color=colour,
            shape=alt.Shape("standing:N", scale=shapes, legend=legend),
            tooltip=[
                CONFIG_TOOLTIP,
                alt.Tooltip("score:Q", format=NUMBER),
                alt.Tooltip("low:Q", title="from", format=NUMBER),
                alt.Tooltip("high:Q", title="to", format=NUMBER),
            ],
        ),
    ]
    if seeds:
        ticks = alt.Chart(pd.DataFrame(seeds)).mark_tick(thickness=1.5, size=15, opacity=0.9)
        tooltip = [CONFIG_TOOLTIP, "seed:Q", alt.Tooltip("value:Q", format=NUMBER)]
        layers.append(ticks.encode(x="value:Q", y=y, color=colour, tooltip=tooltip))
    return alt.LayerChart(layer=layers).properties(height=120 + ROW_HEIGHT * len(data))


def parallel_coordinates(data: pd.DataFrame) -> alt.LayerChart:
    """Draw one line per candidate through its hyperparameters to its score.

    Args:
        data: result of `candidates.coordinates`, not empty.
    """
    scores = data.drop_duplicates("label").assign(key="score")
    low, high = scores["score"].min(), scores["score"].max()
    scores["position"] = (scores["score"] - low) / (high - low) if high > low else 0.5
    scores["value"] = scores["score"].map("{:.4g}".format)
    data = pd.concat([data, scores])
    axes = list(dict.fromkeys(data["key"]))
    labels = alt.Axis(orient="top", labelAngle=0, labelLimit=220, labelFontWeight="bold", grid=True)
    points = alt.Scale(type="point", padding=0.35)
    x = alt.X("key:N", sort=axes, title=None, axis=labels, scale=points)
    y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[-0.08, 1.08]))
    colours = alt.Scale(range=[PALETTE[4], PALETTE[0]], interpolate="lab")
    legend = alt.Legend(title="score", orient="right", gradientLength=180)
    lines = alt.Chart(data).mark_line(opacity=0.85)
    lines = lines.encode(
        x=x,
        y=y,
        detail="label:N",
        color=alt.Color("score:Q", scale=colours, legend=legend),
        strokeWidth=alt.condition("datum.rank == 1", alt.value(4), alt.value(1.8)),
        tooltip=[CONFIG_TOOLTIP, "rank:Q", alt.Tooltip("score:Q", format=NUMBER)],
    )
    values = data.drop_duplicates(["key", "value"])
    labelled = pd.concat([_spaced(group) for _, group in values.groupby("key", sort=False)])
    text = alt.Chart(labelled).encode(x=x, y=y, text="value:N")
    mark = functools.partial(text.mark_text, align="left", dx=6, dy=-9, fontSize=12)
    halo = mark(stroke="white", strokeWidth=3, strokeOpacity=0.8)
    text = mark(color="#1F2937")
    return alt.LayerChart(layer=[lines, halo, text]).properties(height=HEIGHT + 110)


def _spaced(values: pd.DataFrame) -> pd.DataFrame:
    """Return the values whose labels do not overlap, starting at the top."""
    kept: list[int] = []
    ordered = values.sort_values("position", ascending=False)
    positions = ordered["position"].tolist()
    for row, position in enumerate(positions):
        if not kept or positions[kept[-1]] - position >= LABEL_DISTANCE:
            kept.append(row)
    return ordered.iloc[kept]


def rank_check_chart(check: RankCheck) -> alt.LayerChart:
    """Draw the scores of the smoke and the long run, one line per config that has a long run."""
    data = pd.DataFrame(
        [
            {"config": run.config, "when": when, "score": score}
            for run in check.runs
            for when, score in (("smoke", run.smoke), ("long run", run.long))
            if score is not None
        ],
        columns=["config", "when", "score"],
    )
    when = alt.X("when:N", sort=["smoke", "long run"], title=None, axis=alt.Axis(labelAngle=0))
    legend = alt.Legend(title=None, orient="bottom", labelLimit=500, columns=1)
    base = alt.Chart(data).encode(
        x=when.scale(type="point", padding=0.4),
        y=alt.Y("score:Q", title="score", scale=alt.Scale(zero=False)),
        color=alt.Color("config:N", scale=alt.Scale(range=list(PALETTE)), legend=legend),
        tooltip=["config:N", "when:N", alt.Tooltip("score:Q", format=NUMBER)],
    )
    line = base.mark_line(strokeWidth=2)
    points = base.mark_point(filled=True, size=90, opacity=1)
    return alt.LayerChart(layer=[line, points]).properties(height=HEIGHT + 40)
