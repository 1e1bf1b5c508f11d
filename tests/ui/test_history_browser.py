"""The pages in a real browser, served by `heteromark ui`."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest
from made_history import RunSpec, agent, make_run, run_config, run_specs
from made_sweep import make_sweep
from PIL import Image
from serving import reading, serving

from heteromark.runs.digest import config_digest
from heteromark.runs.record import (
    CONFIG_FILE,
    EVALUATION_FILE,
    METRICS_FILE,
    RECORD_FILE,
    RunRecord,
    Status,
)
from heteromark.runs.store import RunStore

NASTY = "<script>alert(1)</script>"
MARKUP = "[x](javascript:alert(1)) **b** $x$ :material/home: :smile: <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    """A store and a results folder: a sweep, twelve other runs, and a run with markup in its names."""
    data_folder = tmp_path_factory.mktemp("history")
    store = RunStore(data_folder / "store")
    make_sweep(store, data_folder / "results", halving=True)
    for folder in (data_folder / "results" / "smoke").glob("happo_agent_gamma_high-*/*"):
        first, second = (Image.new("RGB", (120, 80), colour) for colour in ("#0072B2", "#D55E00"))
        first.save(folder / "episode.gif", save_all=True, append_images=[second], duration=100)
    for spec in run_specs(12):
        make_run(store, spec)
    named = agent("ppo_agent_v1", name=NASTY, description=MARKUP)
    folder = make_run(store, RunSpec(run_config(named, environment="simple_spread")))
    record = RunRecord.read(folder)
    identity = record.agent.model_copy(update={"short_name": NASTY, "config_path": MARKUP})
    record.model_copy(update={"agent": identity, "environment": MARKUP, "reason": MARKUP}).write(
        folder
    )
    broken = store.folder("0123456789ab")
    broken.mkdir()
    (broken / RECORD_FILE).write_text("{")
    return data_folder


@pytest.fixture(scope="module")
def address(data_folder: Path):
    with serving(data_folder / "store", data_folder / "results") as address:
        yield address


@pytest.fixture
def reader(browser, address):
    with reading(browser, address) as reader:
        yield reader


def records(data_folder: Path) -> list[RunRecord]:
    folders = (data_folder / "store" / "runs").iterdir()
    return [
        RunRecord.model_validate_json(text)
        for folder in folders
        if (text := (folder / RECORD_FILE).read_text()) != "{"
    ]


def wait_for_address(reader, pattern: str) -> None:
    reader.page.wait_for_url(re.compile(pattern))
    reader.settle()


# --- the list ---------------------------------------------------------------------------------


def test_list(reader, data_folder, tmp_path):
    reader.open("/training")
    assert f"{len(records(data_folder)) + 1} runs: ✓" in reader.text()
    assert "? 1 unreadable" in reader.text()
    first = reader.rows()[0]
    assert (first["Status"], first["Config"]) == ("✓ completed", "ppo_agent_lr_003")
    assert (first["Algorithm"], first["Environment"]) == ("MaskablePPO", "speaker_listener")
    reader.picture(tmp_path, "list")


def test_bare_address_redirects_to_the_list(reader):
    reader.open("/")
    wait_for_address(reader, "/training$")
    assert "runs: ✓" in reader.text()


def test_filters_are_kept_in_the_address_and_can_be_shared(reader, browser, address):
    reader.open("/training")
    reader.page.get_by_label("Algorithm").click()
    reader.page.get_by_role("option", name="MaskablePPO").click()
    wait_for_address(reader, "algorithm=MaskablePPO")
    reader.page.get_by_label("Text").fill("lr_001")
    reader.page.keyboard.press("Enter")
    wait_for_address(reader, "text=lr_001")
    reader.page.get_by_text("3 shown").wait_for()
    shared = reader.page.url.removeprefix(address)
    with reading(browser, address) as other:
        other.open(shared)
        assert "3 shown" in other.text()
        assert {row["Config"] for row in other.rows()} == {"ppo_agent_lr_001"}


@pytest.mark.slow
def test_no_run_matches_the_filters(reader, tmp_path):
    reader.open("/training?text=nothing+of+that+name")
    assert "No run matches the filters" in reader.text()
    reader.picture(tmp_path, "list without matches")


@pytest.mark.slow
def test_order(reader):
    reader.open("/training?order=evaluation+return&environment=skirmish&status=completed")
    returns = [float(row["Evaluation"]) for row in reader.rows()]
    assert returns == sorted(returns, reverse=True)
    assert len(returns) > 5


@pytest.mark.slow
def test_table_stays_sorted_by_a_clicked_header(reader):
    reader.open("/training?text=happo_agent_v1")
    assert [row["Seed"] for row in reader.rows()] == ["2", "1", "0"]
    reader.click_header("Started")
    wait_until(reader, lambda: [row["Seed"] for row in reader.rows()] == ["0", "1", "2"])
    reader.page.wait_for_timeout(2500)  # the table refreshes meanwhile
    assert [row["Seed"] for row in reader.rows()] == ["0", "1", "2"]
    reader.tick(0)
    wait_for_address(reader, "run=[0-9a-f]{12}")
    reader.page.get_by_text("Open run").click()
    reader.page.get_by_text("seed 0").wait_for()


def test_rows_are_selected_opened_and_compared(reader, tmp_path):
    reader.open("/training?text=happo_agent_lr_000")
    assert "Tick the boxes" in reader.text()
    reader.tick(0)
    wait_for_address(reader, "run=[0-9a-f]{12}")
    reader.page.get_by_text("Open run").wait_for()
    reader.tick(2)
    wait_for_address(reader, "run=[0-9a-f]{12}&run=[0-9a-f]{12}")
    reader.page.get_by_text("Compare 1 config over all seeds").wait_for()
    reader.picture(tmp_path, "list selected")
    time.sleep(2.5)  # the table refreshes meanwhile
    reader.page.get_by_text("Compare 2 runs individually").click()
    wait_for_address(reader, "/compare.run=")
    reader.page.get_by_text("happo_agent_lr_000, seed 2").first.wait_for()
    reader.page.go_back()
    wait_for_address(reader, "/training")
    reader.page.get_by_text("Open first run").click()
    wait_for_address(reader, "/training_run.run=[0-9a-f]{12}$")
    reader.page.get_by_text("Config Summary").wait_for()


# --- one run ----------------------------------------------------------------------------------


def test_run_page(reader, data_folder, tmp_path):
    record = next(
        record
        for record in records(data_folder)
        if (record.agent.short_name, record.mode) == ("happo_agent_gamma_high", "smoke")
    )
    reader.open(f"/training_run?run={record.digest}")
    reader.page.locator("canvas, svg.marks").nth(8).wait_for()
    content = reader.text()
    for words in (
        "happo_agent_gamma_high",
        "Config Summary",
        "HAPPO Agent (Gamma High)",
        "config/agents/happo_agent_sweep_gamma_high.yaml",
        "[64, 64]",
        "return steady: the return rises",
        "KL divergence within bounds",
        "episodes with most likely actions",
        "Differences from the base config",
    ):
        assert words in content
    reader.page.get_by_text("--episodes").first.wait_for()
    reader.page.get_by_text("episode.gif").first.wait_for()
    assert reader.page.locator("img").evaluate("image => image.naturalWidth") == 120
    differing = reader.rows(table=1)
    assert differing == [{"hyperparameter": "gamma", "base": "0.99", "this run": "0.995"}]
    reader.page.get_by_text("time", exact=True).click()
    wait_for_address(reader, "x=time")
    reader.page.get_by_text("run.json").click()
    reader.page.get_by_text('"config_digest"').wait_for()
    reader.picture(tmp_path, "run")


@pytest.mark.slow
def test_diverged_run_and_run_without_a_record(reader, data_folder, tmp_path):
    diverged = next(r for r in records(data_folder) if r.status is Status.DIVERGED)
    reader.open(f"/training_run?run={diverged.digest}")
    assert "diverged: the loss is NaN" in reader.text()
    reader.picture(tmp_path, "run diverged")
    reader.open("/training_run?run=0123456789ab")
    assert "the run record cannot be read" in reader.text()
    reader.picture(tmp_path, "run unreadable")


@pytest.mark.slow
def test_run_with_damaged_files_is_still_shown(browser, store, tmp_path):
    folder = make_run(store, RunSpec(run_config(agent("happo_agent_v1"))))
    digest = RunRecord.read(folder).config_digest
    with serving(store.root, tmp_path / "results") as address, reading(browser, address) as reader:
        for config, metrics, evaluation in (
            ("agent: [", "a,b\n1,x\n", "{"),
            ("agent: 1", "entropy/a\n1.0\n", "[]"),
            ("{}", "", "{}"),
            ("agent: {network: {net_arch: null}}", "frames,episode_return\n1,nan\n", "null"),
        ):
            (folder / CONFIG_FILE).write_text(config)
            (folder / METRICS_FILE).write_text(metrics)
            (folder / EVALUATION_FILE).write_text(evaluation)
            reader.open(f"/training_run?run={folder.name}")
            assert "Config Summary" in reader.text()
            reader.open(f"/compare?config={digest}&run={folder.name}")
            assert "Results" in reader.text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "query", ["", "?run=ffffffffffff", "?run=%3Cscript%3Ealert(1)%3C/script%3E"]
)
def test_missing_run(reader, query):
    reader.open(f"/training_run{query}")
    reader.page.get_by_text("All runs").click()
    wait_for_address(reader, "/training$")


# --- comparison -------------------------------------------------------------------------------


@pytest.mark.slow
def test_configs_are_compared(reader, data_folder, tmp_path):
    digests = sorted(
        {
            r.config_digest
            for r in records(data_folder)
            if "gamma_high" in r.agent.short_name or r.agent.short_name == "happo_agent_v1"
        }
    )
    reader.open("/compare?" + "&".join(f"config={digest}" for digest in digests))
    reader.page.locator("canvas, svg.marks").first.wait_for()
    assert "bootstrap 95% interval" in reader.text()
    results, differing = reader.rows(0), reader.rows(1)
    assert results[0]["Config or run"] == "happo_agent_gamma_high, skirmish, full"
    assert "steady" in {row["Verdict"] for row in results}
    assert "happo_agent_v1: steady: the return rises by" in reader.text()
    assert {row["gamma"] for row in differing} == {"0.99", "0.995"}
    reader.picture(tmp_path, "compare")
    reader.page.get_by_text("time", exact=True).click()
    wait_for_address(reader, "x=time")
    reader.page.get_by_label("Metric").click()
    reader.page.get_by_role("option", name="Entropy (nats)").click()
    wait_for_address(reader, "metric=entropy")
    reader.picture(tmp_path, "compare entropy over time")


@pytest.mark.slow
def test_agents_are_compared_over_several_environments(browser, store, tmp_path):
    digests = {}
    for environment, file in itertools.product(
        ("simple_spread", "skirmish"), ("happo_agent_v1", "ppo_agent_v1")
    ):
        for seed in range(3):
            config = run_config(agent(file), environment, seed=seed)
            make_run(store, RunSpec(config, speed=1.5 if file.startswith("happo") else 0.5))
        digests[environment, file] = config_digest(config)
    with serving(store.root, tmp_path / "results") as address, reading(browser, address) as reader:
        first, *others = (f"config={digest}" for digest in digests.values())
        reader.open("/compare?" + "&".join((first, *others)))
        content = reader.text()
        assert "Returns of different environments are not comparable" in content
        assert "Environments: simple_spread, skirmish. In each, 0 is the lowest" in content
        assert "Left out" not in content
        reader.page.locator("canvas, svg.marks").nth(1).wait_for()
        reader.picture(tmp_path, "compare environments")
        reader.open(f"/compare?{first}&{others[-1]}")  # one agent here, the other there
        content = reader.text()
        assert "happo_agent_v1: no completed run in skirmish" in content
        assert "Choose configs with completed runs of the same agents" in content


@pytest.mark.slow
def test_unknown_values_in_the_address_are_ignored(reader):
    reader.open("/compare?config=nothing&run=nothing&metric=nothing&x=nothing")
    assert "Choose configs or runs" in reader.text()


# --- the sweep --------------------------------------------------------------------------------


def test_sweep_page(reader, tmp_path):
    reader.open("/sweep")
    reader.page.locator("canvas, svg.marks").nth(1).wait_for()
    content = reader.text()
    assert "won: iqm of evaluation_return over 3 seeds" in content
    assert "Confirmed" in content
    bracket = reader.page.locator("img[src^='data:image/svg'], img[src*='.svg']")
    assert bracket.evaluate("image => image.naturalWidth") > 300
    rows = reader.rows()
    assert [row["Rank"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0]["Config"] == "happo_agent_gamma_high"
    assert rows[3]["Verdict"] == "diverged"
    reader.picture(tmp_path, "sweep")
    reader.tick(0)
    wait_for_address(reader, "config=[0-9a-f]{12}")
    reader.page.get_by_text("Compare 1 selected").wait_for()
    reader.tick(1)
    reader.page.get_by_text("Compare 2 selected").click()
    wait_for_address(reader, "/compare.config=")
    reader.page.get_by_text("happo_agent_v1").first.wait_for()


# --- escaping ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_markup_in_names_is_shown_as_text_on_every_page(reader, data_folder, tmp_path):
    record = next(r for r in records(data_folder) if r.agent.short_name == NASTY)
    reader.open("/training?text=script")
    assert reader.rows()[0]["Config"] == NASTY
    reader.picture(tmp_path, "markup in the list")
    for path in (f"/training_run?run={record.digest}", f"/compare?config={record.config_digest}"):
        reader.open(path)
        reader.page.get_by_text(NASTY).first.wait_for()
    reader.open(f"/training_run?run={record.digest}")
    assert MARKUP in reader.text()
    assert reader.page.locator('a[href^="javascript"]').count() == 0
    assert reader.page.locator('img[src="x"]').count() == 0
    reader.picture(tmp_path, "markup of a run")
    reader.open(f"/compare?config={record.config_digest}&run={record.digest}&text={NASTY}")
    reader.picture(tmp_path, "markup compared")


# --- live -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_run_updates_without_reload_and_is_interrupted_when_killed(
    browser, training, store, tmp_path
):
    with serving(store.root, tmp_path / "results") as address, reading(browser, address) as reader:
        digest, process = training(seconds=1.0)
        reader.open("/training")
        reader.page.evaluate("window.loadedOnce = true")
        assert reader.rows()[0]["Status"] == "▶ running"
        frames = frames_of_first(reader)
        wait_until(reader, lambda: frames_of_first(reader) > frames)
        reader.picture(tmp_path, "list live")
        process.kill()
        process.wait()
        wait_until(reader, lambda: reader.rows()[0]["Status"] == "‖ interrupted")
        assert reader.page.evaluate("window.loadedOnce")
        reader.open(f"/training_run?run={digest}")
        assert "Resume from the last checkpoint" in reader.text()
        reader.picture(tmp_path, "run interrupted")


def frames_of_first(reader) -> int:
    return int(reader.rows()[0]["Frames"])


def wait_until(reader, condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, reader.text()
        reader.page.wait_for_timeout(100)


# --- number of runs ---------------------------------------------------------------------------


@pytest.mark.slow
def test_without_runs_every_page_shows_what_to_do(browser, tmp_path):
    with (
        serving(tmp_path / "store", tmp_path / "results") as address,
        reading(browser, address) as reader,
    ):
        for path, words in (
            ("/training", "make run"),
            ("/training_run", "Choose a run in the list"),
            ("/compare", "No runs to compare yet"),
            ("/sweep", "snakemake --cores 2"),
        ):
            reader.open(path)
            reader.wait_for_text(words)  # code blocks are drawn last
            reader.picture(tmp_path, f"empty {path[1:]}")


@pytest.mark.slow
def test_with_one_run(browser, store, tmp_path):
    folder = make_run(store, RunSpec(run_config(agent("happo_agent_v1"))))
    with serving(store.root, tmp_path / "results") as address, reading(browser, address) as reader:
        reader.open("/training")
        assert "1 run: ✓ 1 completed" in reader.text()
        reader.picture(tmp_path, "list of one")
        reader.open(f"/training_run?run={folder.name[:6]}")
        assert "Config Summary" in reader.text()
        digest = RunRecord.read(folder).config_digest
        reader.open(f"/compare?config={digest}")
        assert "Choose a second config" in reader.text()
        reader.picture(tmp_path, "compare one")


@pytest.mark.slow
def test_with_a_thousand_runs(browser, store, tmp_path):
    for spec in run_specs(1000):
        make_run(store, spec)
    with serving(store.root, tmp_path / "results") as address, reading(browser, address) as reader:
        reader.open("/training?algorithm=HAPPO&order=win+rate")
        assert "shown of 1,000 runs" in reader.text()
        reader.picture(tmp_path, "list of a thousand")


@pytest.mark.slow
def test_real_training_is_shown_live(browser, project, store, tmp_path):
    train = ("heteromark", "train", "--agent-config", "config/agents/happo_agent_v1.yaml")
    options = ("--environment", "speaker_listener", "--total-timesteps", "100000")
    with (
        serving(store.root, tmp_path / "results", project.folder) as address,
        reading(browser, address) as reader,
    ):
        reader.open("/training")
        assert "No runs yet" in reader.text()
        training = project.start(*train, *options)
        try:
            reader.page.get_by_text("▶ 1 running").wait_for(timeout=60_000)
            wait_until(reader, lambda: frames_of_first(reader) > 0)
            frames = frames_of_first(reader)
            wait_until(reader, lambda: frames_of_first(reader) > frames)
        finally:
            training.kill()
            training.wait()
        reader.page.get_by_text("‖ 1 interrupted").wait_for()
