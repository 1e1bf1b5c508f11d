"""The charts of a sweep: the ranking, its hyperparameters, and whether the smoke was right."""

from __future__ import annotations

import altair as alt
import pandas as pd

from heteromark.ui.drawing.charts import HEIGHT
from heteromark.workflow.colours import LEFT_OUT_COLOUR, PALETTE
from heteromark.workflow.rank_check import RankCheck
from heteromark.workflow.select import Selection

# As in the workflow's plots: the winner stands out in colour and shape.
STANDINGS = {
    "winner": (PALETTE[1], "diamond"),
    "eligible": (PALETTE[0], "circle"),
    "left out": (LEFT_OUT_COLOUR, "cross"),
}
ROW_HEIGHT = 34
# Of more candidates, those of lower rank are left to the table.
MOST_ROWS = 40
# Between labels of one axis, as a share of its length.
LABEL_DISTANCE = 0.07


def ranking_chart(selection: Selection) -> alt.LayerChart:
    """A row per candidate, by rank: score, its interval, and the value of each seed.

    Beyond `MOST_ROWS` candidates, the first of them.
    """
    rows, seeds = [], []
    for candidate in selection.candidates[:MOST_ROWS]:
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
    y = alt.Y(
        "label:N",
        sort=list(data["label"]),
        title=None,
        axis=alt.Axis(labelLimit=400, labelOverlap=False, grid=True),
        scale=alt.Scale(domain=list(data["label"])),
    )
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    title = f"{selection.settings.statistic} of {selection.settings.metric.replace('_', ' ')}"
    colour = alt.Color(
        "standing:N",
        scale=alt.Scale(domain=list(STANDINGS), range=[colour for colour, _ in STANDINGS.values()]),
        legend=legend,
    )
    shape = alt.Shape(
        "standing:N",
        scale=alt.Scale(domain=list(STANDINGS), range=[shape for _, shape in STANDINGS.values()]),
        legend=legend,
    )
    interval = (
        alt.Chart(data)
        .transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=3, opacity=0.45)
        .encode(y=y, x=alt.X("low:Q", title=title), x2="high:Q", color=colour)
    )
    score = (
        alt.Chart(data)
        .transform_filter("isValid(datum.score)")
        .mark_point(filled=True, size=130, opacity=1)
        .encode(
            y=y,
            x=alt.X(
                "score:Q",
                title=title,
                axis=alt.Axis(tickCount=8),
                scale=alt.Scale(zero=False),
            ),
            color=colour,
            shape=shape,
            tooltip=[
                alt.Tooltip("label:N", title="config"),
                alt.Tooltip("score:Q", format=",.4~g"),
                alt.Tooltip("low:Q", title="from", format=",.4~g"),
                alt.Tooltip("high:Q", title="to", format=",.4~g"),
            ],
        )
    )
    layers = [interval, score]
    if seeds:
        layers.append(
            alt.Chart(pd.DataFrame(seeds))
            .mark_tick(thickness=1.5, size=15, opacity=0.9)
            .encode(
                y=y,
                x="value:Q",
                color=colour,
                tooltip=[
                    alt.Tooltip("label:N", title="config"),
                    alt.Tooltip("seed:Q"),
                    alt.Tooltip("value:Q", format=",.4~g"),
                ],
            )
        )
    return alt.layer(*layers).properties(height=120 + ROW_HEIGHT * len(data))


def parallel_coordinates(data: pd.DataFrame) -> alt.LayerChart:
    """A line per candidate through its hyperparameters to its score.

    Args:
        data: result of `sweep.coordinates`, not empty.
    """
    scores = data.drop_duplicates("label").assign(key="score")
    low, high = scores["score"].min(), scores["score"].max()
    scores["place"] = (scores["score"] - low) / (high - low) if high > low else 0.5
    scores["value"] = scores["score"].map("{:.4g}".format)
    data = pd.concat([data, scores])
    axes = list(dict.fromkeys(data["key"]))
    x = alt.X(
        "key:N",
        sort=axes,
        title=None,
        axis=alt.Axis(
            orient="top", labelAngle=0, labelLimit=220, labelFontWeight="bold", grid=True
        ),
        scale=alt.Scale(type="point", padding=0.35),
    )
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.08, 1.08]))
    lines = (
        alt.Chart(data)
        .mark_line(opacity=0.85)
        .encode(
            x=x,
            y=y,
            detail="label:N",
            color=alt.Color(
                "score:Q",
                scale=alt.Scale(range=[PALETTE[4], PALETTE[0]], interpolate="lab"),
                legend=alt.Legend(title="score", orient="right", gradientLength=180),
            ),
            strokeWidth=alt.condition("datum.rank == 1", alt.value(4), alt.value(1.8)),
            tooltip=[
                alt.Tooltip("label:N", title="config"),
                alt.Tooltip("rank:Q"),
                alt.Tooltip("score:Q", format=",.4~g"),
            ],
        )
    )
    values = data.drop_duplicates(["key", "value"])
    told = pd.concat([_some(group) for _, group in values.groupby("key", sort=False)])
    labels = (
        alt.Chart(told)
        .mark_text(
            align="left", dx=6, dy=-9, fontSize=12, stroke="white", strokeWidth=3, strokeOpacity=0.8
        )
        .encode(x=x, y=y, text="value:N")
    )
    text = (
        alt.Chart(told)
        .mark_text(align="left", dx=6, dy=-9, fontSize=12, color="#1F2937")
        .encode(x=x, y=y, text="value:N")
    )
    return alt.layer(lines, labels, text).properties(height=HEIGHT + 110)


def _some(values: pd.DataFrame) -> pd.DataFrame:
    """Values that can be told without covering each other, from the top."""
    kept: list[int] = []
    ordered = values.sort_values("place", ascending=False)
    places = ordered["place"].tolist()
    for row, place in enumerate(places):
        if not kept or places[kept[-1]] - place >= LABEL_DISTANCE:
            kept.append(row)
    return ordered.iloc[kept]


def rank_check_chart(check: RankCheck) -> alt.LayerChart:
    """Scores in the smoke and after the long run, a line per config that was trained long."""
    data = pd.DataFrame(
        [
            {"config": run.config, "when": when, "score": score, "place": place}
            for run in check.runs
            for place, (when, score) in enumerate((("smoke", run.smoke), ("long run", run.long)))
            if score is not None
        ],
        columns=["config", "when", "score", "place"],
    )
    base = alt.Chart(data).encode(
        x=alt.X(
            "when:N",
            sort=["smoke", "long run"],
            title=None,
            axis=alt.Axis(labelAngle=0),
            scale=alt.Scale(type="point", padding=0.4),
        ),
        y=alt.Y("score:Q", title="score", scale=alt.Scale(zero=False)),
        color=alt.Color(
            "config:N",
            scale=alt.Scale(range=list(PALETTE)),
            legend=alt.Legend(title=None, orient="bottom", labelLimit=500, columns=1),
        ),
        tooltip=["config:N", "when:N", alt.Tooltip("score:Q", format=",.4~g")],
    )
    return alt.layer(
        base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=90, opacity=1)
    ).properties(height=HEIGHT + 40)
