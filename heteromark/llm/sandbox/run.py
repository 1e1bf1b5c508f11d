"""Run a program in the sandbox, and detect which protections this machine supports.

The sandbox has three layers and uses each one that the machine supports:

- namespaces: the program sees no other process and no network. Its file system contains only the
  standard library (read-only) and an empty folder in memory. Needs CAP_SYS_ADMIN as root, otherwise
  user namespaces; containers and some distributions forbid both.
- Landlock (Linux 5.13): the program can open only these files, even if it sees others.
- seccomp (x86-64 only): the program cannot start processes or programs, open sockets or send
  signals.

Namespaces or seccomp alone block the network and other processes. Namespaces or Landlock alone
protect files. The following always holds: CPU time, address space, files and threads are limited;
the environment is empty except for the hash seed; root switches to another user if it can; output
is read up to a limit; all started processes are killed at the end.

Not prevented: kernel bugs and side channels such as timing and load. Without namespaces, the
program can see names, sizes and times of outside files (not their content), and its files are on
disk until it ends. Without seccomp, its child processes can use up to `_THREADS` times its memory.
The program can always read the standard library, but never `site-packages`.
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

# -I would ignore PYTHONHASHSEED. With no other variable set, -P -s -S is equivalent to -I -S.
_OPTIONS = ("-P", "-s", "-S", "-B", "-X", "utf8")
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_CONTAIN = Path(__file__).with_name("contain.py")
_LAYERS = ("namespaces", "landlock", "seccomp")
_GRACE_SECONDS = 30.0  # time for starting or ending a process on a loaded machine
_THREADS = 32
_FILES = 32
_FILE_MIB = 8
_FOLDER_MIB = 16
_SMALLEST_MIB = 64
# systemd's range of dynamic users. Unlike `nobody`, they are not used by other processes, so the
# limit on threads counts only this program's threads.
_USERS = range(61184, 65520)
_CHUNK = 65536
_TOO_MUCH = "too much output"


class SandboxError(RuntimeError):
    """The sandbox could not be set up. The program did not run."""


@dataclass(frozen=True)
class Isolation:
    """The layers that the sandbox can use; see the module's description."""

    namespaces: bool
    landlock: bool
    seccomp: bool

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the usable layers."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    @property
    def files(self) -> bool:
        """Whether the program can neither read nor write files outside its folder."""
        return self.namespaces or self.landlock

    @property
    def network(self) -> bool:
        """Whether the program cannot connect to anything, on this machine or another."""
        return self.namespaces or self.seccomp

    @property
    def processes(self) -> bool:
        """Whether the program cannot access other processes or leave processes behind."""
        return self.namespaces or self.seccomp

    @property
    def unprotected(self) -> tuple[str, ...]:
        """What the sandbox does not protect: any of files, network, processes."""
        return tuple(n for n in ("files", "network", "processes") if not getattr(self, n))


@dataclass(frozen=True)
class Finished:
    """The result of a program.

    Attributes:
        status: its exit status, or the negative number of the signal that ended it.
        stdout, stderr: its output, up to the limit; invalid UTF-8 is replaced.
        reason: why it failed, in a few words; empty for exit status 0.
        seconds: wall-clock time of the program, excluding the sandbox's setup.
    """

    status: int
    stdout: str
    stderr: str
    reason: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended with exit status 0, without being killed."""
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
    """Run a Python program in a new sandboxed interpreter and wait until it ends.

    The interpreter runs as with `python -I -S`: no packages, no user files, no environment. String
    hashes are not randomised, so runs are reproducible.

    Args:
        source: the program.
        stdin: its standard input.
        timeout: wall-clock limit in seconds, excluding the start of the interpreter.
        memory_mib: limit of its address space, including about 30 MiB of the interpreter; at
            least 64.
        output_limit: limit in bytes, for each of stdout and stderr; the program is killed if it
            writes more.
        within: the layers to use; None: all that this machine supports.

    Raises:
        ValueError: A limit is too small.
        SandboxError: The system is not Linux, or a requested layer failed. The program did not run.
    """
    if not (timeout > 0 and memory_mib >= _SMALLEST_MIB and output_limit > 0):
        raise ValueError(
            f"timeout ({timeout}) and output_limit ({output_limit}) must be above 0; memory_mib "
            f"({memory_mib}) must be at least {_SMALLEST_MIB}"
        )
    if not sys.platform.startswith("linux"):
        raise SandboxError(
            "generated programs run only on Linux, where they can be sandboxed, but this system is "
            f"{sys.platform}: use a Linux machine or container"
        )
    if within is None:
        within = isolation()
        _warn_of(within.unprotected)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _file_of(source) as program,
        _file_of(stdin) as input_file,
    ):
        report_reader, report_writer = os.pipe()
        job = {
            "source": program.fileno(),
            "report": report_writer,
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
                stdin=input_file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                pass_fds=(program.fileno(), report_writer),
                start_new_session=True,
            )
        except BaseException:
            os.close(report_reader)
            raise
        finally:
            os.close(report_writer)
        with process, open(report_reader, "rb", buffering=0) as reports:
            try:
                return _Watch(process, reports, timeout, output_limit).finished()
            finally:
                _end(process)


@functools.cache
def isolation() -> Isolation:
    """Return the layers that this machine supports, tested once per process.

    Raises:
        SandboxError: The system is not Linux, or cannot run a program even without any layer.
    """
    none = dict.fromkeys(_LAYERS, False)
    _try_out(Isolation(**none))
    return Isolation(**{layer: _works(Isolation(**{**none, layer: True})) for layer in _LAYERS})


def _works(within: Isolation) -> bool:
    try:
        _try_out(within)
    except SandboxError:
        return False
    return True


def _try_out(within: Isolation) -> None:
    # import a module that is not loaded yet, to test that the standard library is readable
    result = run_program("import colorsys", timeout=10, memory_mib=256, within=within)
    if not result.ok:
        raise SandboxError(
            f"the sandbox cannot run a program that imports one module: {result.reason}"
        )


@functools.cache
def _warn_of(unprotected: tuple[str, ...]) -> None:
    if unprotected:
        warnings.warn(
            f"the sandbox cannot protect {', '.join(unprotected)} on this machine from generated "
            "programs: it lacks user namespaces, Landlock or seccomp. Use a container or virtual "
            "machine without valuable data",
            stacklevel=3,
        )


@contextmanager
def _file_of(text: str) -> Iterator[IO[bytes]]:
    # a model's text may contain lone surrogates, which UTF-8 cannot encode: replace them
    with tempfile.TemporaryFile() as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.flush()
        # reopen it read-only, so that the program cannot write to it
        with open(f"/proc/self/fd/{file.fileno()}", "rb") as readable:
            yield readable


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program via the waiting process, then kill everything left in the session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Watch:
    """Reads a program's output, up to the limits, until the program ends."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reports: IO[bytes],
        timeout: float,
        output_limit: int,
    ) -> None:
        assert process.stdout is not None, "started with a pipe for stdout"
        assert process.stderr is not None, "started with a pipe for stderr"
        self.process = process
        self.timeout = timeout
        self.limit = output_limit
        self.reports = reports
        self.stdout: IO[bytes] = process.stdout
        self.stderr: IO[bytes] = process.stderr
        self.texts = {stream: bytearray() for stream in (reports, self.stdout, self.stderr)}
        self.started: float | None = None
        self.deadline = time.monotonic() + _GRACE_SECONDS

    def finished(self) -> Finished:
        """Wait until the program ends or exceeds a limit, and return its result."""
        killed = self._follow()
        seconds = time.monotonic() - (self.started or time.monotonic())
        _end(self.process)
        self._read_rest()
        if not killed and self._too_much():
            killed = _TOO_MUCH
        report = self._report()
        stderr = self._text(self.stderr)
        if "ready" not in report:
            reason = report.get("failed") or stderr.strip() or killed
            raise SandboxError(f"the sandbox could not be set up: {reason or 'it ended early'}")
        status = int(report.get("status", -signal.SIGKILL))
        return Finished(
            status=status,
            stdout=self._text(self.stdout),
            stderr=stderr,
            reason=killed or _failure(status, stderr),
            seconds=seconds,
        )

    def _follow(self) -> str:
        """Read until the program ends. Return the reason if it must be killed, else ""."""
        with selectors.DefaultSelector() as selector:
            for stream in self.texts:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, stream)
            while self.reports in selector.get_map():
                left = self.deadline - time.monotonic()
                if left <= 0:
                    return "timed out"
                for key, _ in selector.select(left):
                    if not self._read(key.data):
                        selector.unregister(key.fileobj)
                if self._too_much():
                    return _TOO_MUCH
                if self.started is None and "ready" in self._report():
                    self.started = time.monotonic()
                    self.deadline = self.started + self.timeout
        return ""

    def _read(self, stream: IO[bytes]) -> bool:
        """Read once. Return whether there may be more."""
        try:
            chunk = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        self.texts[stream] += chunk
        return bool(chunk)

    def _read_rest(self) -> None:
        # non-blocking: if a process still holds the stream open, do not wait for it
        while self._read(self.reports):
            pass
        for stream in (self.stdout, self.stderr):
            while len(self.texts[stream]) <= self.limit and self._read(stream):
                pass

    def _too_much(self) -> bool:
        return any(len(self.texts[stream]) > self.limit for stream in (self.stdout, self.stderr))

    def _report(self) -> dict[str, str]:
        lines = self.texts[self.reports].decode(errors="replace").splitlines()
        return {word: rest for word, _, rest in (line.partition(" ") for line in lines)}

    def _text(self, stream: IO[bytes]) -> str:
        return self.texts[stream][: self.limit].decode("utf-8", errors="replace")


def _failure(status: int, stderr: str) -> str:
    if status == 0:
        return ""
    lines = stderr.strip().splitlines()
    last = lines[-1][:200] if lines else ""
    if last.startswith("MemoryError"):
        return "out of memory"
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}" + (f": {last}" if last else "")
