"""Test programs that try to escape from the sandbox or to break it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heteromark.llm.sandbox import Finished, Isolation, SandboxError, isolation, run_program
from heteromark.llm.sandbox import run as sandbox
from heteromark.llm.sandbox.run import _warn_of

if not sys.platform.startswith("linux"):
    pytest.skip("the sandbox runs on Linux only", allow_module_level=True)

NOTHING = Isolation(namespaces=False, landlock=False, seccomp=False)
# all layers of this machine, and each minimal combination that protects everything
WITHIN = {
    "all": isolation(),
    "namespaces": Isolation(namespaces=True, landlock=False, seccomp=False),
    "no namespaces": Isolation(namespaces=False, landlock=True, seccomp=True),
}


@pytest.fixture(params=WITHIN)
def within(request: pytest.FixtureRequest) -> Isolation:
    wanted = WITHIN[request.param]
    missing = set(wanted.layers) - set(isolation().layers)
    if missing:
        pytest.skip(f"this machine has no {', '.join(sorted(missing))}")
    return wanted


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sandbox's temporary folder, readable and writable for everyone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


@pytest.fixture(autouse=True)
def nothing_stays(temporary: Path) -> Iterator[None]:
    """Check that no process or folder is left, and that the next program runs normally."""
    yield
    assert processes_of(temporary) == []
    assert not list(temporary.glob("tmp*"))
    after = run_program("import math; print(math.gcd(12, 18))", timeout=5, memory_mib=128)
    assert (after.ok, after.stdout) == (True, "6\n")


def processes_of(temporary: Path) -> list[int]:
    """Return the started processes, identified by the folder in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(temporary) in line and b"contain.py" in line:
            found.append(int(process.name))
    return found


def run(source: str, within: Isolation, *, timeout: float = 5.0, **more: object) -> Finished:
    return run_program(source, timeout=timeout, memory_mib=96, within=within, **more)


def needs(protected: bool, what: str) -> None:
    if not protected:
        pytest.skip(f"the sandbox does not protect {what} on this machine")


# files


@pytest.fixture
def secret(temporary: Path) -> Path:
    folder = temporary / "elsewhere"
    folder.mkdir()
    folder.chmod(0o777)
    file = folder / "secret"
    file.write_text("the secret")
    file.chmod(0o666)
    return file


def test_the_secret_is_readable_without_layers(secret: Path) -> None:
    assert run(f"print(open({str(secret)!r}).read())", NOTHING).stdout == "the secret\n"


def test_outside_files_cannot_be_read(secret: Path, within: Isolation) -> None:
    needs(within.files, "files")
    for path in (secret, "/etc/passwd", "/etc/shadow", __file__, "/proc/self/environ"):
        ended = run(f"print(open({str(path)!r}).read())", within)
        assert ended.status == 1
        assert ended.stdout == ""
        assert "No such file" in ended.reason or "Permission denied" in ended.reason


def test_outside_files_cannot_be_read_indirectly(secret: Path, within: Isolation) -> None:
    needs(within.files, "files")
    for source in (
        f"import os; os.symlink({str(secret)!r}, 'x'); print(open('x').read())",
        f"import os; os.link({str(secret)!r}, 'x'); print(open('x').read())",
        f"import os; os.rename({str(secret)!r}, 'x'); print(open('x').read())",
        f"print(open('../' * 20 + {str(secret)!r}[1:]).read())",
        f"import os; os.chdir({str(secret.parent)!r}); print(open('secret').read())",
        f"import ctypes; print(ctypes.CDLL(None).open({str(secret)!r}.encode(), 0)); 1 / 0",
        "import os; os.chroot('.')",
        f"import os; print(open(f'/proc/{{os.getppid()}}/root' + {str(secret)!r}).read())",
    ):
        ended = run(source, within)
        assert ended.status == 1, source
        assert ended.stdout in ("", "-1\n"), source
    assert secret.read_text() == "the secret"


def test_outside_files_cannot_be_written(secret: Path, temporary: Path, within: Isolation) -> None:
    needs(within.files, "files")
    store = Path(os.environ["HETEROMARK_STORE"])
    (store / "run.json").write_text("{}")
    for source in (
        f"open({str(secret)!r}, 'w').write('x')",
        f"open({str(secret)!r}, 'a').write('x')",
        f"import os; os.truncate({str(secret)!r}, 0)",
        f"import os; os.remove({str(secret)!r})",
        f"open({str(secret.parent / 'new')!r}, 'w')",
        f"open({str(temporary / 'new')!r}, 'w')",
        f"import os; os.mkdir({str(secret.parent / 'new')!r})",
        f"import os; os.chmod({str(secret)!r}, 0)",
        f"import os; os.utime({str(secret)!r}, (0, 0))",
        f"open({str(store / 'run.json')!r}, 'w').write('forged')",
        f"import shutil; shutil.rmtree({str(store)!r})",
        "import os; open(os.__file__, 'a').write('#')",
    ):
        assert run(source, within).status == 1, source
    assert secret.read_text() == "the secret"
    assert secret.stat().st_mode & 0o777 == 0o666
    assert secret.stat().st_mtime > 0
    assert (store / "run.json").read_text() == "{}"
    assert sorted(path.name for path in secret.parent.iterdir()) == ["secret"]


def test_writing_through_a_symlink_fails(secret: Path, within: Isolation) -> None:
    needs(within.files, "files")
    ended = run(
        f"import os; os.symlink({str(secret)!r}, 'x'); f = open('x', 'wb')\n"
        "for _ in range(1024): f.write(bytes(2**20))",
        within,
    )
    assert ended.status == 1
    assert secret.read_text() == "the secret"


def test_a_huge_file_is_stopped(within: Isolation) -> None:
    ended = run("f = open('x', 'wb')\nwhile True: f.write(bytes(2**20))", within)
    assert "OSError" in ended.reason


def test_many_files_are_stopped(within: Isolation) -> None:
    needs(within.namespaces, "the sizes of all files together")
    source = "for i in range(10**6): open(str(i), 'wb').write(bytes(2**20))"
    assert "No space left" in run(source, within).reason


def test_packages_are_hidden(within: Isolation) -> None:
    needs(within.files, "files")
    source = "import os, sys; sys.path.append(os.path.dirname(os.__file__) + '/site-packages')\n"
    assert "ModuleNotFoundError" in run("import heteromark", within).reason
    ended = run(source + "import pip; print(pip.__version__)", within)
    assert ended.status == 1


# sockets


def attempts(server: socket.socket) -> int:
    """Return the number of clients of a listening, non-blocking server."""
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("family", ["inet", "unix", "abstract"])
def test_sockets_cannot_be_reached(family: str, temporary: Path, within: Isolation) -> None:
    needs(within.network, "sockets")
    with socket.socket(socket.AF_INET if family == "inet" else socket.AF_UNIX) as server:
        if family == "inet":
            server.bind(("127.0.0.1", 0))
            address: object = server.getsockname()
        else:
            address = str(temporary / "socket") if family == "unix" else "\0" + str(temporary)
            server.bind(address)
        server.listen()
        server.setblocking(False)
        if family == "unix":
            os.chmod(str(address), 0o777)
        kind = "AF_INET" if family == "inet" else "AF_UNIX"
        source = f"import socket; socket.socket(socket.{kind}).connect({address!r})"
        assert run(source, NOTHING).ok
        assert attempts(server) == 1
        assert run(source, within).status == 1
        assert attempts(server) == 0


# processes


BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
DAEMON = """
import os, signal, time
for _ in range(2):
    if os.fork():
        time.sleep(0.2)
        os._exit(0)
    os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""


def test_a_fork_bomb_is_stopped(within: Isolation) -> None:
    needs(within.processes, "processes")
    began = time.monotonic()
    ended = run(BOMB, within, timeout=0.5)
    assert ended.reason == "timed out"
    assert time.monotonic() - began < 20


def test_no_daemon_stays(temporary: Path, within: Isolation) -> None:
    needs(within.processes, "processes")
    began = time.monotonic()
    run(DAEMON, within)
    assert processes_of(temporary) == []
    assert time.monotonic() - began < 20


def test_programs_end_when_their_parent_is_killed(temporary: Path, within: Isolation) -> None:
    code = (
        "import tempfile; from heteromark.llm.sandbox import *; "
        f"tempfile.tempdir = {str(temporary)!r}; "
        f"run_program('import time; time.sleep(60)', timeout=60, memory_mib=96, within={within!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as starter:
        wait_until(lambda: len(processes_of(temporary)) == 2)
        time.sleep(0.3)
        starter.kill()
    wait_until(lambda: not processes_of(temporary))
    for left in temporary.glob("tmp*"):
        left.rmdir()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.mostly_slow(8)
@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "import time; time.sleep(60)",
        "try:\n    while True: pass\nfinally:\n    while True: pass",
        "import sys, os; os.close(1); os.close(2)\nwhile True: pass",
        "import threading\nfor _ in range(3): threading.Thread(target=lambda: all(True for _ in iter(int, 1))).start()",
        "10 ** 10 ** 7",
    ],
)
def test_an_endless_loop_is_stopped(loop: str, within: Isolation) -> None:
    began = time.monotonic()
    ended = run(loop, within, timeout=0.3)
    assert ended.reason in ("timed out", "ended by SIGKILL")
    assert time.monotonic() - began < 20


# Each makes the kernel send a signal to the owner of a socket when data arrives.
OWNERS = {
    "F_SETOWN": "fcntl.fcntl(a, fcntl.F_SETOWN, target)",
    "F_SETOWN_EX": "fcntl.fcntl(a, 15, struct.pack('ii', 1, target))",
    "FIOSETOWN": "fcntl.ioctl(a, 0x8901, struct.pack('i', target))",
    "SIOCSPGRP": "fcntl.ioctl(a, 0x8902, struct.pack('i', target))",
}
ASYNC = {
    "O_ASYNC": "fcntl.fcntl(a, fcntl.F_SETFL, os.O_NONBLOCK | fcntl.FASYNC)",
    "FIOASYNC": "fcntl.ioctl(a, 0x5452, struct.pack('i', 1))",
}


@pytest.mark.mostly_slow(4)
@pytest.mark.parametrize("switch", ASYNC)
@pytest.mark.parametrize("owner", OWNERS)
def test_the_kernel_kills_no_other_process_for_a_program(
    within, owner, switch, monkeypatch
) -> None:
    monkeypatch.setattr(sandbox, "_USERS", (USER,))  # the victim has the program's user
    lines = ("fcntl.fcntl(a, 10, 9)", OWNERS[owner], ASYNC[switch])
    attempts = "\n".join(f"try: {line}\nexcept OSError as error: print(error)" for line in lines)
    source = (
        "import fcntl, os, socket, struct, time\n"
        "a, b = socket.socketpair()\ntarget = {target}\n"
        f"{attempts}\nb.send(b'x')\ntime.sleep(0.2)\n"
    )
    for layers, survives in ((NOTHING, False), (within, True)):
        with subprocess.Popen(["sleep", "60"], preexec_fn=_as_sandbox_user) as victim:
            run(source.format(target=victim.pid), layers)
            assert (victim.poll() is None) == survives
            victim.kill()


USER = 61_234


def _as_sandbox_user() -> None:
    if os.geteuid() == 0:
        os.setuid(USER)


def test_other_processes_cannot_be_killed(within: Isolation) -> None:
    needs(within.processes, "processes")
    if True:
        for target in ("os.getppid()", str(os.getpid()), "-1", "0", "-os.getppid()"):
            ended = run(
                f"import os, time; os.kill({target}, 9); time.sleep(60)", within, timeout=0.3
            )
            assert ended.reason
            assert not ended.ok


def test_the_environment_is_hidden(within: Isolation) -> None:
    needs(within.files, "files")
    # after a change of user, a process cannot read its own environ without PR_SET_DUMPABLE
    allow = "import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)"
    source = allow + "; import os; print(open('/proc/' + str({pid}) + '/environ').read())"
    assert "PYTHONHASHSEED" in run(source.format(pid="os.getpid()"), NOTHING).stdout
    for pid in ("os.getppid()", str(os.getpid()), "1", "os.getpid()"):
        ended = run(source.format(pid=pid), within)
        assert (ended.status, ended.stdout) == (1, "")
    names = run("import os; print(*sorted(os.environ))", within).stdout.split()
    assert set(names) <= {"PYTHONHASHSEED", "LC_CTYPE"}


def test_other_processes_cannot_be_traced(within: Isolation) -> None:
    needs(within.seccomp, "other uses of the kernel")
    source = "import ctypes; print(ctypes.CDLL(None).ptrace(16, {pid}, 0, 0))"
    assert run(source.format(pid=os.getpid()), within).stdout == "-1\n"


def test_rights_cannot_be_regained(within: Isolation) -> None:
    new_user = "import ctypes; print(ctypes.CDLL(None, use_errno=True).unshare(0x10000000))"
    if within.namespaces or within.seccomp:
        assert run(new_user, within).stdout == "-1\n"
    for source in ("os.setuid(0); os.setgid(0); open('/etc/shadow')", "os.nice(-5)"):
        assert run(f"import os; {source}", within).status == 1
    raised = "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))"
    assert run(raised, within).status == 1


# memory and output


@pytest.mark.parametrize(
    "source",
    [
        "x = bytearray(10**9)",
        "x = []\nwhile True: x.append(bytearray(2**20))",
        "import mmap; x = [mmap.mmap(-1, 2**24) for _ in range(64)]",
    ],
)
def test_a_memory_bomb_is_stopped(source: str, within: Isolation) -> None:
    ended = run(source, within)
    assert ended.reason == "out of memory" or "Cannot allocate memory" in ended.reason


def test_many_threads_are_stopped(within: Isolation) -> None:
    source = "import threading, time\nfor _ in range(500): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    assert "can't start new thread" in run(source, within).reason


def test_endless_recursion_is_stopped(within: Isolation) -> None:
    assert "RecursionError" in run("def f(): f()\nf()", within).reason
    deep = "import sys; sys.setrecursionlimit(10**9)\ndef f(): f.__call__()\nf()"
    assert not run(deep, within, timeout=2).ok


@pytest.mark.parametrize("stream", [1, 2])
def test_huge_output_is_cut(stream: int, within: Isolation) -> None:
    source = f"import os\nwhile True: os.write({stream}, b'x' * 10**6)"
    ended = run(source, within, output_limit=1000)
    assert ended.reason == "too much output"
    assert max(len(ended.stdout), len(ended.stderr)) == 1000


def test_output_up_to_the_limit_is_whole(within: Isolation) -> None:
    for length, reason in ((1000, ""), (1001, "too much output"), (60_000, "too much output")):
        ended = run(f"import os; os.write(1, b'x' * {length})", within, output_limit=1000)
        assert (ended.reason, ended.stdout) == (reason, "x" * 1000)


def test_stdin_is_read_only(within: Isolation) -> None:
    assert "Bad file descriptor" in run("import os; os.write(0, b'x')", within, stdin="y").reason


def test_any_bytes_are_output(within: Isolation) -> None:
    ended = run("import os; os.write(1, bytes(range(256)))", within)
    assert ended.ok
    assert ended.stdout.startswith("\x00\x01")
    assert "�" in ended.stdout


# ends


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import sys; sys.exit()", 0),
        ("import os; os._exit(0)", 0),
        ("import os; os._exit(7)", 7),
        ("raise SystemExit(3)", 3),
        ("import os; os.close(1); os.close(2); os.close(0)", 0),
        ("import threading; threading.Thread(target=print, args=('late',)).start()", 0),
        ("1 / 0", 1),
        ("def", 1),
        ("\udcff = 1", 1),
        ("x = '\0'", 1),
        ("import ctypes; ctypes.string_at(0)", -11),
    ],
)
def test_the_status_is_reported(source: str, status: int, within: Isolation) -> None:
    ended = run(source, within)
    assert ended.status == status
    assert ended.ok == (status == 0)
    assert bool(ended.reason) == (status != 0)


def test_stdin_is_passed_and_ends(within: Isolation) -> None:
    assert run("print(input() + input())", within, stdin="ä\nö\n").stdout == "äö\n"
    assert "EOFError" in run("input()", within).reason
    text = "x" * 300_000
    assert run("import sys; print(len(sys.stdin.read()))", within, stdin=text).stdout == "300000\n"


def test_hashes_are_reproducible(within: Isolation) -> None:
    assert len({run("print(hash('a'))", within).stdout for _ in range(3)}) == 1


def test_several_at_once(within: Isolation) -> None:
    ended: list[Finished] = []
    threads = [
        threading.Thread(target=lambda i=i: ended.append(run(f"print({i})", within)))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.stdout for one in ended) == ["0\n", "1\n", "2\n", "3\n"]


def test_too_small_limits_are_rejected() -> None:
    for limits in ({"timeout": 0}, {"memory_mib": 10}, {"output_limit": 0}):
        with pytest.raises(ValueError, match="memory_mib"):
            run_program("", **{"timeout": 1, "memory_mib": 96, **limits})


def test_missing_protections_are_listed() -> None:
    assert set(isolation().unprotected) <= {"files", "network", "processes"}
    assert NOTHING.unprotected == ("files", "network", "processes")


def test_missing_protections_cause_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _warn_of.cache_clear()
    monkeypatch.setattr("heteromark.llm.sandbox.run.isolation", lambda: NOTHING)
    with pytest.warns(UserWarning, match="cannot protect files, network, processes"):
        assert run_program("", timeout=5, memory_mib=96).ok


def test_other_operating_systems_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        with pytest.raises(SandboxError, match=r"only on Linux.*darwin"):
            run("print(1)", NOTHING)


def test_a_failing_layer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if not isolation().namespaces:
        pytest.skip("this machine has no namespaces")
    with monkeypatch.context() as patched:
        patched.setattr("heteromark.llm.sandbox.run._FOLDER_MIB", "none")
        with pytest.raises(SandboxError, match="mount"):
            run("print(1)", WITHIN["namespaces"])
