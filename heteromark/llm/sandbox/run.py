"""Runs a program in the sandbox, and finds out what the sandbox of this machine contains.

Three layers, each used where the machine has it:

- namespaces: the program sees no other process, no network, and of the file system the standard
  library (read only) and an empty folder in memory. As root this needs CAP_SYS_ADMIN, else user
  namespaces; containers and some distributions forbid both.
- Landlock (Linux 5.13): it opens no file but those, also where it sees others.
- seccomp (x86-64 only): it starts no process and no program, opens no socket, sends no signal.

Any one of namespaces and seccomp keeps it from the network and from other processes; any one of
namespaces and Landlock keeps it from files. Always: limits on CPU time, address space, files and
threads, an environment that tells nothing, another user where this process is root, output read up
to a limit, and an end by SIGKILL of all that was started.

Not contained: faults of the kernel itself, and what timing and load tell of the machine. Without
namespaces, names, sizes and times of files outside can be seen (not what is in them), and what is
written goes to the disk until the program ends. Without seccomp, processes of its own may take up
to `_THREADS` times its memory. The standard library can be read in any case, `site-packages` not.
"""

from __future__ import annotations

import functools
import json
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

# -I would not let the environment fix the hashes; with that one variable, -P -s -S is as -I -S
_OPTIONS = ("-P", "-s", "-S", "-B", "-X", "utf8")
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_CONTAIN = Path(__file__).with_name("contain.py")
_LAYERS = ("namespaces", "landlock", "seccomp")
_PATIENCE = 30.0  # seconds that a loaded machine is given to start or to end a process
_THREADS = 32
_FILES = 32
_FILE_MIB = 8
_FOLDER_MIB = 16
_SMALLEST_MIB = 64
# systemd's range for users that live as long as a process; unlike `nobody`, nobody else has them,
# so that the limit on threads counts this program's alone
_USERS = range(61184, 65520)
_CHUNK = 65536
_TOO_MUCH = "too much output"


class SandboxError(RuntimeError):
    """The sandbox itself could not be set up; the program did not run."""


@dataclass(frozen=True)
class Isolation:
    """What the sandbox has to work with on this machine, by layer; see this module's text."""

    namespaces: bool
    landlock: bool
    seccomp: bool

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers there are."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    @property
    def files(self) -> bool:
        """Whether files outside the program's folder can be neither read nor written."""
        return self.namespaces or self.landlock

    @property
    def network(self) -> bool:
        """Whether no socket reaches anything, on this machine or another."""
        return self.namespaces or self.seccomp

    @property
    def processes(self) -> bool:
        """Whether other processes cannot be reached, and none of the program's own stay behind."""
        return self.namespaces or self.seccomp

    @property
    def lacking(self) -> tuple[str, ...]:
        """What a program is not kept from."""
        return tuple(n for n in ("files", "network", "processes") if not getattr(self, n))


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes:
        status: its exit status, or the negative number of the signal that ended it.
        stdout, stderr: what it wrote, up to the limit; what is not UTF-8 is replaced.
        reason: why it failed, in a few words; empty for exit status 0.
        seconds: wall-clock time that it ran, without the sandbox's own.
    """

    status: int
    stdout: str
    stderr: str
    reason: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit status 0."""
        return not self.reason


def run_program(
    source: str,
    *,
    stdin: str = "",
    timeout: float,
    memory_mib: int,
    output_limit: int = 65536,
    within: Isolation | None = None,
) -> Finished:
    """Run a Python program in a fresh interpreter, in the sandbox, and wait for its end.

    The interpreter is as with `python -I -S`: no packages, no user's files, no environment. String
    hashes are not randomised, so that a program does the same each time.

    Args:
        source: the program.
        stdin: what it reads.
        timeout: seconds that it may take, by the clock; starting the interpreter is not counted.
        memory_mib: its address space, an interpreter's 30 MiB or so among it; at least 64.
        output_limit: bytes of stdout and of stderr; a program that writes more is ended.
        within: the layers to use; all that this machine has when None.

    Raises:
        ValueError: a limit is too small.
        SandboxError: no Linux here, or a layer asked for does not hold. The program did not run.
    """
    if not (timeout > 0 and memory_mib >= _SMALLEST_MIB and output_limit > 0):
        raise ValueError(
            f"timeout ({timeout}) and output_limit ({output_limit}) must be above 0, memory_mib "
            f"({memory_mib}) at least {_SMALLEST_MIB}"
        )
    if not sys.platform.startswith("linux"):
        raise SandboxError(
            f"generated programs are run on Linux only, where they can be contained, not on "
            f"{sys.platform}: use a Linux machine or container"
        )
    if within is None:
        within = isolation()
        _warn_of(within.lacking)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _file_of(source) as program,
        _file_of(stdin) as given,
    ):
        report, reported = os.pipe()
        job = {
            "source": program.fileno(),
            "report": reported,
            "folder": os.path.realpath(folder),
            "layers": within.layers,
            "user": secrets.choice(_USERS),
            "cpu_seconds": math.ceil(timeout) + 1,
            "memory_mib": memory_mib,
            "file_mib": _FILE_MIB,
            "folder_mib": _FOLDER_MIB,
            "threads": _THREADS,
            "files": _FILES,
        }
        try:
            process = subprocess.Popen(
                [sys.executable, *_OPTIONS, str(_CONTAIN), json.dumps(job)],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                pass_fds=(program.fileno(), reported),
                start_new_session=True,
            )
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(reported)
        with process, open(report, "rb", buffering=0) as reports:
            try:
                return _Watch(process, reports, timeout, output_limit).finished()
            finally:
                _end(process)


@functools.cache
def isolation() -> Isolation:
    """What this machine lets the sandbox do, tried out once per process.

    Raises:
        SandboxError: this is not Linux, or not even a program with limits alone can be run.
    """
    none = dict.fromkeys(_LAYERS, False)
    _try_out(Isolation(**none))
    return Isolation(**{layer: _holds(Isolation(**{**none, layer: True})) for layer in _LAYERS})


def _holds(within: Isolation) -> bool:
    try:
        _try_out(within)
    except SandboxError:
        return False
    return True


def _try_out(within: Isolation) -> None:
    # a module that is not loaded yet: the library must be readable
    tried = run_program("import colorsys", timeout=10, memory_mib=256, within=within)
    if not tried.ok:
        raise SandboxError(f"a program of one import fails in the sandbox: {tried.reason}")


@functools.cache
def _warn_of(lacking: tuple[str, ...]) -> None:
    if lacking:
        warnings.warn(
            f"generated programs are not kept from {', '.join(lacking)} on this machine: it has "
            "too few of user namespaces, Landlock and seccomp. Run in a container or a virtual "
            "machine that holds nothing of worth",
            stacklevel=3,
        )


@contextmanager
def _file_of(text: str) -> Iterator[IO[bytes]]:
    # lone surrogates, which a model's text may hold, are no UTF-8
    with tempfile.TemporaryFile() as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.flush()
        # opened again, so that the program cannot write to it
        with open(f"/proc/self/fd/{file.fileno()}", "rb") as readable:
            yield readable


def _end(process: subprocess.Popen) -> None:
    """Let nothing of it run on: the waiting process ends the program, then all of its session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Watch:
    """Reads what a program writes, up to the limits, until it ends."""

    def __init__(
        self, process: subprocess.Popen, reports: IO[bytes], timeout: float, output_limit: int
    ) -> None:
        self.process = process
        self.timeout = timeout
        self.limit = output_limit
        self.reports = reports
        self.outputs = (process.stdout, process.stderr)
        self.texts = {stream: bytearray() for stream in (reports, *self.outputs)}
        self.started: float | None = None
        self.deadline = time.monotonic() + _PATIENCE

    def finished(self) -> Finished:
        """Wait for the end, by itself or by us."""
        cut = self._follow()
        seconds = time.monotonic() - (self.started or time.monotonic())
        _end(self.process)
        self._read_rest()
        if not cut and self._too_much():
            cut = _TOO_MUCH
        report = self._report()
        if "ready" not in report:
            why = report.get("failed") or self._text(self.process.stderr).strip() or cut
            raise SandboxError(f"the sandbox could not be set up: {why or 'it ended early'}")
        status = int(report.get("status", -signal.SIGKILL))
        stderr = self._text(self.process.stderr)
        return Finished(
            status=status,
            stdout=self._text(self.process.stdout),
            stderr=stderr,
            reason=cut or _why(status, stderr),
            seconds=seconds,
        )

    def _follow(self) -> str:
        """Read until the program ends, or tell why it must be ended."""
        with selectors.DefaultSelector() as selector:
            for stream in self.texts:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while self.reports in selector.get_map():
                left = self.deadline - time.monotonic()
                if left <= 0:
                    return "timed out"
                for key, _ in selector.select(left):
                    if not self._read(key.fileobj):
                        selector.unregister(key.fileobj)
                if self._too_much():
                    return _TOO_MUCH
                if self.started is None and "ready" in self._report():
                    self.started = time.monotonic()
                    self.deadline = self.started + self.timeout
        return ""

    def _read(self, stream: IO[bytes]) -> bool:
        """Read once; whether there may be more."""
        try:
            chunk = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        self.texts[stream] += chunk
        return bool(chunk)

    def _read_rest(self) -> None:
        # nobody is left who writes, or whoever is left must not be waited for
        while self._read(self.reports):
            pass
        for stream in self.outputs:
            while len(self.texts[stream]) <= self.limit and self._read(stream):
                pass

    def _too_much(self) -> bool:
        return any(len(self.texts[stream]) > self.limit for stream in self.outputs)

    def _report(self) -> dict[str, str]:
        lines = self.texts[self.reports].decode(errors="replace").splitlines()
        return {word: rest for word, _, rest in (line.partition(" ") for line in lines)}

    def _text(self, stream: IO[bytes]) -> str:
        return self.texts[stream][: self.limit].decode("utf-8", errors="replace")


def _why(status: int, stderr: str) -> str:
    if status == 0:
        return ""
    lines = stderr.strip().splitlines()
    last = lines[-1][:200] if lines else ""
    if last.startswith("MemoryError"):
        return "out of memory"
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}" + (f": {last}" if last else "")
