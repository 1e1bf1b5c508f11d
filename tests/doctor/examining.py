"""Helpers to run the doctor's checks and to inspect their findings."""

from __future__ import annotations

from pathlib import Path

from heteromark.doctor.finding import Finding, Level
from heteromark.doctor.finding import Project as Examined
from heteromark.runs.store import RunStore


def examined(**options) -> Examined:
    return Examined(Path(), RunStore(), **options)


def only(findings: list[Finding]) -> Finding:
    """Return the only finding."""
    (finding,) = findings
    return finding


def is_ok(findings: list[Finding]) -> bool:
    return all(finding.level is Level.OK for finding in findings)
