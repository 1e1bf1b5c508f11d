"""Confine this process, then run a program in it. A standalone script, standard library only.

`heteromark.llm.sandbox.run` starts it as `contain.py JOB`, where JOB is a JSON object with the
fields of `Job`. The script forks. The parent waits for the child, kills it on SIGTERM and reports
how it ended. The child drops its rights and then executes the program in the same interpreter.

The script writes lines to the descriptor `report`: `ready`, then `status N` (see
`os.waitstatus_to_exitcode`). If a requested layer cannot be set up, it writes `failed REASON`
instead and does not run the program.

Sources: user_namespaces(7), pid_namespaces(7), landlock(7), seccomp(2), Linux's UAPI headers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
from types import ModuleType

_PACKAGES = ("site-packages", "dist-packages")  # inside the library's folder, but not part of it
_MIB = 2**20
_libc = ctypes.CDLL(None, use_errno=True)


class Job:
    """The program to run, and its limits.

    Attributes:
        source: open file descriptor of the program.
        report: open file descriptor for the status lines.
        folder: the program's working folder; empty.
        layers: any of "namespaces", "landlock", "seccomp".
        user: user and group id to switch to, if this process is root and has the right.
        cpu_seconds, memory_mib, file_mib, folder_mib, threads, files: limits.
    """

    source: int
    report: int
    folder: str
    layers: list[str]
    user: int
    cpu_seconds: int
    memory_mib: int
    file_mib: int
    folder_mib: int
    threads: int
    files: int

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def _syscall(number: int, call: str, *arguments: object) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words), call)


def _prctl(option: int, value: int, call: str, pointer: object = None) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), pointer, None, None), call)


# namespaces: hide other processes, file systems and the network

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4


def _enter_namespaces() -> None:
    flags = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _check(_libc.unshare(flags), "unshare")
        return
    _check(_libc.unshare(flags | _NEWUSER), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    arguments = [text.encode() if text is not None else None for text in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()), f"mount on {target}")


def _library() -> list[str]:
    """Return the folders of the standard library, without folders inside another one."""
    folders: list[str] = []
    for path in sorted(os.path.realpath(p) for p in sys.path if os.path.isdir(p)):
        if not any(path == outer or path.startswith(outer + "/") for outer in folders):
            folders.append(path)
    return folders


def _change_root(job: Job) -> None:
    """Restrict the file system to the standard library and an empty folder in memory.

    `chroot` suffices, without `pivot_root`: no open descriptor leads outside, no outside process is
    visible, and all capabilities are dropped later. A new user namespace would restore
    capabilities, but Linux does not create one for a process inside a chroot.
    """
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    size = f"size={job.folder_mib}m,nr_inodes=4096,mode=755"
    _mount("none", job.folder, "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    read_only = struct.pack("QQQQ", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    for path in _library():
        target = job.folder + path
        os.makedirs(target)
        _mount(path, target, None, _MS_BIND | _MS_REC)
        for packages in (f"{target}/{name}" for name in _PACKAGES):
            if os.path.isdir(packages):
                _mount("none", packages, "tmpfs", 0, "size=4k,mode=755")
        arguments = (_AT_FDCWD, target.encode(), _AT_RECURSIVE, read_only, len(read_only))
        _syscall(_SYS_MOUNT_SETATTR, "mount_setattr", *arguments)
    work = f"{job.folder}/work"
    os.mkdir(work, 0o700)
    os.chroot(job.folder)
    os.chdir("/work")


# limits and rights of the process


def _limit(job: Job) -> None:
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, job.cpu_seconds),
        (resource.RLIMIT_FSIZE, job.file_mib * _MIB),
        (resource.RLIMIT_NOFILE, job.files),
        (resource.RLIMIT_NPROC, job.threads),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_AS, job.memory_mib * _MIB),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _change_user(user: int) -> None:
    library = _library()
    os.setgroups([])
    os.seteuid(user)
    readable = all(os.access(p, os.R_OK | os.X_OK, effective_ids=True) for p in library)
    os.seteuid(0)
    # an interpreter inside root's home folder is readable by root only: keep the user then
    if readable:
        os.chown(".", user, user)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _drop_rights(job: Job) -> None:
    if os.geteuid() == 0:
        # root in a container may lack the right to change users: then stay root
        with contextlib.suppress(OSError):
            _change_user(job.user)
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(_libc.capset(header, bytes(24)), "capset")
    _prctl(1, signal.SIGKILL, "PR_SET_PDEATHSIG")
    _prctl(38, 1, "PR_SET_NO_NEW_PRIVS")


# Landlock: restrict which files can be opened

_FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR, _FS_REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 5
_FS_MAKE_REG, _FS_TRUNCATE = 1 << 8, 1 << 14
# number of file system rights in each version of the Landlock ABI
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}


def _landlock() -> None:
    version = _syscall(444, "landlock_create_ruleset", None, 0, 1)
    handled = (1 << _FS_BITS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0  # to bind and to connect, TCP
    scoped = 0b11 if version >= 6 else 0  # abstract sockets and signals to other processes
    attributes = struct.pack("QQQ", handled, network, scoped)
    length = 8 if version < 4 else 16 if version < 6 else 24
    rules = _syscall(444, "landlock_create_ruleset", attributes, length, 0)

    def allow(path: str, rights: int) -> None:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= ~_FS_READ_DIR
        rule = struct.pack("=Qi", rights & handled, descriptor)
        _syscall(445, f"landlock_add_rule {path}", rules, 1, rule, 0)
        os.close(descriptor)

    for library in _library():
        allow(library, _FS_READ_DIR)  # import lists the folder
        for name in os.listdir(library):
            if name not in _PACKAGES and os.path.exists(f"{library}/{name}"):
                allow(f"{library}/{name}", _FS_READ_FILE | _FS_READ_DIR)
    read_write = _FS_READ_FILE | _FS_READ_DIR | _FS_WRITE_FILE | _FS_TRUNCATE
    allow(".", read_write | _FS_MAKE_REG | _FS_REMOVE_FILE)
    _syscall(446, "landlock_restrict_self", rules, 0)
    os.close(rules)


# seccomp: refuse system calls

_REFUSED = {
    # programs, processes and signals
    "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "setsid": 112, "setpgid": 109,
    "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
    "pidfd_open": 434, "pidfd_getfd": 438, "pidfd_send_signal": 424, "ptrace": 101,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "setpriority": 141,
    "sched_setaffinity": 203, "sched_setscheduler": 144, "ioprio_set": 251,
    # the network
    "socket": 41, "io_uring_setup": 425,
    # owners, modes, times and attributes of files, which Landlock does not restrict
    "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
    "fchmodat": 268, "fchmodat2": 452, "utime": 132, "utimes": 235, "futimesat": 261,
    "utimensat": 280, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
    "lremovexattr": 198, "fremovexattr": 199, "setxattrat": 463, "removexattrat": 466,
    # memory that is not covered by any limit
    "memfd_create": 319, "memfd_secret": 447, "shmget": 29, "semget": 64, "msgget": 68,
    "mq_open": 240,
    # namespaces, mounts and the kernel's own keys, programs and events
    "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "chroot": 161, "pivot_root": 155,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fspick": 433, "mount_setattr": 442,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249,
    "keyctl": 250,
}  # fmt: skip
_SYS_CLONE, _SYS_CLONE3, _SYS_PRCTL, _SYS_PRLIMIT = 56, 435, 157, 302
# Commands that make the kernel send signals to the owner of a file, which may be any process.
_REFUSED_COMMANDS = {
    72: (8, 10, 15),  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX
    16: (0x8901, 0x8902, 0x5452),  # ioctl: FIOSETOWN, SIOCSPGRP, FIOASYNC
}
_CLONE_THREAD = 0x00010000
_ARCH_X86_64, _X32 = 0xC000003E, 0x40000000
_RETURN_ALLOW, _RETURN_ERRNO, _RETURN_KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _RETURN, _EQUAL, _AT_LEAST, _ANY_BIT = 0x20, 0x06, 0x15, 0x35, 0x45
_NUMBER, _ARCH, _ARGUMENT, _COMMAND = 0, 4, 16, 24  # offsets in seccomp_data


def _filter() -> bytes:
    """Return the filter as an array of sock_filter: code, jump if true, jump if false, constant."""
    end = struct.pack("HBBI", _RETURN, 0, 0, _RETURN_ERRNO | errno.EPERM)

    def step(code: int, constant: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, constant)

    allow = step(_RETURN, _RETURN_ALLOW)
    steps = [
        step(_LOAD, _ARCH),
        step(_EQUAL, _ARCH_X86_64, yes=1),
        step(_RETURN, _RETURN_KILL),
        step(_LOAD, _NUMBER),
        step(_AT_LEAST, _X32, no=1),
        end,
    ]
    for number in _REFUSED.values():
        steps += [step(_EQUAL, number, no=1), end]
    for number, commands in _REFUSED_COMMANDS.items():
        steps += [step(_EQUAL, number, no=2 * len(commands) + 2), step(_LOAD, _COMMAND)]
        for command in commands:
            steps += [step(_EQUAL, command, no=1), end]
        steps.append(allow)
    # without clone3, the C library creates threads by clone, whose flags the filter can check
    steps += [step(_EQUAL, _SYS_CLONE3, no=1), step(_RETURN, _RETURN_ERRNO | errno.ENOSYS)]
    for number, code, constant, where_true, where_false in (
        (_SYS_CLONE, _ANY_BIT, _CLONE_THREAD, allow, end),
        (_SYS_PRCTL, _EQUAL, 1, end, allow),  # PR_SET_PDEATHSIG
        (_SYS_PRLIMIT, _EQUAL, 0, allow, end),  # this process's own limits
    ):
        steps += [step(_EQUAL, number, no=4), step(_LOAD, _ARGUMENT)]
        steps += [step(code, constant, no=1), where_true, where_false]
    return b"".join([*steps, allow])


def _seccomp() -> None:
    if os.uname().machine != "x86_64" or sys.maxsize < 2**32:
        raise OSError(errno.ENOTSUP, f"no system call numbers for {os.uname().machine}")
    code = ctypes.create_string_buffer(_filter())
    program = struct.pack("HxxxxxxP", (len(code) - 1) // 8, ctypes.addressof(code))
    _prctl(22, 2, "PR_SET_SECCOMP", program)


def _confine(job: Job) -> None:
    if "namespaces" in job.layers:
        _change_root(job)
    else:
        os.chdir(job.folder)
    _limit(job)
    _drop_rights(job)
    if "landlock" in job.layers:
        _landlock()
    if "seccomp" in job.layers:
        _seccomp()


def _wait(child: int, report: int) -> None:
    """Wait for the program to end, report its status, and exit."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    # close the standard streams here, so that they end when the program closes its own
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.write(report, b"status %d\n" % status)
    os._exit(0)


def _start(job: Job) -> str:
    """Fork. Return the program's text in the confined child; the waiting parent never returns."""
    _prctl(1, signal.SIGKILL, "PR_SET_PDEATHSIG")
    with open(job.source, encoding="utf-8", newline="") as file:
        source = file.read()
    if "namespaces" in job.layers:
        _enter_namespaces()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    child = os.fork()
    if child:
        _wait(child, job.report)
    # a signal to the program's process group must not hit the waiting parent
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    _confine(job)
    return source


def _main() -> tuple[str, dict[str, object]]:
    job = Job(**json.loads(sys.argv[1]))
    try:
        source = _start(job)
    except OSError as error:
        os.write(job.report, f"failed {error}\n".encode())
        os._exit(1)
    os.write(job.report, b"ready\n")
    os.close(job.report)
    sys.argv[:] = ["program.py"]
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    return source, vars(module)


if __name__ == "__main__":
    _text, _names = _main()
    exec(compile(_text, "program.py", "exec", dont_inherit=True), _names)
