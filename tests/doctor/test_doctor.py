"""`heteromark doctor`: each test creates a fault and checks the finding and its fix."""

from __future__ import annotations

import io
import json
from pathlib import Path

from examining import examined, is_ok, only
from projects import Project
from rich.console import Console

from heteromark.doctor import machine, repository
from heteromark.doctor.finding import Finding, Level
from heteromark.doctor.finding import Project as Examined
from heteromark.doctor.report import examine, is_healthy, show


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts and "tmp" not in path.parts[-2:-1]
    }


def test_a_healthy_project_is_healthy_and_is_not_changed(here: Project, own_store: Path):
    own_store.rmdir()
    before = snapshot(here.folder)
    result = here.run("heteromark", "doctor")
    assert ": 0 problems" in result.stdout.splitlines()[-1]
    assert f"run store        {own_store}" in result.stdout
    assert snapshot(here.folder) == before
    assert not own_store.exists()


def test_json_output(here: Project):
    here.write("params.yaml", here.read("params.yaml") + "\ngama: 0.9\n")
    result = here.run("heteromark", "doctor", "--json", check=False)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["healthy"] is False
    (configs,) = (check for check in report["checks"] if check["check"] == "configs")
    assert configs["level"] == "problem"
    (finding,) = configs["findings"]
    assert (finding["file"], finding["key"], finding["value"]) == ("params.yaml", "gama", 0.9)
    assert "Did you mean gamma?" in finding["message"]
    assert finding["advice"] == "edit params.yaml, then: heteromark validate"


def test_the_suggested_commands_turn_an_empty_folder_into_a_repository(empty: Project):
    result = empty.run("heteromark", "doctor", check=False)
    assert result.returncode == 1
    assert "params.yaml: not found in" in result.stdout
    for command in ("git init", "dvc init"):
        assert f"$ {command}\n" in result.stdout
        empty.run(*command.split())
    empty.run("git", "config", "user.email", "tester@example.com")
    empty.run("git", "config", "user.name", "Tester")
    assert is_ok(repository.dvc_repository(examined()))
    uncommitted = only(repository.git(examined()))
    assert uncommitted.level is Level.WARNING
    empty.run("bash", "-c", uncommitted.command)
    assert is_ok(repository.git(examined()))


def test_a_check_that_raises_does_not_stop_the_others():
    def broken(project: Examined) -> list[Finding]:
        raise RuntimeError("no such luck")

    first, second = examine(examined(), (("broken", broken), ("compiler", machine.compiler)))
    assert "RuntimeError: no such luck" in str(only(list(first.findings)))
    assert first.level is Level.PROBLEM
    assert second.findings
    assert not is_healthy((first, second))


def test_a_terminal_gets_symbols_and_colours_and_shared_commands_once(empty: Project):
    empty.write("requirements.lock", "no-such-package==1\nnor-this-one==2\n")
    checks = (("packages", machine.packages), ("compiler", machine.compiler))
    looks = {}
    for is_terminal in (False, True):
        out = io.StringIO()
        show(examine(examined(), checks), Console(file=out, force_terminal=is_terminal, width=40))
        looks[is_terminal] = out.getvalue()
    assert "\x1b[" not in looks[False]
    assert looks[False].startswith(
        "warning  packages\n    requirements.lock: no-such-package = '1'"
    )
    assert looks[False].count("pip install") == 1
    assert looks[True].startswith("\x1b[33m! warning")
    assert "✓ ok" in looks[True]
