"""Project folders in which tests run commands as a user would."""

from __future__ import annotations

import compileall
import contextlib
import functools
import io
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import warm
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

FACTORY_TRAIN = "heteromark.training.factory_train"

# Namespace packages for a user's code.
USERS_FOLDERS = ("environments", "extensions")

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
        trainer: "stub" invents figures (see `heteromark.commands.stub`), for tests that do not
            depend on what is learned; None: torch trains.
        timeout: time limit of a command, in seconds.
    """

    folder: Path
    store: Path | None = None
    trainer: str | None = None
    timeout: float = 600

    def run(
        self, *command: str, check: bool = True, own_process: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here; `heteromark`, `snakemake` and `dvc` are the programs of this Python.

        Our own commands run inside the test's process, where torch is imported once for all tests,
        unless they start processes themselves or the test asks for a process.
        """
        environment = {**self._environment(), **environment}
        entry = None if own_process else entry_of(command)
        if entry is None:
            result = self._in_a_process(command, environment)
        else:
            result = in_this_process(entry, self.folder, command, environment)
        if check and result.returncode:
            raise AssertionError(
                f"{' '.join(command)} exited with {result.returncode}\n"
                f"{result.stdout}\n{result.stderr}"
            )
        return result

    def paste(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of a document, in a shell unless it is one plain command of ours."""
        words = shlex.split(line)
        if words[0] == "heteromark" and not re.search(r"[*?$|&;<>]|\[", line):
            return self.run(*words)
        if words[:3] == ["python", "-m", FACTORY_TRAIN] and not re.search(r"[$|&;<>]", line):
            return self.run(*words)
        return self.run("bash", "-c", line)

    def _in_a_process(
        self, command: tuple[str, ...], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        # Files, not pipes: a daemon that the command leaves behind would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            status = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                stdout=out,
                stderr=err,
                timeout=self.timeout,
                check=False,
            ).returncode
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, status, out.read(), err.read())

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command here in a new process group, so that it can be killed.

        Its processes are not forked by `warm`, so that a signal reaches all of them at once.
        """
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(is_warm=False),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _environment(self, is_warm: bool = True) -> dict[str, str]:
        binaries = [str(Path(sys.executable).parent)]
        if is_warm:
            binaries.insert(0, str(warm.programs()))
        own = {"HETEROMARK_STORE": self.store, "HETEROMARK_TRAINER": self.trainer}
        # `make test` passes its options on in MAKEFLAGS; without bytecode every process compiles us.
        not_ours = ("MAKEFLAGS", "PYTHONDONTWRITEBYTECODE")
        inherited = {key: value for key, value in os.environ.items() if key not in not_ours}
        return {
            **inherited,
            **{key: str(value) for key, value in own.items() if value},
            "PATH": os.pathsep.join([*binaries, os.environ["PATH"]]),
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


def entry_of(command: tuple[str, ...]) -> Callable[[], object] | None:
    """What a process of the command would call; None: another program, or one that starts some."""
    from heteromark import cli
    from heteromark.commands.console import exit_on_expected_errors
    from heteromark.training import factory_train

    if command[0] == "heteromark":
        return None if command[1:2] in (("sweep",), ("ui",)) else cli.main
    if command[1:3] != ("-m", FACTORY_TRAIN):
        return None

    def train() -> None:
        with exit_on_expected_errors():
            sys.exit(factory_train.main(list(command[3:])))

    return train


def in_this_process(
    entry: Callable[[], object], folder: Path, command: tuple[str, ...], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Call an entry point as a process would that starts in `folder`."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _as_if_started_in(folder, command, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = 0
        try:
            entry()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def _forget_files() -> None:
    """Clear what is remembered for a process, of files that another project has as well."""
    from heteromark.config.compose import composition
    from heteromark.runs import code

    for remembers in (
        composition._component_tree,
        code.source_fingerprint,
        code.code_of,
        code.files_of,
    ):
        remembers.cache_clear()


@contextlib.contextmanager
def _as_if_started_in(
    folder: Path, command: tuple[str, ...], environment: dict[str, str]
) -> Iterator[None]:
    """Lend what a process has to itself, and take it back."""
    from heteromark.runs import seal

    old_folder, old_environment = Path.cwd(), dict(os.environ)
    old_path, old_arguments = sys.path.copy(), sys.argv
    loggers = {name: logging.getLogger(name) for name in ("", "heteromark")}
    old_logging = {name: (log.level, log.handlers.copy()) for name, log in loggers.items()}
    _forget_files()
    seal.note_reads()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [place for place in sys.path if place not in ("", str(old_folder))]
    sys.argv = list(command)
    loggers[""].handlers.clear()
    try:
        yield
    finally:
        for name, (level, handlers) in old_logging.items():
            loggers[name].setLevel(level)
            loggers[name].handlers[:] = handlers
        sys.path[:], sys.argv = old_path, old_arguments
        os.environ.clear()
        os.environ.update(old_environment)
        os.chdir(old_folder)
        _forget_files()
        for name, module in list(sys.modules.items()):
            place = module.__dict__.get("__file__")
            if name in USERS_FOLDERS or (place and _is_users(Path(place), folder)):
                del sys.modules[name]


def _is_users(file: Path, folder: Path) -> bool:
    """Whether a module belongs to the project, which may be the repository itself."""
    return file.is_relative_to(folder) and file.parent.name in (folder.name, *USERS_FOLDERS)


@functools.cache
def _compile() -> None:
    """Write heteromark's bytecode, so that not every copy of it is compiled."""
    compileall.compile_dir(ROOT / "heteromark", quiet=1)


def copy_project(target: Path, store: Path | None = None, trainer: str | None = None) -> Project:
    """Copy this repository's project files, without results."""
    _compile()
    for name in PROJECT_FILES:
        source, destination = ROOT / name, target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, destination)
        else:
            shutil.copy(source, destination)
    return Project(target, store, trainer)


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
