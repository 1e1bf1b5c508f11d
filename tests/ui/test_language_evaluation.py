"""Reading evaluation.json of a team of language models."""

from __future__ import annotations

import json

import pytest
from made_history import RunSpec, agent, make_run, run_config
from text_config import make_text_config

from heteromark.runs.record import EVALUATION_FILE
from heteromark.training import loop
from heteromark.ui.data.files import evaluation_of
from heteromark.ui.data.history import History, HistoryRun
from heteromark.ui.data.llm_evaluation import sampling_in_words, text_evaluation_of


@pytest.fixture
def run(store) -> HistoryRun:
    make_run(store, RunSpec(run_config(agent("at_grpo_agent_v1"), "math")))
    (run,) = History(store, store.root / "none").runs()
    return run


def report_of(run: HistoryRun) -> dict:
    return json.loads((run.folder / EVALUATION_FILE).read_text())


def write(run: HistoryRun, report) -> None:
    (run.folder / EVALUATION_FILE).write_text(json.dumps(report))


def test_report_of_a_real_training_is_read_without_loss(run):
    config = make_text_config("AT-GRPO", evaluation__passes=3)
    loop.train(config, run.folder)
    report = report_of(run)["text"]
    found = text_evaluation_of(run).model_dump(mode="json")
    found["pass_at_k"] = {str(k): share for k, share in found["pass_at_k"].items()}
    assert found == {key: report[key] for key in found}
    assert set(report) - set(found) == {"chunk_size", "seed"}
    assert len(found["transcripts"]) == 5
    assert [step["role"] for step in found["transcripts"][0]["steps"]] == ["tool", "reasoner"]
    assert len(evaluation_of(run).returns) == 15


def test_unprintable_characters_are_replaced(run):
    report = report_of(run)
    report["text"]["transcripts"][0]["steps"][0]["response"] = "\x00a\ud800\r\n\tb"
    write(run, report)
    step = text_evaluation_of(run).transcripts[0].steps[0]
    assert step.response == "␀a?␍\n\tb"


def test_network_agents_have_no_text_evaluation(store):
    make_run(store, RunSpec(run_config(agent("happo_agent_v1"))))
    (run,) = History(store, store.root / "none").runs()
    assert not run.is_language_model_run
    assert text_evaluation_of(run) is None
    assert evaluation_of(run) is not None


@pytest.mark.parametrize(
    "text",
    [None, [], {}, "text", {"problems": 1}],
)
def test_damaged_text_evaluation_is_none(run, text):
    write(run, report_of(run) | {"text": text})
    assert text_evaluation_of(run) is None


@pytest.mark.parametrize(
    ("key", "value"), [("solve_rate", None), ("transcripts", [{"key": "x"}]), ("roles", {"a": 1})]
)
def test_report_with_an_invalid_required_field_is_none(run, key, value):
    report = report_of(run)
    report["text"][key] = value
    write(run, report)
    assert text_evaluation_of(run) is None


@pytest.mark.parametrize(
    ("preset", "generation", "description"),
    [
        ("sampled", {"temperature": None, "top_k": None, "top_p": 1.0}, "sampled (as in training)"),
        ("greedy", {"temperature": 1e-4, "top_k": 1}, "greedy (the most likely token)"),
        (
            "standard",
            {"temperature": 0.7, "top_k": 50, "top_p": 0.95},
            "standard (temperature 0.7, the 50 most likely tokens, top_p 0.95)",
        ),
    ],
)
def test_sampling_description(run, preset, generation, description):
    report = report_of(run)
    report["text"] |= {"preset": preset, "generation": generation}
    write(run, report)
    assert sampling_in_words(text_evaluation_of(run)) == description
