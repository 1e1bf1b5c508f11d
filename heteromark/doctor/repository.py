"""Checks of the project's files: required files, configs, git, DVC and its stages, YAML numbers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from heteromark.config.errors import ConfigError
from heteromark.config.files import parse_value
from heteromark.doctor.finding import Finding, Project, ok, problem, warning
from heteromark.workflow.plan import make_plan

PROJECT_FILES = ("params.yaml", "Snakefile", "dvc.yaml")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def project_files(project: Project) -> Iterator[Finding]:
    """Check that this is a project's folder."""
    for name in PROJECT_FILES:
        if not (project.root / name).is_file():
            yield problem(
                f"not found in {project.root.resolve()}",
                file=name,
                advice="run the doctor in the project's folder; if this is the folder: "
                f"git checkout -- {name}",
            )


def configuration(project: Project) -> Iterator[Finding]:
    """Check params.yaml and the agent configs, as `heteromark validate` does."""
    if not (project.root / "params.yaml").is_file():
        return  # reported by `project_files`
    try:
        yield ok(f"{len(make_plan(project.root).configs)} configs, all valid")
    except ConfigError as error:
        for fault in error.faults:
            advice = f"edit {fault.file}, then: heteromark validate"
            yield problem(fault.message, fault.file, fault.key, fault.value, advice=advice)


def git(project: Project) -> Iterator[Finding]:
    """Check for a git repository with a commit."""
    if not shutil.which("git"):
        yield problem("git is not installed", advice="install it; on Debian: apt install git")
        return
    error = _git_error(project.root, "rev-parse", "--git-dir")
    if "not a git repository" in error:
        yield problem("this is not a git repository, but DVC needs one", command="git init")
    elif error:  # e.g. git distrusts the folder's owner; its message says what to do
        yield problem(error, advice="follow the message of git")
    elif _git_error(project.root, "rev-parse", "--verify", "HEAD"):
        yield warning(
            "no commit yet: `dvc exp run` needs one, and run records name the commit",
            command="git add --all && git commit --message 'First commit'",
        )


def dvc_repository(project: Project) -> Iterator[Finding]:
    """Check that DVC is initialised here."""
    if dvc_root(project.root):
        return
    in_subfolder = (
        shutil.which("git")
        and not (project.root / ".git").exists()
        and not _git_error(project.root, "rev-parse")
    )
    yield problem(
        "this is not a DVC repository, so `dvc repro` and `dvc exp run` fail",
        command="dvc init --subdir" if in_subfolder else "dvc init",
    )


def dvc_stages(project: Project) -> Iterator[Finding]:
    """Check that DVC loads dvc.yaml and that its outs do not overlap.

    Like every DVC command, this creates `.dvc/tmp` if it is missing.
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
        return  # reported by `git`
    except OverlappingOutputPathsError as error:
        inner, outer = error.overlapping_out, error.parent
        yield _bad_out(
            inner.stage,
            inner,
            f"lies in {outer}, an out of the stage {outer.stage.name}; outs must not overlap",
            f"remove {inner} from the outs of {inner.stage.name}, or let the stage write elsewhere",
        )
    except OutputDuplicationError as error:
        first, *others = sorted(error.stages, key=lambda stage: stage.name)
        message = f"is also an out of {', '.join(stage.name for stage in others)}"
        yield _bad_out(first, error.output, message, "keep it in only one of them")
    except DvcException as error:
        yield problem(
            " ".join(str(error).split()),
            file="dvc.yaml",
            advice="edit it; `dvc stage list` shows where the error is",
        )


def string_floats(project: Project) -> Iterator[Finding]:
    """Find numbers like 1e-3 in params.yaml and config/, which YAML 1.1 reads as strings.

    HeteroMARK and DVC read them as numbers. PyYAML reads the string '1e-3', and so do Snakemake's
    `--configfile` and most scripts.
    """
    paths = [project.root / "params.yaml", *sorted((project.root / "config").rglob("*.yaml"))]
    for path in filter(Path.is_file, paths):
        file = project.display_path(path)
        for line, key, text, spelling in _misread_in(path):
            pattern = text.replace(".", r"\.")
            yield warning(
                "is read as a string by YAML 1.1: PyYAML, Snakemake's --configfile",
                file=f"{file}:{line}",
                key=key,
                value=text,
                command=shlex.join(["sed", "-i", f"{line}s/{pattern}/{spelling}/", file]),
            )


def dvc_root(folder: Path) -> Path | None:
    """Return the root of the DVC repository that contains `folder`, or None."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Path(Repo.find_root(str(folder)))
    except NotDvcRepoError:
        return None


def is_in_dvc(project: Project, paths: list[Path]) -> bool:
    """Return whether DVC tracks all these files."""
    from dvc.repo import Repo

    if not (project.root / "dvc.lock").is_file() or not dvc_root(project.root):
        return False
    with Repo(str(project.root)) as repo:
        names = [Path(os.path.relpath(path, repo.root_dir)).as_posix() for path in paths]
        return all(repo.dvcfs.isfile(f"/{name}") for name in names)


def _git_error(folder: Path, *arguments: str) -> str:
    """Return the error message of a git command; "" if it succeeds."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""


def _bad_out(stage: Any, out: Any, message: str, advice: str) -> Finding:
    """Return a problem with an out of a stage; both are objects of DVC, which has no types."""
    return problem(
        message,
        file=Path(stage.relpath).as_posix(),
        key=f"stages.{stage.name}.outs",
        value=str(out),
        advice=f"{advice}; then: dvc status",
    )


def _misread_in(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield line, dotted key, text and safe spelling of each misread number in a YAML file."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # reported by `configuration`
    if root:
        for key, node in _scalars(root, ""):
            is_plain_string = not node.style and node.tag == "tag:yaml.org,2002:str"
            if is_plain_string and isinstance(parse_value(node.value), float):
                yield node.start_mark.line + 1, key, node.value, _safe_spelling(node.value)


def _scalars(node: yaml.Node, key: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    if isinstance(node, yaml.ScalarNode):
        yield key, node
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _scalars(item, f"{key}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        for name, item in node.value:
            yield from _scalars(item, f"{key}.{name.value}" if key else str(name.value))


def _safe_spelling(number: str) -> str:
    """Add the point and the exponent's sign that YAML 1.1 requires: 1e3 → 1.0e+3."""
    mantissa, mark, exponent = number.lower().partition("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    sign = "" if not mark or exponent[0] in "+-" else "+"
    return f"{mantissa}{mark}{sign}{exponent}"
