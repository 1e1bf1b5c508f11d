"""Run all checks and report their findings as text or JSON."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.text import Text

from heteromark.doctor import locks, machine, repository, results
from heteromark.doctor.finding import Finding, Level, Project, problem
from heteromark.workflow.words import counted

Check = Callable[[Project], Iterable[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("project", repository.project_files),
    ("Python", machine.python_version),
    ("packages", machine.packages),
    ("GPU", machine.gpu),
    ("C++ compiler", machine.compiler),
    ("git", repository.git),
    ("DVC", repository.dvc_repository),
    ("DVC stages", repository.dvc_stages),
    ("DVC lock", locks.dvc_lock),
    ("Snakemake lock", locks.snakemake_lock),
    ("configs", repository.configuration),
    ("numbers in YAML", repository.string_floats),
    ("results", results.results),
    ("run store", results.store_location),
    ("stored runs", results.stored_runs),
    ("unfinished runs", results.unfinished_runs),
)

_SYMBOLS = {Level.OK: "✓", Level.NOTE: "i", Level.WARNING: "!", Level.PROBLEM: "✗"}
_STYLES = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
}


@dataclass(frozen=True)
class Examined:
    """One check and its findings."""

    check: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        return max((finding.level for finding in self.findings), default=Level.OK)


def examine(
    project: Project, checks: tuple[tuple[str, Check], ...] = CHECKS
) -> tuple[Examined, ...]:
    """Run all checks. A check that raises is reported as a problem; the others still run."""
    return tuple(Examined(name, tuple(_run(check, project))) for name, check in checks)


def is_healthy(examined: tuple[Examined, ...]) -> bool:
    """Return whether no check found a problem."""
    return all(checked.level < Level.PROBLEM for checked in examined)


def show(examined: tuple[Examined, ...], console: Console) -> None:
    """Print one line per check, then its findings and the commands that fix them."""
    width = max(len(checked.check) for checked in examined)
    for checked in examined:
        facts = [str(finding) for finding in checked.findings if finding.level is Level.OK]
        line = Text.assemble(
            (_word(checked.level, console), _STYLES[checked.level]),
            f"  {checked.check:<{width}}" if facts else f"  {checked.check}",
            (f"  {'; '.join(facts)}" if facts else "", "dim"),
        )
        console.print(line, soft_wrap=True)
        faults = [finding for finding in checked.findings if finding.level > Level.OK]
        remedy = operator.attrgetter("command", "advice")
        for (command, advice), findings in itertools.groupby(faults, key=remedy):
            for finding in findings:
                console.print(Text(f"    {finding}"), soft_wrap=True)
            if command:
                console.print(Text.assemble("      $ ", (command, "bold")), soft_wrap=True)
            if advice:
                console.print(Text(f"      {advice}"), soft_wrap=True)
    console.print(Text(_totals(examined)), soft_wrap=True)


def to_json(examined: tuple[Examined, ...]) -> str:
    """Return all findings as JSON, with the keys of `Finding`."""
    checks = [
        {
            "check": checked.check,
            "level": checked.level.name.lower(),
            "findings": [
                asdict(finding) | {"level": finding.level.name.lower()}
                for finding in checked.findings
            ],
        }
        for checked in examined
    ]
    content = {"healthy": is_healthy(examined), "checks": checks}
    return json.dumps(content, indent=2, default=str)


def _run(check: Check, project: Project) -> list[Finding]:
    try:
        return list(check(project))
    except Exception as error:
        message = f"the check itself failed: {type(error).__name__}: {error}"
        return [problem(message, advice="check this by hand, and report the bug")]


def _word(level: Level, console: Console) -> str:
    word = f"{level.name.lower():<7}"
    with_symbol = console.is_terminal and not console.options.ascii_only
    return f"{_SYMBOLS[level]} {word}" if with_symbol else word


def _totals(examined: tuple[Examined, ...]) -> str:
    levels = [finding.level for checked in examined for finding in checked.findings]
    problems, warnings = levels.count(Level.PROBLEM), levels.count(Level.WARNING)
    return f"{len(examined)} checks: {counted(problems, 'problem')}, {counted(warnings, 'warning')}"
