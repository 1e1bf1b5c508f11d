"""Check that a run's identity covers the project's code and data that the run really uses.

An audit hook notes the files that a run's processes open for reading, which includes the modules
that they import. A file of the project that is not part of the run's identity fails the run:
otherwise a change of this file would go unnoticed, and an outdated result would be taken from the
store.

This concerns all files below the working directory, and modules in any other folder into which
nothing was installed. Not noticed: what libraries written in C open themselves, other programs, the
network, and the time.
"""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heteromark.runs.files import sha256_of
from heteromark.runs.store import default_store

if TYPE_CHECKING:
    from types import FrameType

    from heteromark.config.models.run import RunConfig

# Names the file to which all processes of a run write what they read.
VARIABLE = "HETEROMARK_USED_FILES"
# Folders that describe an installed package; libraries search them for plugins.
_METADATA = (".egg-info", ".dist-info")
# Folders at the top of a project that belong to its tools, or to others if it is a home folder.
_TOOLS = (
    *(".git", ".dvc", ".snakemake", ".hydra", "logs", "mlruns", "wandb"),
    *(".cache", ".config", ".local", ".conda", ".pyenv", ".ipython", ".nv", ".triton"),
)
# Modules that read source code to show it, not to run it.
_READERS = ("linecache", "inspect", "tokenize", "coverage")
_SHOWN = 5  # faults in a message
_HASHED = 2**26  # bytes; larger files are compared by size and modification time only


class UnsealedRun(ValueError):
    """A run used files that its identity does not cover."""


def note_reads() -> None:
    """Note from now on what this process reads; forget earlier notes.

    In a process that a run started, the notes are for that run.
    """
    global _notes
    if _notes is None:
        sys.addaudithook(_on_event)
    _notes = _Notes()
    _loaded.clear()


class _Notes:
    """The files of the project that this process reads, in the order of their first reading."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, list[int]]] = []  # path and signature
        self.begin()

    def begin(self) -> None:
        """Note files again that were read before."""
        self._known: set[Any] = set()  # paths as given
        self._written: set[str] = set()
        self._project, self._searched = _beginnings([""]), _beginnings(sys.path)
        self._others = _beginnings(_other_folders())

    def add(self, given: Any, flags: int) -> None:
        """Note that a file is opened; see `os.open` for the flags."""
        if isinstance(given, int) or given in self._known:
            return
        path = os.path.abspath(os.fsdecode(given))
        is_module = path.endswith((".py", ".pyc", ".so"))
        places = self._project + self._searched if is_module else self._project
        if (
            not path.startswith(places)
            or path.startswith(self._others)
            or os.path.dirname(path).endswith(_METADATA)
        ):
            self._known.add(given)
            return
        if flags & (os.O_WRONLY | os.O_TRUNC) or (flags & os.O_CREAT and not os.path.exists(path)):
            self._written.add(path)
            return
        self._known.add(given)
        if path.endswith(".pyc"):
            path = _source_of(path)
        if path in self._written or (path.endswith(".py") and _is_shown(sys._getframe(2))):
            return
        if not (signature := _signature(path)):
            return
        self.entries.append((path, signature))
        if sink := os.environ.get(VARIABLE):
            with open(sink, "a", encoding="utf-8") as file:
                file.write(json.dumps(self.entries[-1]) + "\n")


_notes: _Notes | None = None
# Modules that earlier runs in this process loaded, by the import paths of their configs: they are
# not loaded again.
_loaded: dict[tuple[str, ...], list[tuple[str, list[int]]]] = {}


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        opened, flags = arguments[0], arguments[2]
    elif event == "import":  # the file name is that of an extension module
        opened, flags = arguments[1], 0
    elif event in ("sqlite3.connect", "ctypes.dlopen"):
        opened, flags = arguments[0], 0
    else:
        return
    if _notes is not None and opened is not None:
        # An error here would look like an error of the program that opens the file.
        with suppress(OSError, TypeError, ValueError):
            _notes.add(opened, flags)


def _beginnings(folders: Iterable[str]) -> tuple[str, ...]:
    """Return the beginnings of all paths below these folders."""
    return tuple({f"{os.path.abspath(path)}{os.sep}" for path in folders})


def _other_folders() -> set[str]:
    """Return the folders that are not the project's: of packages, stores and tools."""
    paths, packages = sysconfig.get_paths(), {"site-packages", "dist-packages"}
    installed = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    installed |= {path for path in sys.path if packages.intersection(Path(path).parts)}
    if sys.prefix != sys.base_prefix:
        installed.add(sys.prefix)
    return {*installed, str(Path(__file__).parent.parent), str(default_store()), *_TOOLS}


def _source_of(path: str) -> str:
    try:
        return importlib.util.source_from_cache(path)
    except ValueError:
        return path


def _is_shown(frame: FrameType | None) -> bool:
    """Return whether source code is read by something that shows it."""
    for _ in range(10):
        if frame is None:
            break
        if frame.f_globals.get("__name__", "").partition(".")[0] in _READERS:
            return True
        frame = frame.f_back
    return False


def _signature(path: str | Path) -> list[int]:
    """Return size and modification time; [] if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else []


def _hash(path: str) -> str | None:
    """Return a file's SHA-256; None if it is missing or large."""
    if not os.path.isfile(path) or os.path.getsize(path) > _HASHED:
        return None
    return sha256_of(Path(path))


# --- of one run -----------------------------------------------------------------------------------


class Seal:
    """Compares what a run uses with its identity. Create it right after the run's digest.

    Args:
        config: the run.

    Attributes:
        used: SHA-256 of the project's files that the identity covers, by path: relative to the
            working directory if they are below it. None: a large file.
    """

    def __init__(self, config: RunConfig) -> None:
        # not needed in the processes that a run starts
        from heteromark.runs.digest import covered_files

        self._environment = config.environment.name
        self._import_paths = tuple(sorted(config.import_paths.values()))
        paths = sorted({os.path.realpath(path) for path in covered_files(config)})
        self._covered = {path: _signature(path) for path in paths}
        self._hashes = {path: _hash(path) for path in paths}
        self.used = {_shown(path): digest for path, digest in self._hashes.items()}
        self._sink: Path | None = None
        self._checked = 0  # bytes of the sink
        self._faults: list[str] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what this process, and those it starts, read."""
        if _notes is None:
            note_reads()
        assert _notes is not None, "`note_reads` sets it"
        earlier = _loaded.get(self._import_paths, [])
        _notes.entries.clear()
        _notes.begin()
        with tempfile.NamedTemporaryFile("w", prefix="heteromark-", suffix=".jsonl") as sink:
            sink.writelines(json.dumps(entry) + "\n" for entry in earlier)
            sink.flush()
            self._sink = Path(sink.name)
            os.environ[VARIABLE] = sink.name
            try:
                yield
            finally:
                del os.environ[VARIABLE]
                loaded = [e for e in (*earlier, *_notes.entries) if e[0].endswith(".py")]
                _loaded[self._import_paths] = loaded
                _notes.entries.clear()

    def check(self) -> None:
        """Compare the files that were read since the last check.

        A fault is raised by every later check, too: all runs of a process may use what one of them
        has read.

        Raises:
            UnsealedRun: the identity does not cover some of them, or they changed before they were
                read.
        """
        assert self._sink is not None, "only within `noting`"
        if self._sink.stat().st_size > self._checked:
            with self._sink.open(encoding="utf-8") as file:
                file.seek(self._checked)
                lines = file.readlines()
                self._checked = file.tell()
            self._faults += self._faults_of(lines)
        if self._faults:
            different = [*dict.fromkeys(self._faults)]
            more = len(different) - _SHOWN
            shown = different[:_SHOWN] + ([f"and {more} more such files"] if more > 0 else [])
            raise UnsealedRun("\n".join(shown))

    def _faults_of(self, lines: list[str]) -> list[str]:
        faults = []
        for given, signature in map(json.loads, lines):
            path = os.path.realpath(given)
            if path not in self._covered:
                faults.append(self._uncovered(given))
            elif self._has_changed(path, signature):
                faults.append(
                    f"{_shown(given)} changed after the run's identity was computed; run the same "
                    "command again"
                )
        return faults

    def check_at_end(self) -> None:
        """Check what was read since the last `check`, and that data did not change meanwhile.

        Raises:
            UnsealedRun: see `check`; or data changed during the run.
        """
        self.check()
        self._require_unchanged_data()

    def _has_changed(self, path: str, signature: list[int]) -> bool:
        if signature == self._covered[path]:
            return False
        return self._hashes[path] is None or _hash(path) != self._hashes[path]

    def _uncovered(self, path: str) -> str:
        remedy = (
            f"declare it with `files: [{_shown(path)}]` under `environment:` in "
            f"config/environment/{self._environment}.yaml"
        )
        if path.endswith(".py"):
            return (
                f"the run loaded {_shown(path)}, which no import in its code names, so a change of "
                f"it would go unnoticed. Import it with a plain `import` statement, or {remedy}"
            )
        return (
            f"the run read {_shown(path)}, which is not part of its identity, so a change of it "
            f"would go unnoticed. If it is an input, {remedy}; if not, move it out of the project"
        )

    def _require_unchanged_data(self) -> None:
        changed = [
            _shown(path)
            for path in self._covered
            if not path.endswith(".py") and self._has_changed(path, _signature(path))
        ]
        if changed:
            raise UnsealedRun(
                f"{', '.join(changed)} changed while the run was trained, so its result belongs to "
                "neither content; run the same command again"
            )


def _shown(path: str) -> str:
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
