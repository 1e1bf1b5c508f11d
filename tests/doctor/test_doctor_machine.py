"""The doctor's checks of Python, packages, GPU and compiler."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from examining import examined, is_ok, only
from projects import Project

from heteromark.doctor import machine
from heteromark.doctor.finding import Level


def test_versions_other_than_in_the_lock_file_are_reported(empty: Project):
    empty.write(
        "requirements.lock",
        "# a comment\n--prefer-binary\n"
        f"PyYAML=={yaml.__version__}  # as installed\n"
        "psutil==0.0.1\n"
        "No_Such.Package==1.0\n"
        "other-system==1.0 ; sys_platform == 'nowhere'\n"
        "torch==2\n",
    )
    older, absent, torch = machine.packages(examined())
    assert (older.file, older.key, older.value) == ("requirements.lock", "psutil", "0.0.1")
    assert older.message == f"{psutil.__version__} is installed"
    assert absent.message == "is not installed"
    assert "run's identity" in torch.message
    assert {finding.level for finding in (older, absent, torch)} == {Level.WARNING}
    assert older.command.endswith(" -m pip install --requirement requirements.lock")

    empty.write("requirements.lock", f"psutil=={psutil.__version__}\nnumpy=1\n")
    faulty = only(machine.packages(examined()))
    assert (faulty.level, faulty.value) == (Level.PROBLEM, "numpy=1")
    assert "line 2 does not parse" in faulty.message


def test_only_the_public_version_is_compared(empty: Project):
    public = machine.metadata.version("torch").partition("+")[0]
    empty.write("requirements.lock", f"torch=={public}\n")
    assert is_ok(machine.packages(examined()))


def test_an_old_python_is_reported(empty: Project):
    empty.write("pyproject.toml", "[project]\nrequires-python = '>=3.11'\n")
    assert is_ok(machine.python_version(examined()))
    empty.write("pyproject.toml", "[project]\nrequires-python = '>=3.99'\n")
    finding = only(machine.python_version(examined()))
    assert finding.level is Level.PROBLEM
    assert (finding.key, finding.value) == ("project.requires-python", ">=3.99")


def test_a_gpu_that_torch_cannot_use_is_reported(tmp_path: Path, monkeypatch):
    """With a fake nvidia-smi, because there may be no GPU, and the real torch."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA Stand-in (UUID: GPU-0)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = only(machine.gpu(examined()))
    assert finding.level is Level.WARNING
    assert finding.key == "torch"
    assert "GPU 0: NVIDIA Stand-in" in finding.message
    import torch

    if torch.version.cuda is None:
        assert "without CUDA" in finding.message
        assert finding.command.endswith("pip install --requirement requirements.lock")
    else:
        assert finding.command == "unset CUDA_VISIBLE_DEVICES"


def test_without_a_gpu_torch_is_not_imported(here: Project):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from heteromark.doctor.finding import Project\n"
        "from heteromark.doctor.report import examine\n"
        "from heteromark.runs.store import RunStore\n"
        "examine(Project(Path(), RunStore()))\n"
        "assert 'torch' not in sys.modules\n"
    )
    if machine._gpus():
        pytest.skip("there is a GPU here")
    here.run(sys.executable, "-c", code)


def test_no_compiler_is_only_a_note(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = only(machine.compiler(examined()))
    assert (finding.level, finding.key) == (Level.NOTE, "skirmish.compile")
    (tmp_path / "clang++").write_text("#!/bin/sh\n")
    (tmp_path / "clang++").chmod(0o755)
    assert is_ok(machine.compiler(examined()))
