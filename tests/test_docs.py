"""Every command in the documentation runs, in its order, in a project with very short runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from projects import ROOT, TINY, Project, copy_project, shorten_configs

DOCUMENTS = (
    "README.md",
    "config/agents/README.md",
    "docs/workflow.md",
    "docs/extending.md",
    "docs/configuration.md",
    "docs/skirmish.md",
    "docs/tutorial.md",
    "docs/llm.md",
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# file: (\S+)\n")


def blocks(document: str) -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


def commands(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


# One iteration for each of the documents' runs, and one seed: what is tested is that they work.
SHORT = {
    **TINY,
    "network": {"net_arch": None},  # which not every agent has; the configs say so
    "num_parallel_envs": 64,
    "n_steps": 512,
    "batch_size": 512,
    "smoke": {"total_frames": 512, "seeds": [0], "eval_episodes": 1},
    "full": {"total_frames": 1024, "seeds": [0], "eval_episodes": 2},
    "selection": {"min_seeds": 1},
}


# Enough variants for every pattern in the documents to match.
SWEPT = (
    "happo_agent_sweep_lr_high",
    "ppo_agent_sweep_lr_low",
    "ppo_agent_sweep_gamma_high",
    "at_grpo_agent_sweep_chain",
)


@pytest.fixture
def documented(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, worker_id) -> Project:
    """A clone in which `make setup` is done: its .venv is this Python's environment.

    As for a reader of several documents, what one of them trained is found by the others.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    project = copy_project(tmp_path / "project", shared / "documents-store")
    project.set_params(**SHORT)
    for path in (project.folder / "config" / "agents").glob("*_sweep_*.yaml"):
        if path.stem not in SWEPT:
            path.unlink()
    shorten_configs(project)
    (project.folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (project.folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (project.folder / ".venv").symlink_to(Path(sys.prefix))
    project.run("make", "--touch", ".venv/.installed")
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.email", "tester@example.com")
    project.run("git", "config", "user.name", "Tester")
    project.commit("project")
    return project


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_document_runs(document, documented: Project):
    if document == "docs/workflow.md":
        documented.set_params(sweep={"agents": ["config/agents/happo_agent_v1.yaml"]})
    ran = 0
    for language, block in blocks(document):
        if match := FILE.match(block):
            documented.write(match[1], block)
        elif language == "bash":
            for command in commands(block):
                documented.run("bash", "-c", command)
                if command == "dvc queue start":  # returns at once, while its worker works
                    documented.wait_for_queue()
                ran += 1
    assert ran >= 4


def test_documents_name_files_that_exist():
    others = ("docs/decisions.md", "docs/algorithms.md", "docs/benchmarks.md", "docs/history.md")
    for document in (*DOCUMENTS, *others):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / document).parent / target).exists(), (document, target)


def test_the_picture_of_the_dag_is_current(project: Project):
    project.write("params.yaml", (ROOT / "params.yaml").read_text(encoding="utf-8"))
    project.run("heteromark", "workflow", "picture", "dag.svg")
    assert project.read("dag.svg") == (ROOT / "docs/dag.svg").read_text(encoding="utf-8"), (
        "run `make generated` and commit the result"
    )
