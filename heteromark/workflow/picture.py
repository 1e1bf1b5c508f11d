"""Draw the workflow's DAG with its job counts, without Graphviz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import get_data_path
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from heteromark.workflow.plan import Plan
from heteromark.workflow.plots import save_figure
from heteromark.workflow.words import counted, frames_range

_WIDTH, _HEIGHT, _GAP = 1.58, 1.0, 0.32
_CHEAP, _EXPENSIVE, _EDGE = "#e8eef4", "#fbe3c5", "#44546a"


def draw_dag(plan: Plan, path: Path, winner: str | None = None) -> None:
    """Draw the steps from left to right, expensive ones tinted. `winner`: name, if known."""
    smoke, full = plan.params.smoke, plan.params.full
    configs, seeds = len(plan.configs), len(smoke.seeds)
    short = frames_range(rung.frames for config in plan.configs for rung in config.rungs)
    long = frames_range(config.full.frames for config in plan.configs)
    steps = [
        ("expand", f"{configs} configs\n{_files(plan)}", _CHEAP),
        ("smoke", f"{configs} configs, {seeds} seeds\n{short} frames", _EXPENSIVE),
        ("aggregate", "results/tables\nruns, summary", _CHEAP),
        ("select", f"results/selected\n{winner or 'winner, reason'}", _CHEAP),
        ("train", f"{counted(len(full.seeds), 'seed')}\n{long} frames", _EXPENSIVE),
        ("publish", f"results/model\n{full.eval_episodes} episodes", _CHEAP),
        ("report", "results/\nreport.html", _CHEAP),
    ]
    title, body = _font("DejaVuSans-Bold", 13), _font("DejaVuSans", 9.5)
    pitch = _WIDTH + _GAP
    figure = Figure(figsize=(len(steps) * pitch, 1.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-_GAP / 2, len(steps) * pitch - _GAP / 2)
    axes.set_ylim(-0.25, 1.25)
    axes.set_axis_off()
    for index, (name, detail, colour) in enumerate(steps):
        left = index * pitch
        look: dict[str, Any] = {"facecolor": colour, "edgecolor": _EDGE}
        style = "round,pad=0,rounding_size=0.08"
        axes.add_patch(FancyBboxPatch((left, 0), _WIDTH, _HEIGHT, boxstyle=style, **look))
        middle = left + _WIDTH / 2
        for y, text, font in ((0.73, name, title), (0.32, detail, body)):
            axes.text(middle, y, text, ha="center", va="center", fontproperties=font)
        if index:
            head: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 14}
            axes.add_patch(FancyArrowPatch((left - _GAP, 0.5), (left, 0.5), color=_EDGE, **head))
    save_figure(figure, path)


def _font(name: str, size: float) -> FontProperties:
    """Return a font shipped with matplotlib: the system's font of that name may differ."""
    return FontProperties(fname=Path(get_data_path(), "fonts", "ttf", f"{name}.ttf"), size=size)


def _files(plan: Plan) -> str:
    folders = sorted({Path(config.smoke.config_path).parent.as_posix() for config in plan.configs})
    return folders[0] if len(folders) == 1 else counted(len(folders), "folder")
