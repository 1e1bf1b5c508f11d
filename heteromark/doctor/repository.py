"""Checks of the project's files: what must be there, git, DVC and its stages, configs, numbers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from heteromark.config.errors import ConfigError
from heteromark.config.files import parse_value
from heteromark.doctor.finding import Finding, Project, ok, problem, warning
from heteromark.workflow.plan import make_plan

PROJECT_FILES = ("params.yaml", "Snakefile", "dvc.yaml")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def project_files(project: Project) -> Iterator[Finding]:
    """Is this a project's folder?"""
    for name in PROJECT_FILES:
        if not (project.root / name).is_file():
            yield problem(
                f"there is none in {project.root.resolve()}",
                file=name,
                advice="run the doctor in the project's folder; if it is this one: "
                f"git checkout -- {name}",
            )


def configuration(project: Project) -> Iterator[Finding]:
    """Do params.yaml and the agent configs make a plan? As `heteromark validate` says it."""
    if not (project.root / "params.yaml").is_file():
        return  # the project's files tell
    try:
        yield ok(f"{len(make_plan(project.root).configs)} configs, all valid")
    except ConfigError as error:
        for fault in error.faults:
            advice = f"edit {fault.file}, then: heteromark validate"
            yield problem(fault.message, fault.file, fault.key, fault.value, advice=advice)


def git(project: Project) -> Iterator[Finding]:
    """Is there a git repository, with a commit?"""
    if not shutil.which("git"):
        yield problem("git is not installed", advice="install it; on Debian: apt install git")
        return
    told = _git_error(project.root, "rev-parse", "--git-dir")
    if "not a git repository" in told:
        yield problem("this is no git repository, which DVC needs", command="git init")
    elif told:  # it may distrust the folder's owner, for example, and then says what to do
        yield problem(told, advice="do what git says")
    elif _git_error(project.root, "rev-parse", "--verify", "HEAD"):
        yield warning(
            "no commit yet: `dvc exp run` needs one, and run records name it",
            command="git add --all && git commit --message 'First commit'",
        )


def dvc_repository(project: Project) -> Iterator[Finding]:
    """Is DVC initialised here?"""
    if dvc_root(project.root):
        return
    in_subfolder = (
        shutil.which("git")
        and not (project.root / ".git").exists()
        and not _git_error(project.root, "rev-parse")
    )
    yield problem(
        "this is no DVC repository, so `dvc repro` and `dvc exp run` fail",
        command="dvc init --subdir" if in_subfolder else "dvc init",
    )


def dvc_stages(project: Project) -> Iterator[Finding]:
    """Does dvc.yaml load, with outs that do not overlap? DVC's own loading says so.

    Like every DVC command, it makes `.dvc/tmp` where that is missing.
    """
    from dvc.exceptions import DvcException, OutputDuplicationError, OverlappingOutputPathsError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    if not dvc_root(project.root):
        return
    try:
        with Repo(str(project.root)) as repo:
            repo.index.check_graph()
            yield ok(f"{len(repo.index.stages)} stages")
    except SCMError:
        return  # the check of git tells
    except OverlappingOutputPathsError as error:
        inner, outer = error.overlapping_out, error.parent
        yield _bad_out(
            inner.stage,
            inner,
            f"lies in {outer}, an out of the stage {outer.stage.name}; DVC refuses outs that "
            "overlap",
            f"take {inner} out of the outs of {inner.stage.name}, or let it write elsewhere",
        )
    except OutputDuplicationError as error:
        first, *others = sorted(error.stages, key=lambda stage: stage.name)
        message = f"is an out of {', '.join(stage.name for stage in others)} as well"
        yield _bad_out(first, error.output, message, "leave it in one of them")
    except DvcException as error:
        yield problem(
            " ".join(str(error).split()),
            file="dvc.yaml",
            advice="edit it; this shows the place: dvc stage list",
        )


def string_floats(project: Project) -> Iterator[Finding]:
    """Numbers like 1e-3 in params.yaml and config/, which YAML 1.1 reads as strings.

    HeteroMARK and DVC read them as numbers. PyYAML does not, and hence neither do Snakemake's
    `--configfile` nor most scripts: they find the string '1e-3'.
    """
    paths = [project.root / "params.yaml", *sorted((project.root / "config").rglob("*.yaml"))]
    for path in filter(Path.is_file, paths):
        shown = project.shown(path)
        for line, key, text, spelt in _misread_in(path):
            pattern = text.replace(".", r"\.")
            yield warning(
                "is a string to what reads YAML 1.1: PyYAML, Snakemake's --configfile",
                file=f"{shown}:{line}",
                key=key,
                value=text,
                command=shlex.join(["sed", "-i", f"{line}s/{pattern}/{spelt}/", shown]),
            )


def dvc_root(folder: Path) -> Path | None:
    """The folder of the DVC repository that `folder` lies in."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Path(Repo.find_root(str(folder)))
    except NotDvcRepoError:
        return None


def is_in_dvc(project: Project, paths: list[Path]) -> bool:
    """Whether dvc.lock knows the content of all these files."""
    from dvc.repo import Repo

    if not (project.root / "dvc.lock").is_file() or not dvc_root(project.root):
        return False
    with Repo(str(project.root)) as repo:
        names = [Path(os.path.relpath(path, repo.root_dir)).as_posix() for path in paths]
        return all(repo.dvcfs.isfile(f"/{name}") for name in names)


def _git_error(folder: Path, *arguments: str) -> str:
    """What git complains about, or nothing."""
    told = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return told.stderr.strip() or f"status {told.returncode}" if told.returncode else ""


def _bad_out(stage, out, message: str, advice: str) -> Finding:
    return problem(
        message,
        file=Path(stage.relpath).as_posix(),
        key=f"stages.{stage.name}.outs",
        value=str(out),
        advice=f"{advice}; then: dvc status",
    )


def _misread_in(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line, dotted key, text and unmistakable spelling of each such number in a YAML file."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # the check of the configuration tells
    if root:
        for key, node in _scalars(root, ""):
            is_plain_string = not node.style and node.tag == "tag:yaml.org,2002:str"
            if is_plain_string and isinstance(parse_value(node.value), float):
                yield node.start_mark.line + 1, key, node.value, _spelt(node.value)


def _scalars(node: yaml.Node, key: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    if isinstance(node, yaml.ScalarNode):
        yield key, node
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _scalars(item, f"{key}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        for name, item in node.value:
            yield from _scalars(item, f"{key}.{name.value}" if key else str(name.value))


def _spelt(number: str) -> str:
    """With the point and the sign of the exponent that YAML 1.1 asks for: 1e3 → 1.0e+3."""
    mantissa, mark, exponent = number.lower().partition("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    sign = "" if not mark or exponent[0] in "+-" else "+"
    return f"{mantissa}{mark}{sign}{exponent}"
