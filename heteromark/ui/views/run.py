"""/training_run?run=DIGEST: everything about one run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn

from heteromark.config.errors import ConfigError
from heteromark.runs.record import RunRecord
from heteromark.ui.data.configs import compare_with_base, resolved_config, value_text
from heteromark.ui.data.files import (
    checkpoints_of,
    evaluate_commands,
    evaluation_of,
    pictures_of,
    resume_command,
)
from heteromark.ui.data.history import HistoryRun
from heteromark.ui.data.listing import MARKS
from heteromark.ui.data.llm_config import language_fields
from heteromark.ui.data.llm_evaluation import text_evaluation_of
from heteromark.ui.data.metrics import Axis, columns_of, metric_names
from heteromark.ui.data.signs import Sign, signs_of
from heteromark.ui.drawing import html as text
from heteromark.ui.drawing.charts import COUNTERS, evaluation_histogram, run_chart
from heteromark.ui.navigation import (
    COMPARE,
    REFRESH_SECONDS,
    TRAINING,
    choose_axis,
    find_run,
    history,
    link,
    metrics_of,
)
from heteromark.ui.views.transcripts import show_evaluation

# Curves that are always shown; the other ones are under "More curves".
MAIN_METRICS = (
    "episode_return",
    "win_rate",
    "evaluation_return",
    "evaluation_win_rate",
    "loss_objective",
    "loss_critic",
    "entropy",
    "kl_approx",
    "clip_fraction",
    "explained_variance",
    "frames_per_second",
)
LANGUAGE_MAIN_METRICS = (
    "episode_return",
    "win_rate",
    "pass_at_1",
    "evaluation_return",
    "evaluation_win_rate",
    "reward",
    "response_length",
    "flat_share",
    "cut_off",
    "best_wording",
    "kl_reference",
    "kl_approx",
    "loss_objective",
    "clip_fraction",
    "grad_norm",
    "frames_per_second",
)
# With one optimizer step per iteration, these metrics are constant by definition.
CONSTANT = {"kl_approx": 0.0, "clip_fraction": 0.0, "ratio_max": 1.0}
CHARTS_PER_ROW = 3

# Label on the card -> key in the resolved config.
HYPERPARAMETERS = {
    "Learning rate": "agent.learning_rate",
    "Discount (gamma)": "agent.gamma",
    "Frames per update": "agent.n_steps",
    "Minibatch": "agent.batch_size",
    "Epochs": "agent.n_epochs",
    "Clip range": "agent.ppo.clip_range",
    "Entropy weight": "agent.ppo.ent_coef",
    "GAE lambda": "agent.ppo.gae_lambda",
    "Network": "agent.network.policy",
    "Hidden layers": "agent.network.net_arch",
    "Activation": "agent.network.activation_fn",
}


def show() -> None:
    """Draw the page."""
    key = st.query_params.get("run", "")
    run = find_run(history().runs(), key)
    if run is None:
        _show_missing_run(key)
        return
    if run.record is None:
        st.html(text.heading(run.name, small=str(run.folder)))
        signs = [("warning", f"the run record cannot be read: {run.reason}")]
        st.html(text.list_card("Signs", signs))
        st.caption(
            "`heteromark store verify` lists all damaged runs. The next command that needs this "
            "run moves it to the store's `quarantine/` and trains it again."
        )
        link(TRAINING, "All runs")
        return
    # An unfinished run may be resumed at any time.
    seconds = None if run.record.status.is_final else REFRESH_SECONDS
    st.fragment(_draw, run_every=seconds)(run.key)


def _show_missing_run(key: str) -> None:
    st.html(text.heading("Run"))
    if key:
        st.warning(
            f"No run {text.literal(key)}, or several digests start with it. The run may have been "
            "removed, or be in another run store."
        )
    else:
        st.info("Choose a run in the list, or add its digest to the address: `?run=DIGEST`.")
    link(TRAINING, "All runs")


def _draw(key: str) -> None:
    run = find_run(history().runs(), key)
    if run is None or run.record is None:
        st.rerun()  # the run was removed while the page was open
    table, error = metrics_of(run)
    record = run.record
    details = (
        f"{MARKS[run.status]} {run.status} · {record.environment} · {record.mode} · "
        f"seed {record.seed} · run {run.key}"
    )
    st.html(text.heading(record.agent.short_name, small=details))
    _links(record)
    try:
        config = resolved_config(run)
    except ConfigError:
        config = {}
    left, right = st.columns([3, 2])
    left.html(_figures(run, record))
    left.html(_config_card(run, record, config))
    signs = [*([Sign("warning", error)] if error else []), *signs_of(run, table)]
    right.html(text.list_card("Signs", [(sign.kind, sign.text) for sign in signs]))
    _curves(table, run.is_language_model_run)
    _evaluation(run, config)
    _checkpoints(run)
    _base(run)
    _record(run, record)


def _links(record: RunRecord) -> None:
    seeds = sum(other.config_digest == record.config_digest for other in history().runs())
    label = f"All {seeds} runs of this config" if seeds > 1 else "Compare with other configs"
    with st.container(horizontal=True):
        link(TRAINING, "All runs")
        link(COMPARE, label, config=record.config_digest)


def _figures(run: HistoryRun, record: RunRecord) -> str:
    summary = record.summary
    started = run.started
    frames = f"{run.frames:,}"
    if run.total_frames:
        frames += f" of {run.total_frames:,} ({run.frames / run.total_frames:.0%})"
    rate = "Solve rate" if run.is_language_model_run else "Win rate"
    figures = {
        "Evaluation return": text.number(summary.evaluation_return),
        rate: text.share(summary.evaluation_win_rate),
        "Training return": text.number(run.training_return),
    }
    if (best := summary.best_evaluation_return) is not None:
        figures["Best evaluation"] = f"{text.number(best)} (iteration {summary.best_iteration:,})"
    figures |= {
        "Frames": frames,
        "Frames/s": text.number(run.frames_per_second, 0),
        "Started": f"{started.astimezone():%Y-%m-%d %H:%M:%S}" if started else text.NOT_MEASURED,
        "Duration": text.duration(run.seconds),
    }
    return text.card("Results", figures)


def _config_card(run: HistoryRun, record: RunRecord, config: Mapping[str, Any]) -> str:
    agent = record.agent
    if run.is_language_model_run:
        hyperparameters = language_fields(config)
    else:
        known = {label: key for label, key in HYPERPARAMETERS.items() if key in config}
        hyperparameters = {label: value_text(config[key]) for label, key in known.items()}
    return text.card(
        "Config Summary",
        {
            "Name": agent.name or agent.short_name,
            "Version": str(agent.version),
            "Variant": agent.sweep_variant or "none (base config)",
            "Algorithm": agent.algorithm,
            **hyperparameters,
            "Config path": agent.config_path or text.NOT_MEASURED,
        },
    )


def _curves(table: pd.DataFrame, language_models: bool) -> None:
    st.subheader("Curves")
    if table.empty:
        st.info("No metrics yet: each iteration adds a row to metrics.csv.")
        return
    axis = choose_axis()
    measured = [
        name
        for name in metric_names(table)
        if name not in COUNTERS and not (language_models and _is_constant(table, name))
    ]
    main = LANGUAGE_MAIN_METRICS if language_models else MAIN_METRICS
    _grid(table, [name for name in main if name in measured], axis, language_models)
    if more := [name for name in measured if name not in main]:
        with st.expander("More curves"):
            _grid(table, more, axis, language_models)


def _is_constant(table: pd.DataFrame, metric: str) -> bool:
    values = table[list(columns_of(table, metric).values())].to_numpy()
    values = values[np.isfinite(values)]
    return metric in CONSTANT and bool((values == CONSTANT[metric]).all())


def _grid(table: pd.DataFrame, names: list[str], axis: Axis, language_models: bool) -> None:
    drawn = (run_chart(table, name, axis, language_models) for name in names)
    charts = [chart for chart in drawn if chart is not None]
    for start in range(0, len(charts), CHARTS_PER_ROW):
        columns = st.columns(CHARTS_PER_ROW)
        for column, chart in zip(columns, charts[start:], strict=False):
            column.altair_chart(chart, width="stretch")


def _evaluation(run: HistoryRun, config: Mapping[str, Any]) -> None:
    evaluation = evaluation_of(run)
    pictures = pictures_of(run)
    text_evaluation = text_evaluation_of(run)
    if evaluation is None and text_evaluation is None and not pictures:
        return
    st.subheader("Evaluation")
    if text_evaluation is not None:
        show_evaluation(text_evaluation, evaluation, config)
        return
    left, right = st.columns([2, 1])
    if evaluation is not None:
        returns = evaluation.returns
        chosen = "most likely actions" if evaluation.deterministic else "sampled actions"
        mean, spread = statistics.fmean(returns), statistics.pstdev(returns)
        left.caption(
            f"{len(returns):,} episodes with {chosen}: return {text.number(mean)} "
            f"± {text.number(spread)} (standard deviation); the dashed line is the mean."
        )
        left.altair_chart(evaluation_histogram(evaluation), width="stretch")
    for picture in pictures:
        right.image(str(picture))
        right.html(text.caption(picture.name))


def _checkpoints(run: HistoryRun) -> None:
    st.subheader("Checkpoints")
    checkpoints = checkpoints_of(run)
    commands = [*filter(None, [resume_command(run)]), *evaluate_commands(run, checkpoints)]
    left, right = st.columns([2, 3])
    if checkpoints.empty:
        left.info("None yet. The first is written after `checkpoint_interval` iterations.")
    else:
        left.dataframe(
            checkpoints,
            hide_index=True,
            column_config={
                "file": "File",
                "size": NumberColumn("Size", format="bytes"),
                "written": DatetimeColumn("Written", format="YYYY-MM-DD HH:mm:ss"),
            },
        )
    with right:
        st.caption("Run these commands in the project folder:")
        for command in commands:
            st.caption(command.purpose)
            st.code(command.line, language="bash", wrap_lines=True)


def _base(run: HistoryRun) -> None:
    st.subheader("Differences from the base config")
    comparison = compare_with_base(run)
    if comparison.error:
        st.warning(f"Not compared: {text.literal(comparison.error)}")
    elif comparison.table.empty:
        st.caption(f"None. All hyperparameters equal those of {text.literal(comparison.base)}.")
    else:
        st.caption(
            f"Base config: {text.literal(comparison.base)}. The changes come from a sweep variant, "
            "`params.yaml` or the command line."
        )
        st.dataframe(comparison.table, hide_index=True)


def _record(run: HistoryRun, record: RunRecord) -> None:
    st.subheader("Record")
    with st.expander("run.json"):
        st.code(json.dumps(record.model_dump(mode="json"), indent=2), language="json")
    for folder in (run.folder, *run.copies):
        st.code(str(folder), language=None)
