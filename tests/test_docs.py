"""Every command in the documentation runs, in its order, in a project with very short runs."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from projects import ROOT, TINY, Project, copy_project, shorten_configs

# Documents whose sections need what earlier sections trained; the others are tested by section.
IN_ONE_PIECE = ("docs/skirmish.md", "docs/tutorial.md", "docs/llm.md")
BY_SECTION = (
    "README.md",
    "config/agents/README.md",
    "docs/workflow.md",
    "docs/extending.md",
    "docs/configuration.md",
)
DOCUMENTS = (*BY_SECTION, *IN_ONE_PIECE)
# Where nothing that is trained matters: runs are invented (see `heteromark.commands.stub`).
WITH_STUB = ("docs/workflow.md",)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# file: (\S+)\n")
HEADING = re.compile(r"^## (?=\S)", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """Part of a document that can be tried on its own, given the files of the parts before."""

    document: str
    title: str
    text: str
    before: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        return BLOCK.findall(self.text)

    @property
    def commands(self) -> list[str]:
        """Command lines of all bash blocks, as a reader pastes them."""
        shell = [block for language, block in self.blocks if language == "bash"]
        return [command for block in shell for command in commands_of(block)]

    def __str__(self) -> str:
        return f"{self.document}: {self.title}"


def commands_of(block: str) -> list[str]:
    """Command lines of a bash block, continued lines joined."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def sections_of(document: str) -> list[Section]:
    text = (ROOT / document).read_text(encoding="utf-8")
    parts = [text] if document in IN_ONE_PIECE else HEADING.split(text)
    found, before = [], ""
    for part in parts:
        found.append(Section(document, part.partition("\n")[0].lstrip("# "), part, before))
        before += part
    return [section for section in found if section.commands]


SECTIONS = [section for document in DOCUMENTS for section in sections_of(document)]


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


def paste(project: Project, blocks: list[tuple[str, str]], *, commands: bool) -> None:
    """Do what a reader does with blocks: save the files, and paste the commands."""
    for language, block in blocks:
        if match := FILE.match(block):
            project.write(match[1], block)
        elif commands and language == "bash":
            for command in commands_of(block):
                project.paste(command)
                if command == "dvc queue start":  # returns at once, while its worker works
                    project.wait_for_queue()


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_every_command_of_the_section_runs(section: Section, documented: Project, monkeypatch):
    if section.document in WITH_STUB:
        monkeypatch.setenv("HETEROMARK_TRAINER", "stub")
    if section.document == "docs/workflow.md":
        documented.set_params(sweep={"agents": ["config/agents/happo_agent_v1.yaml"]})
    paste(documented, BLOCK.findall(section.before), commands=False)
    paste(documented, section.blocks, commands=True)


def test_every_document_with_commands_is_tested():
    """A document that is new, or a section that the pattern misses, must not go untested."""
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        document = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        for language, block in BLOCK.findall(text):  # a fragment cannot be pasted
            assert language not in ("python", "yaml") or FILE.match(block), (document, block)
        written = [block for language, block in BLOCK.findall(text) if language == "bash"]
        tested = [b for s in SECTIONS if s.document == document for _, b in s.blocks]
        assert set(written) <= set(tested), document


def test_documents_name_files_that_exist():
    names = ("decisions", "algorithms", "benchmarks", "history", "environments")
    others = [f"docs/{name}.md" for name in names]
    for document in (*DOCUMENTS, *others):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / document).parent / target).exists(), (document, target)


def test_every_environment_is_in_a_document():
    listed = (ROOT / "docs/environments.md").read_text() + (ROOT / "docs/llm.md").read_text()
    for path in (ROOT / "config" / "environment").glob("*.yaml"):
        if not path.stem.startswith("skirmish"):  # it has a document of its own
            assert re.search(rf"\b{path.stem}\b", listed), path.stem


def test_the_picture_of_the_dag_is_current(project: Project):
    project.write("params.yaml", (ROOT / "params.yaml").read_text(encoding="utf-8"))
    project.run("heteromark", "workflow", "picture", "dag.svg")
    assert project.read("dag.svg") == (ROOT / "docs/dag.svg").read_text(encoding="utf-8"), (
        "run `make generated` and commit the result"
    )


# Odd English of earlier versions, and the usual words for it: reported, fix, resume, custom.
ODD = re.compile(r"\b(told|mend(s|ed|ing)?|so often as|go(es|ne)? on from|of one's own)\b", re.I)


def test_odd_words_do_not_come_back():
    files = [
        *(
            ROOT / name
            for name in (
                "README.md",
                "CHANGELOG.md",
                "CONTRIBUTING.md",
                "SECURITY.md",
                "params.yaml",
            )
        ),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "config").rglob("*.yaml"),
        *(ROOT / "heteromark").rglob("*.py"),
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if ODD.search(line)
    ]
    assert not found, "\n".join(found)
