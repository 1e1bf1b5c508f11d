"""Programs that start at once: forked from a process that has imported their libraries.

A test of the workflow starts dozens of processes, and most of their time is imports. So a server
imports the libraries once per session. Instead of `snakemake`, `dvc` and `python`, small clients lie
on PATH. They send arguments, folder, environment and open files to the server, which
forks a process that runs the real program. heteromark itself is imported anew each time, from the
folder that the command finds it in.

Other uses of `python`, and other users, get the real program.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import marshal
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from filelock import FileLock

_LIBRARIES = (
    "dvc.cli",
    "dvc.commands.experiments.run",
    "dvc.commands.repro",
    "dvc.commands.status",
    "dvc.repo",
    "dvc.repo.experiments.executor.local",
    "dvc.repo.reproduce",
    "dvc.stage.run",
    "gymnasium",
    "hydra",
    "hydra._internal.hydra",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "mpe2",
    "numpy",
    "omegaconf",
    "pandas",
    "pettingzoo.utils.conversions",
    "pydantic",
    "pygit2",
    "rich.console",
    "snakemake.api",
    "snakemake.cli",
    "snakemake.executors.local",
    "snakemake.report",
    "tensordict.nn",
    "torch",
    "torchrl.envs",
    "torchrl.modules",
    "torchrl.objectives",
    "transformers",
    "typer",
    "yaml",
)
_MAINS = {"snakemake": "snakemake.cli", "dvc": "dvc.cli"}
_MODULES = {"heteromark", "heteromark.training.factory_train", "snakemake"}
_KNOWN = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}  # others: start it cold
_PLACE = "WARM_PROGRAMS"
_SIZE = 2**20  # bytes; of a request

_CLIENT = """#!{python} -IS
import array, marshal, os, signal, sys
import _socket

words, environment = sys.argv[1:], dict(os.environ)
program = os.path.basename(sys.argv[0])
first, second = (*words, "", "")[:2]
ours = program != "python" or first.endswith(".py") or first == "-m" and second in {modules}
special = {{name for name in environment if name.startswith("PYTHON")}} - {known}
if not ours or special or os.getuid() != {user}:
    os.execv("{binaries}/" + program, ["{binaries}/" + program, *words])
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect("{address}")
umask = os.umask(0)
os.umask(umask)
request = marshal.dumps((program, words, os.getcwd(), environment, umask))
files = array.array("i", [0, 1, 2])
server.sendmsg([len(request).to_bytes(4, "little")], [(1, 1, files)])
server.sendall(request)
process = int.from_bytes(server.recv(4), "little")
for number in (1, 2, 15):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda number, _: os.killpg(process, number))
status = int.from_bytes(server.recv(4), "little", signed=True)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if status != -9 else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def prepare() -> None:
    """Make a place for the server of this process and its children, which ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.mkfifo(folder / "alive")
    os.open(folder / "alive", os.O_RDWR)
    os.environ[_PLACE] = str(folder)


@functools.cache
def programs() -> Path:
    """Start the server unless it runs, and return the folder of its clients."""
    if _PLACE not in os.environ:
        prepare()
    folder = Path(os.environ[_PLACE])
    with FileLock(folder / "lock"):
        if not (folder / "socket").exists():
            _start(folder)
    return folder


def _start(folder: Path) -> None:
    for name in (*_MAINS, "python"):
        client = folder / name
        client.write_text(
            _CLIENT.format(
                python=sys.executable,
                binaries=Path(sys.executable).parent,
                known=_KNOWN,
                modules=_MODULES,
                user=os.getuid(),
                address=folder / "socket",
            )
        )
        client.chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # forked processes would pass it on
    with (folder / "alive").open("rb") as alive:
        server = subprocess.Popen(
            [sys.executable, __file__, str(folder / "socket")],
            stdin=alive,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"


def serve(address: str) -> None:
    """Fork a process per request until standard input ends. Returns in forked processes only."""
    for library in _LIBRARIES:
        importlib.import_module(library)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    os.write(1, b"ready\n")
    gc.collect()
    gc.freeze()  # so that collections do not copy the memory that processes share
    clients: dict[int, tuple[socket.socket, int]] = {}  # with its process, by open file of that
    while True:
        waited = [client for client, _ in clients.values()]
        readable, _, _ = select.select([listener, 0, *waited, *clients], [], [])
        for ended in clients.keys() & set(readable):
            client, process = clients.pop(ended)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            with contextlib.suppress(ConnectionError):
                client.sendall(status.to_bytes(4, "little", signed=True))
            client.close()
            os.close(ended)
        for client, process in clients.values():
            if client in readable:  # it was killed
                os.killpg(process, signal.SIGKILL)
        if listener in readable:
            client, _ = listener.accept()
            try:
                request = _received(client)
            except ConnectionError:  # killed already
                client.close()
                continue
            process = os.fork()
            if process == 0:
                os.setpgid(0, 0)
                for each in (listener, client, *(other for other, _ in clients.values())):
                    each.close()
                for other in clients:
                    os.close(other)
                _become(*request)
                return
            with contextlib.suppress(PermissionError):  # the process itself was faster
                os.setpgid(process, process)
            with contextlib.suppress(ConnectionError):
                client.sendall(process.to_bytes(4, "little"))
            clients[os.pidfd_open(process)] = (client, process)
            for file in request[0]:
                os.close(file)
        if 0 in readable:
            os._exit(0)


def _received(client: socket.socket) -> tuple[Any, ...]:
    """Return the arguments of `_become`.

    Raises:
        ConnectionError: the client died.
    """
    size, data, _, _ = client.recvmsg(4, socket.CMSG_SPACE(12))
    files, request = array.array("i"), b""
    for _, _, content in data:
        files.frombytes(content)
    while len(request) < int.from_bytes(size, "little"):
        part = client.recv(_SIZE)
        if not part:
            break
        request += part
    if not size or len(request) < int.from_bytes(size, "little"):
        for file in files:
            os.close(file)
        raise ConnectionError("the client died")
    return files, *marshal.loads(request)


def _become(
    files: array.array,
    program: str,
    words: list[str],
    folder: str,
    environment: dict[str, str],
    umask: int,
) -> None:
    """Give this process what a new one would have."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    if environment.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    clients, binaries = Path(sys.argv[1]).parent, Path(sys.executable).parent
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    if program != "python":
        first = str(binaries)
    else:
        first = folder if words[0] == "-m" else str(Path(words[0]).resolve().parent)
    sys.path[:] = [first, *filter(None, given), *sys.path[1:]]
    sys.argv = [str(binaries / program), *words]
    sys.executable = str(clients / "python")


def _run() -> None:
    program, *words = sys.argv
    if Path(program).name != "python":
        sys.exit(importlib.import_module(_MAINS[Path(program).name]).main())
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
    status = 0
    try:
        _run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        status = 1
    # as the interpreter would, except that it takes 0.1 s to free all objects
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
