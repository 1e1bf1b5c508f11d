"""Runs of language models in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_history import RunSpec, agent, make_run, run_config
from serving import reading, serving

from heteromark.runs.digest import config_digest
from heteromark.runs.record import EVALUATION_FILE, Status
from heteromark.runs.store import RunStore

NASTY = "<script>alert(1)</script><img src=x onerror=alert(1)></div></section>&lt;b&gt; &amp;"
MARKUP = "[x](javascript:alert(1)) **b** $x$ :material/home: :smile: # no heading\n- no list"
SPACES = "\n  first line was empty\n   \n\n\tthe third had spaces   two\n"
LONG = "\n".join(f"line {number}" for number in range(300)) + "\n" + "x" * 2000
TEAM = run_config(agent("at_grpo_agent_v1", grpo={"beta": 0.04}), "math")
ALONE = run_config(agent("grpo_agent_v1"), "math")
OTHER = run_config(agent("happo_agent_v1"))


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    """A store with two seeds of a team, a single language model, and network agents."""
    data_folder = tmp_path_factory.mktemp("language")
    store = RunStore(data_folder / "store")
    for config in (TEAM, TEAM.model_copy(update={"seed": 1}), ALONE, OTHER):
        make_run(store, RunSpec(config))
    return data_folder


@pytest.fixture(scope="module")
def address(data_folder):
    with serving(data_folder / "store", data_folder / "results") as address:
        yield address


@pytest.fixture
def reader(browser, address):
    with reading(browser, address) as reader:
        yield reader


def folder_of(data_folder: Path, config) -> Path:
    (folder,) = (
        folder
        for folder in (data_folder / "store" / "runs").iterdir()
        if f"algorithm: {config.agent.algorithm}\n" in (folder / "config.yaml").read_text()
        and f"\nseed: {config.seed}\n" in (folder / "config.yaml").read_text()
    )
    return folder


def titles(reader) -> list[str]:
    """Return the titles of the visible charts."""
    drawn = reader.page.locator("svg.marks .role-title-text text").filter(visible=True)
    return drawn.all_text_contents()


def test_run_page_of_a_team(reader, data_folder, tmp_path):
    folder = folder_of(data_folder, TEAM)
    text = json.loads((folder / EVALUATION_FILE).read_text())["text"]
    reader.open(f"/training_run?run={folder.name}")
    reader.page.locator("svg.marks").nth(11).wait_for()
    assert titles(reader)[:9] == [
        "Training return (reward per trajectory)",
        "Solve rate in training",
        "pass@1 (solved in one attempt)",
        "Reward of a response",
        "Response length (tokens)",
        "Zero-std groups (all rewards equal)",
        "Responses cut off",
        "KL from the initial model (nats per token)",
        "KL divergence per update (nats per token)",
    ]
    content = reader.text()
    rate, error = text["solve_rate"], text["solve_rate_standard_error"]
    for words in (
        "tool → reasoner",
        "tiny llama, 4 layers of 128",
        "lora: adapters, rank 16, alpha 32.0",
        "one per role",
        "Responses per prompt (K)\n8",
        "KL weight (beta)\n0.04",
        "Solve rate\n",
        "learning signal in at least",
        f"Solve rate (pass@1)\n{rate:.1%} ± {error:.1%}",
        f"pass@2\n{text['pass_at_k']['2']:.1%}",
        "sampled (as in training)",
        "Within 10 %\n71.0%",
        "The first pass over the first 8 of 50 problems. The reward of a response is the team reward",
        "Evaluate the final weights on new problems",
    ):
        assert words in content, words
    for words in ("Hidden layers", "Discount", "episode.gif", "most likely actions", "Win rate"):
        assert words not in content, words
    assert reader.rows()[:2] == [
        {"Role": "tool", "Responses": "100", "Length": "6.25", "Cut off": "6.25"},
        {"Role": "reasoner", "Responses": "100", "Length": "6.25", "Cut off": "6.25"},
    ]
    reader.page.get_by_text("✓ solved · reward 2.00").first.click()
    reader.page.get_by_text("reward 1.00 (team 1.00, local 0.00)").first.wait_for()
    reader.page.get_by_text("✗ not solved · reward -0.20").first.click()
    reader.page.get_by_text("reward -0.10 (team 0.00, local -0.10)").first.wait_for()
    reader.picture(tmp_path, "run of a team")


@pytest.mark.slow
def test_run_page_of_one_model_with_one_optimizer_step_per_iteration(reader, data_folder, tmp_path):
    """Its KL divergence per update is 0 by definition, so there is no curve."""
    folder = folder_of(data_folder, ALONE)
    metrics = folder / "metrics.csv"
    header, *rows = metrics.read_text().splitlines()
    at = [header.split(",").index(f"{name}/team") for name in ("kl_approx", "clip_fraction")]
    zeroed = [
        ",".join("0.0" if i in at else v for i, v in enumerate(row.split(","))) for row in rows
    ]
    metrics.write_text("\n".join([header, *zeroed]) + "\n")
    reader.open(f"/training_run?run={folder.name}")
    reader.page.locator("svg.marks").nth(8).wait_for()
    assert "Policies\none\n" in reader.text()
    assert not {"KL divergence per update (nats per token)", "Clip fraction"} & set(titles(reader))
    assert "KL divergence" not in reader.text()
    reader.picture(tmp_path, "run of one language model")


@pytest.mark.slow
def test_transcripts_are_shown_verbatim(browser, store, tmp_path):
    folder = make_run(store, RunSpec(TEAM))
    report = json.loads((folder / EVALUATION_FILE).read_text())
    responses = [NASTY, MARKUP, SPACES, LONG, "", "\x00\ud800"]
    first, second = report["text"]["transcripts"][:2]
    step = first["steps"][0]
    first["key"] = f"{MARKUP} {NASTY} ` `` {'long ' * 40}"
    first["steps"] = [
        step | {"turn": turn, "role": NASTY, "response": response}
        for turn, response in enumerate(responses)
    ]
    second["steps"] = [step | {"prompt": NASTY + SPACES}]
    report["text"]["judgement"][NASTY] = 0.5
    report["text"]["roles"][NASTY] = {"responses": 0, "response_length": None, "cut_off": None}
    (folder / EVALUATION_FILE).write_text(json.dumps(report))
    with serving(store.root, tmp_path / "results") as address, reading(browser, address) as reader:
        reader.open(f"/training_run?run={folder.name}")
        for number in range(2):
            summaries = reader.page.locator('[data-testid="stExpander"] summary')
            summaries.filter(has_text="reward").nth(number).click()
        shown = reader.page.locator(".hm-verbatim")
        for number in (0, 2 * len(responses)):  # first box of the first and the second transcript
            shown.nth(number).wait_for()
        texts = shown.evaluate_all("boxes => boxes.map(box => box.textContent)")
        # prompts and responses alternate; the empty response has a different box
        assert texts[1:8:2] == [NASTY, MARKUP, SPACES, LONG]
        assert NASTY + SPACES in texts
        assert "␀?" in texts
        assert reader.page.locator(".hm-empty").text_content() == "(empty)"
        style = "box => [getComputedStyle(box).whiteSpace, getComputedStyle(box).fontFamily]"
        kept, font = shown.nth(1).evaluate(style)
        assert kept in ("pre-wrap", "break-spaces")
        assert "monospace" in font
        height, inner = shown.nth(7).evaluate("box => [box.clientHeight, box.scrollHeight]")
        assert height < 400 < inner
        for markup in ("script", "img[src='x']", "a[href^='javascript']", "strong", "b", "li"):
            assert reader.page.locator(f".hm-steps {markup}, summary {markup}").count() == 0, markup
        assert NASTY in reader.text().replace("\n", " ")
        reader.picture(tmp_path, "markup in transcripts")


@pytest.mark.slow
def test_list_with_language_models_and_networks(reader, tmp_path):
    reader.open("/training")
    rows = {(row["Config"], row["Algorithm"], row["Environment"]) for row in reader.rows()}
    assert rows == {
        ("at_grpo_agent_v1", "AT-GRPO", "math"),
        ("grpo_agent_v1", "GRPO", "math"),
        ("happo_agent_v1", "HAPPO", "skirmish"),
    }
    reader.picture(tmp_path, "list with language models")
    reader.open("/training?algorithm=GRPO&algorithm=AT-GRPO")
    assert "3 shown of 4 runs" in reader.text()
    assert {row["Algorithm"] for row in reader.rows()} == {"GRPO", "AT-GRPO"}


@pytest.mark.slow
def test_language_models_are_compared_with_networks(reader, tmp_path):
    digests = "&".join(f"config={config_digest(config)}" for config in (TEAM, ALONE, OTHER))
    reader.open(f"/compare?{digests}&metric=flat_share")
    reader.page.locator("canvas, svg.marks").first.wait_for()
    content = reader.text()
    chosen = reader.page.get_by_label("Metric")
    assert chosen.input_value() == "Zero-std groups (all rewards equal)"
    assert "Without this metric: happo_agent_v1." in content
    assert "happo_agent_v1: steady" in content
    assert {row["Config or run"] for row in reader.rows()} == {
        "at_grpo_agent_v1",
        "grpo_agent_v1",
        "happo_agent_v1",
    }
    reader.picture(tmp_path, "compare language models with others")
    digests = "&".join(f"config={config_digest(config)}" for config in (TEAM, ALONE))
    reader.open(f"/compare?{digests}&metric=win_rate")
    assert chosen.input_value() == "Solve rate in training"
    reader.picture(tmp_path, "compare language models")


@pytest.mark.slow
def test_run_without_an_evaluation_has_no_transcripts(browser, store, tmp_path):
    statuses = (Status.DIVERGED, Status.INTERRUPTED)
    folders = [
        make_run(
            store,
            RunSpec(
                TEAM.model_copy(update={"seed": seed}), status=status, reason="why", share=0.02
            ),
        )
        for seed, status in enumerate(statuses)
    ]
    with serving(store.root, tmp_path / "results") as address, reading(browser, address) as reader:
        for folder, status in zip(folders, statuses, strict=True):
            reader.open(f"/training_run?run={folder.name}")
            assert f"{status}: why" in reader.text()
            assert "Transcripts" not in reader.text()
            reader.picture(tmp_path, f"run of a team {status}")
