"""Projects to run commands in, as a user would run them."""

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

# What a project folder consists of, as git has it.
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

# Two minutes of workflow in seconds: the same steps on very short runs.
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
    """A project folder that commands run in as a user would run them.

    `store` is the run store of its commands; None: that of the test. `patience` is how many seconds
    a command may take.
    """

    folder: Path
    store: Path | None = None
    patience: float = 600

    def run(self, *command: str, check: bool = True, **environment: str):
        """Run a command here; `heteromark`, `snakemake` and `dvc` are those of this Python."""
        # Files, not pipes: a daemon that the command leaves behind would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            status = subprocess.run(
                command,
                cwd=self.folder,
                env={**self._environment(), **environment},
                stdout=out,
                stderr=err,
                timeout=self.patience,
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
        """Start a command here in a process group of its own, to be killed."""
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
        # `make test` hands its own options and variables on: the environment, for one.
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
        """Wait until DVC's queue has run everything, and make sure that it succeeded."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            status = self.run("dvc", "queue", "status").stdout
            if "Running" not in status and "Queued" not in status:
                assert "Success" in status, status
                assert "Failed" not in status, status
                return
            time.sleep(1)
        raise AssertionError("the queue did not finish")

    def commit(self, message: str = "a state") -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def copy_project(target: Path, store: Path | None = None) -> Project:
    """A copy of this repository's project files, without results."""
    for name in PROJECT_FILES:
        source, destination = ROOT / name, target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, destination)
    return Project(target, store)


# Runs of the Hydra entry, which does not read params.yaml, in seconds.
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
    """Let the configs below config/ ask for small networks and few frames."""
    for pattern, changes in _SHORTER.items():
        for path in project.folder.glob(pattern):
            text = path.read_text(encoding="utf-8")
            for old, new in changes.items():
                text = re.sub(old, new, text)
            path.write_text(text, encoding="utf-8")
