"""Project folders in which tests run commands as a user would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

# The files of a project folder that are in git.
PROJECT_FILES = (
    "Snakefile",
    "dvc.yaml",
    "params.yaml",
    "requirements.lock",
    ".dvcignore",
    ".gitignore",
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots",
    "config",
    "environments",
    "extensions",
    "heteromark",
    "profiles",
    "workflow",
)

# Very short runs: the workflow takes seconds instead of two minutes.
TINY = {
    "n_steps": 64,
    "batch_size": 64,
    "n_epochs": 1,
    "network": {"net_arch": [8]},
    "num_parallel_envs": 4,
    "checkpoint_interval": 2,
    "smoke": {"total_frames": 256, "seeds": [0, 1], "eval_episodes": 2},
    "full": {"total_frames": 512, "seeds": [0], "eval_episodes": 4},
}


@dataclass
class Project:
    """A project folder in which tests run commands as a user would.

    Attributes:
        folder: the project's folder.
        store: the run store of its commands; None: the store of the test.
        timeout: time limit of a command, in seconds.
    """

    folder: Path
    store: Path | None = None
    timeout: float = 600

    def run(self, *command: str, check: bool = True, **environment: str):
        """Run a command here; `heteromark`, `snakemake` and `dvc` belong to this Python."""
        # Use files instead of pipes: a daemon left by the command would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            status = subprocess.run(
                command,
                cwd=self.folder,
                env={**self._environment(), **environment},
                stdout=out,
                stderr=err,
                timeout=self.timeout,
                check=False,
            ).returncode
            out.seek(0)
            err.seek(0)
            result = subprocess.CompletedProcess(command, status, out.read(), err.read())
        if check and result.returncode:
            raise AssertionError(
                f"{' '.join(command)} exited with {result.returncode}\n"
                f"{result.stdout}\n{result.stderr}"
            )
        return result

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command here in a new process group, so that it can be killed."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        binaries = str(Path(sys.executable).parent)
        own_store = {"HETEROMARK_STORE": str(self.store)} if self.store else {}
        # `make test` passes its options on in MAKEFLAGS.
        inherited = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
        return {
            **inherited,
            **own_store,
            "PATH": os.pathsep.join([binaries, os.environ["PATH"]]),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def read(self, path: str) -> str:
        return (self.folder / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def set_params(self, **changes) -> None:
        """Change params.yaml; dictionaries are merged one level deep."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            params[key] = {**params[key], **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def wait_for_queue(self) -> None:
        """Wait until DVC's queue is done; fail if an experiment failed."""
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            status = self.run("dvc", "queue", "status").stdout
            if "Running" not in status and "Queued" not in status:
                assert "Success" in status, status
                assert "Failed" not in status, status
                return
            time.sleep(1)
        raise AssertionError(f"the queue did not finish within {self.timeout} seconds")

    def commit(self, message: str = "a state") -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def copy_project(target: Path, store: Path | None = None) -> Project:
    """Copy this repository's project files, without results."""
    for name in PROJECT_FILES:
        source, destination = ROOT / name, target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, destination)
    return Project(target, store)


# Changes that make runs of the Hydra entry point, which does not read params.yaml, take seconds.
_SHORTER = {
    "config/agents/*.yaml": {
        r"n_steps: \d+": "n_steps: 512",
        r"batch_size: 1024": "batch_size: 512",
        r"n_epochs: \d+": "n_epochs: 1",
        r"net_arch: .*": "net_arch: [8]",
    },
    "config/model/tiny.yaml": {
        "hidden_size: 128": "hidden_size: 16",
        "num_layers: 4": "num_layers: 1",
        "num_heads: 4": "num_heads: 2",
        "batch_size: 32": "batch_size: 4",
    },
    "config/environment/*.yaml": {r"warm_up_steps: \d+": "warm_up_steps: 3"},
    "config/*/*_model.yaml": {r"warm_up_steps: \d+": "warm_up_steps: 3"},
    "config/training/*.yaml": {
        r"total_frames: (\d+|\${larger.*)": "total_frames: 256",
        r"num_batches: \d+": "num_batches: 1",
    },
    "config/evaluation/*.yaml": {r"episodes: \d+": "episodes: 2"},
    "config/fast_debug_config.yaml": {r"n_epochs: \d+": "n_epochs: 1"},
    "config/high_performance_config.yaml": {r"n_steps: \d+": "n_steps: 1024"},
}


def shorten_configs(project: Project) -> None:
    """Set small networks and few frames in the files of config/."""
    for pattern, changes in _SHORTER.items():
        for path in project.folder.glob(pattern):
            text = path.read_text(encoding="utf-8")
            for old, new in changes.items():
                text = re.sub(old, new, text)
            path.write_text(text, encoding="utf-8")
