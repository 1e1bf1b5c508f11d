"""/compare?config=…&run=…: learning curves and hyperparameters of any configs and runs."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd
import streamlit as st
from streamlit.column_config import NumberColumn, TextColumn

from heteromark.config.errors import ConfigError
from heteromark.runs.record import Status
from heteromark.ui.data.across import across_table, compare_across, profiles
from heteromark.ui.data.configs import ConfigRuns, configs_of, differences, resolved_config
from heteromark.ui.data.history import HistoryRun
from heteromark.ui.data.metrics import band_of, line_of, metric_names
from heteromark.ui.data.signs import KIND_OF_VERDICT, stability_of
from heteromark.ui.drawing import html as text
from heteromark.ui.drawing.charts import COUNTERS, comparison_chart, profile_chart, title_of
from heteromark.ui.drawing.style import LineStyle, styles_of
from heteromark.ui.navigation import (
    REFRESH_SECONDS,
    TRAINING,
    choose,
    choose_axis,
    choose_one,
    history,
    link,
    metrics_of,
)
from heteromark.workflow.statistics import CONFIDENCE, bootstrap_interval, score
from heteromark.workflow.words import counted

DEFAULT_METRIC = "episode_return"


def show() -> None:
    """Draw the page."""
    st.html(text.heading("Compare"))
    runs = history().runs()
    configs, singles = ({entry.digest: entry for entry in group} for group in _candidates(runs))
    if not configs:
        st.info("No runs to compare yet. The list explains how to train.")
        link(TRAINING, "All runs")
        return
    chosen = choose(
        "Configs (mean over seeds)",
        "config",
        list(configs),
        lambda digest: f"{configs[digest].label} ({counted(len(configs[digest].runs), 'run')})",
        "choose configs",
    ) + choose("Single runs", "run", list(singles), lambda key: singles[key].label, "choose runs")
    if not chosen:
        st.info("Choose configs or runs above, or select rows in the list.")
        link(TRAINING, "All runs")
        return
    is_live = any(
        run.status == Status.RUNNING
        for digest, entry in (configs | singles).items()
        if digest in chosen
        for run in entry.runs
    )
    st.fragment(_draw, run_every=REFRESH_SECONDS if is_live else None)(chosen)


def _candidates(runs: Sequence[HistoryRun]) -> tuple[list[ConfigRuns], list[ConfigRuns]]:
    """Return all configs, and all single runs as configs with one run; new entries come last."""
    configs = configs_of(runs)
    singles = [
        ConfigRuns(run.key, f"{config.label}, seed {record.seed}, {run.key[:6]}", (run,))
        for config in configs
        for run in config.runs
        if (record := run.record)
    ]
    return configs, singles


def _draw(chosen: Sequence[str]) -> None:
    configs, singles = _candidates(history().runs())
    candidates = configs + singles
    entries = [entry for entry in candidates if entry.digest in chosen]
    if not entries:
        st.rerun()  # the runs were removed while the page was open
    tables = {run.key: metrics_of(run)[0] for entry in entries for run in entry.runs}
    by_digest = styles_of(chosen, [entry.digest for entry in candidates])
    styles = {entry.label: by_digest[entry.digest] for entry in entries}
    _curves(entries, tables, styles)
    _results(entries, tables)
    _environments([run for entry in entries for run in entry.runs])
    _hyperparameters(entries)


def _curves(
    entries: Sequence[ConfigRuns], tables: dict[str, pd.DataFrame], styles: dict[str, LineStyle]
) -> None:
    measured = dict.fromkeys(
        name for table in tables.values() for name in metric_names(table) if name not in COUNTERS
    )
    if not measured:
        st.info("No metrics yet.")
        return
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    metrics = sorted(measured, key=lambda name: name != DEFAULT_METRIC)
    language_models = all(run.is_language_model_run for entry in entries for run in entry.runs)
    with left:
        label_of = functools.partial(title_of, language_models=language_models)
        metric = choose_one("Metric", "metric", metrics, label_of)
    with right:
        axis = choose_axis()
    bands = []
    for entry in entries:
        lines = [line_of(tables[run.key], metric, axis) for run in entry.runs]
        bands.append(band_of(lines).assign(label=entry.label))
    data = pd.concat(bands, ignore_index=True)
    if data.empty:
        st.info("This metric has no values yet.")
        return
    shown = {label: style for label, style in styles.items() if label in set(data["label"])}
    st.altair_chart(comparison_chart(data, shown, metric, axis), width="stretch")
    if missing := [label for label in styles if label not in shown]:
        st.caption(f"Without this metric: {', '.join(map(text.literal, missing))}.")
    if data["seeds"].max() > 1:
        st.caption(
            f"Lines: mean over the seeds. Bands: bootstrap {CONFIDENCE:.0%} interval of the mean; "
            "with two or three seeds, their range. Beyond the end of a shorter run, the mean is "
            "over the remaining seeds. Metrics with groups are averaged over the groups."
        )


def _results(entries: Sequence[ConfigRuns], tables: dict[str, pd.DataFrame]) -> None:
    st.subheader("Results")
    table = pd.DataFrame([_result(entry, tables) for entry in entries])
    table = table.sort_values("iqm", ascending=False, na_position="last")
    st.dataframe(
        table.drop(columns=["kind", "why"]),
        hide_index=True,
        placeholder="",
        column_config={
            "label": TextColumn("Config or run", width=300),
            "statuses": "Runs",
            "iqm": NumberColumn(
                "Evaluation return (IQM)",
                format="%.2f",
                help="Interquartile mean over the completed seeds; with up to three, their mean.",
            ),
            "low": NumberColumn("95 % from", format="%.2f"),
            "high": NumberColumn("to", format="%.2f"),
            "win_rate": NumberColumn("Win rate", format="%.1f %%"),
            "verdict": TextColumn("Verdict", help="Stability of the training returns over seeds."),
        },
    )
    words = [(row.kind, f"{row.label}: {row.verdict}: {row.why}") for row in table.itertuples()]
    st.html(text.list_card("Stability of the learning curves", words))


def _result(entry: ConfigRuns, tables: dict[str, pd.DataFrame]) -> dict[str, object]:
    completed = [run for run in entry.runs if run.status == Status.COMPLETED]
    returns = _measured(completed, "evaluation_return")
    wins = _measured(completed, "evaluation_win_rate")
    interval = bootstrap_interval(returns, "iqm")
    stability = stability_of(entry.runs, [tables[run.key] for run in entry.runs])
    counts = Counter(run.status for run in entry.runs)
    return {
        "label": entry.label,
        "statuses": ", ".join(f"{status} {count}" for status, count in sorted(counts.items())),
        "iqm": score(returns, "iqm"),
        "low": interval and interval.low,
        "high": interval and interval.high,
        "win_rate": 100 * sum(wins) / len(wins) if wins else None,
        "verdict": stability.verdict.value,
        "kind": KIND_OF_VERDICT[stability.verdict],
        "why": stability.reason,
    }


def _measured(runs: Sequence[HistoryRun], name: str) -> list[float]:
    """Return a value of the run summaries, for the runs that have it."""
    values = [getattr(run.record.summary, name) for run in runs if run.record]
    return [value for value in values if value is not None and math.isfinite(value)]


def _environments(runs: Sequence[HistoryRun]) -> None:
    """Draw one comparison over all environments, if the runs have several."""
    names = sorted({run.record.environment for run in runs if run.record})
    if len(names) < 2:
        return
    st.subheader("Over all environments")
    st.warning(
        "Returns of different environments are not comparable: "
        f"{', '.join(map(text.literal, names))}. Below they are normalised."
    )
    found = compare_across(runs)
    for why in found.left_out:
        st.warning(f"Left out: {text.literal(why)}")
    if len(found.environments) < 2 or not found.scores:
        st.caption("Choose configs with completed runs of the same agents in each environment.")
        return
    st.dataframe(
        across_table(found),
        hide_index=True,
        placeholder="",
        column_config={
            "agent": TextColumn("Agent", width=250),
            "iqm": NumberColumn(
                "Normalised score (IQM)",
                format="%.3f",
                help="Interquartile mean over seeds and environments.",
            ),
            "low": NumberColumn("95 % from", format="%.3f"),
            "high": NumberColumn("to", format="%.3f"),
            "seeds": NumberColumn("Seeds"),
            "beaten": NumberColumn(
                "P(best better)",
                format="%.2f",
                help="Probability that a run of the best agent scores higher than a run of this "
                "agent in the same environment, averaged over environments.",
            ),
            "beaten_low": NumberColumn("95 % from", format="%.2f"),
            "beaten_high": NumberColumn("to", format="%.2f"),
        },
    )
    agents = list(found.scores)
    st.altair_chart(profile_chart(profiles(found), styles_of(agents, sorted(agents))))
    st.caption(
        f"Environments: {', '.join(map(text.literal, found.environments))}. In each, 0 is the "
        "lowest and 1 the highest evaluation return of the chosen runs, so the scores depend on "
        "the choice. Only seeds completed in every environment count. Intervals: bootstrap over "
        "seeds, within each environment."
    )


def _hyperparameters(entries: Sequence[ConfigRuns]) -> None:
    st.subheader("Hyperparameters that differ")
    configs = {}
    for entry in entries:
        try:
            configs[entry.label] = resolved_config(entry.runs[0])
        except ConfigError as error:
            st.warning(f"Left out of this table: {text.literal(str(error))}")
    if len(configs) < 2:
        st.caption("Choose a second config to see the differences.")
        return
    found = differences(configs)
    if found.table.empty:
        st.caption("None. The runs differ in their seeds or in the code that trained them.")
        return
    st.dataframe(found.table.reset_index(names="config"), hide_index=True)
    if found.aliases:
        aliases = "; ".join(
            f"{text.literal(', '.join(keys))} (same as {text.literal(key)})"
            for key, keys in found.aliases.items()
        )
        st.caption(f"Not shown because the values are the same: {aliases}.")
