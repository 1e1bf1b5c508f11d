"""The overview of a workflow, generated from its runs."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from projects import TINY, copy_project
from run_folders import write_run

from heteromark.runs.record import ContinuedRun, RunRecord
from heteromark.workflow.overview import Resources, describe_environment, differences
from heteromark.workflow.plan import make_plan
from heteromark.workflow.publish import write_aggregate, write_model, write_selection

TABLES, SELECTED, MODEL = (Path("results", name) for name in ("tables", "selected", "model"))
WILD = "<script>alert(1)</script>"


class Text(HTMLParser):
    """The text of a page and the files it loads."""

    def __init__(self):
        super().__init__()
        self.words, self.loads, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def read(path):
    page = Text()
    page.feed(Path(path).read_text(encoding="utf-8"))
    return page, " ".join(" ".join(page.words).split())


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Two configs with finished runs in both modes. Nothing is trained."""
    project = copy_project(tmp_path / "project")
    project.set_params(**TINY)
    for path in (project.folder / "config" / "agents").glob("*.yaml"):
        if path.stem not in ("happo_agent_v1", "happo_agent_sweep_lr_high"):
            path.unlink()
    monkeypatch.chdir(project.folder)
    plan = make_plan()
    for candidate, returns in zip(plan.candidates("smoke"), [(5, 7), (1, 2)], strict=True):
        for seed, value in enumerate(returns):
            write_run(candidate, seed, value, win_rate=0.5)
    for config in plan.configs:
        folder = write_run(config.full, 0, 9.0)
        (folder / "evaluation.json").write_text(
            '{"return_mean": 9.0, "return_std": 1.0, "win_rate": null, "episodes": 4}'
        )
        (folder / "checkpoint.pt").write_bytes(b"weights")
        environment = {"env_type": "pettingzoo", "environment": {"task": WILD}}
        (folder / "config.yaml").write_text(yaml.safe_dump(environment))
    return plan


def test_the_page_has_winner_margin_figures_and_commands(plan):
    write_aggregate(plan, TABLES)
    write_selection(plan, TABLES, SELECTED)
    write_model(plan, TABLES, SELECTED, MODEL)
    page, text = read(MODEL / "overview.html")
    assert "Which of 2 configs learns best on skirmish?" in text
    assert "happo_agent_lr_high , by the interquartile mean of evaluation return" in text
    assert "6.000 reward per episode (5.000 to 7.000, the range of 2 seeds)" in text
    assert "That is 4.5 above happo_agent_v1; their intervals do not overlap" in text
    assert "beats a run of happo_agent_v1 with probability 1.00" in text
    assert "the long run of happo_agent_lr_high scores 9" in text
    assert "learning_rate file happo_agent_lr_high 0.005 config" in text, "all that differs"
    # 4 smokes and 1 long run of 20,000 frames and 12.5 seconds
    assert "runs 5 frames 100,000 total time of all runs 1 minutes" in text
    assert "a frame is one step of all agents. The configs differ in" in text
    assert "snakemake --cores all" in text
    assert "--agent-config config/agents/happo_agent_sweep_lr_high.yaml --mode full" in text
    assert len(page.loads) == 3
    assert all(load.startswith("data:image/svg+xml;base64,") for load in page.loads)
    # text from configs is escaped
    assert f"The environment: {WILD}." in text
    assert "script" not in page.tags
    assert "None" not in re.sub(r"\s", "", text)


def test_frames_taken_over_from_a_shorter_run_count_once(plan):
    candidate = plan.candidates("smoke")[0]
    record = RunRecord.read(candidate.folders[0])  # 20 iterations of 1,000 frames
    longer = record.model_copy(update={"continued": ContinuedRun(digest="x", iteration=15)})
    resources = Resources.of([record, longer])
    assert (resources.runs, resources.frames) == (2, 25_000)
    assert resources.hours == pytest.approx(25 / 3600)
    assert resources.hosts == ("host",)


def test_only_differing_settings_are_listed(plan):
    configs = [config.smoke for config in plan.configs]
    assert differences(configs) == {"learning_rate": [0.005, 0.002]}
    assert differences(configs[:1]) == {}


def test_a_language_model_task_is_described_by_its_name(plan):
    for config in plan.configs:
        config_file = config.full.folders[0] / "config.yaml"
        environment = {"task": None, "text": {"task": "plan_path"}}
        config_file.write_text(yaml.safe_dump({"env_type": "text", "environment": environment}))
    write_aggregate(plan, TABLES)
    write_selection(plan, TABLES, SELECTED)
    write_model(plan, TABLES, SELECTED, MODEL)
    _, text = read(MODEL / "overview.html")
    assert "The environment: plan_path, a task for language models." in text
    assert "a frame is one round of one attempt." in text


def test_a_battle_is_described_by_its_sides():
    battle = {"scenario": "custom", "allies": {"marine": 2}, "enemies": None, "opponent": "kite"}
    config = {"env_type": "skirmish", "environment": {"task": None, "skirmish": battle}}
    description = describe_environment(config)
    assert description.endswith("scenario {'marine': 2} against the same units, opponent kite")
