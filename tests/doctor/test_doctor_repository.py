"""The doctor's checks of a project's files, git and DVC."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from examining import examined, is_ok, only
from projects import Project

from heteromark.doctor import repository
from heteromark.doctor.finding import Level


def test_in_a_subfolder_of_a_git_repository_dvc_is_initialised_with_subdir(
    empty: Project, monkeypatch
):
    empty.run("git", "init", "--quiet")
    (empty.folder / "below").mkdir()
    monkeypatch.chdir("below")
    command = only(repository.dvc_repository(examined())).command
    subprocess.run(command.split(), check=True, capture_output=True)
    assert is_ok(repository.dvc_repository(examined()))


def test_without_git_the_stages_are_not_checked(here: Project):
    (here.folder / ".git").rename(here.folder / "git-was-here")
    assert only(repository.git(examined())).command == "git init"
    assert not list(repository.dvc_stages(examined()))


def edit_stages(project: Project, stage: str, outs: list) -> None:
    content = yaml.safe_load(project.read("dvc.yaml"))
    content["stages"][stage]["outs"] = outs
    project.write("dvc.yaml", yaml.safe_dump(content, sort_keys=False))


def test_overlapping_outs_are_reported_with_stage_and_path(here: Project):
    edit_stages(here, "select", ["results/tables/best"])
    overlap = only(repository.dvc_stages(examined()))
    assert overlap.level is Level.PROBLEM
    assert (overlap.file, overlap.key) == ("dvc.yaml", "stages.select.outs")
    assert overlap.value == "results/tables/best"
    assert "results/tables, an out of the stage sweep" in overlap.message

    edit_stages(here, "select", ["results/train"])
    twice = only(repository.dvc_stages(examined()))
    assert (twice.key, twice.value) == ("stages.select.outs", "results/train")
    assert "also an out of train" in twice.message

    edit_stages(here, "select", ["results/selected"])
    assert is_ok(repository.dvc_stages(examined()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: [", "corrupted"),
        ("stages: {plan: {cmnd: ls}}\n", "validation failed"),
        ("stages: {plan: {cmd: ls, outs: ['${nothing}']}}\n", "Could not find 'nothing'"),
    ],
)
def test_stages_that_do_not_load_are_reported(here: Project, text: str, expected: str):
    here.write("dvc.yaml", text)
    finding = only(repository.dvc_stages(examined()))
    assert finding.level is Level.PROBLEM
    assert "dvc.yaml" in str(finding)
    assert expected in finding.message


def test_numbers_that_yaml_reads_as_strings_are_fixed_in_place(here: Project):
    text = here.read("params.yaml")
    text = text.replace("learning_rate: null", "learning_rate: 1e-3  # slow")
    text = text.replace("clip_range: null", "clip_range: .2E0")
    here.write("params.yaml", text)
    variant = "config/agents/happo_agent_sweep_lr_high.yaml"
    here.write(variant, here.read(variant).replace("5.0e-3", "5e-3"))
    rate, clip, high = repository.string_floats(examined())

    line = text.splitlines().index("learning_rate: 1e-3  # slow") + 1
    assert (rate.file, rate.key, rate.value) == (f"params.yaml:{line}", "learning_rate", "1e-3")
    assert rate.command == f"sed -i {line}s/1e-3/1.0e-3/ params.yaml"
    assert (clip.key, clip.value) == ("ppo.clip_range", ".2E0")
    assert high.file.startswith(f"{variant}:")
    assert {finding.level for finding in (rate, clip, high)} == {Level.WARNING}

    assert yaml.safe_load(text)["learning_rate"] == "1e-3"
    for finding in (rate, clip, high):
        here.run("bash", "-c", finding.command)
    assert not list(repository.string_floats(examined()))
    params = yaml.safe_load(here.read("params.yaml"))
    assert (params["learning_rate"], params["ppo"]["clip_range"]) == (1e-3, 0.2)
    assert "# slow" in here.read("params.yaml")


def test_text_that_only_looks_like_a_number_is_ignored(here: Project):
    here.write("config/note.yaml", "quoted: '1e-3'\nversion: 1.2.3\nhash: 1e-3a\nwhole: 12\n")
    assert not list(repository.string_floats(examined()))
