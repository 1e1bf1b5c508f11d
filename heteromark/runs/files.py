"""Durable, atomic writes and content hashes of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_READ_WRITE, _ALL = 0o060, 0o070  # a group's permissions for files, and for folders


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path; on success its content becomes that of `target`.

    A reader sees the complete old or new file, never a part. A crash leaves the old file: the new
    one is written beside it, synced and renamed. A link stays a link, and the file that it points
    to changes; except a protected file, as in DVC's cache, which the new file replaces in place of
    the link. What is no regular file, such as /dev/stdout, is written to.
    """
    target = _written_file(Path(target))
    if target.exists() and not target.is_file() and not target.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, target.name)
            with target.open("wb") as stream:
                stream.write(Path(folder, target.name).read_bytes())
        return
    make_folder(target.parent)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(file_mode(target.parent))
        temporary.replace(target)
        _sync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _written_file(target: Path) -> Path:
    """Return the file that a link points to, unless that file is protected."""
    if not target.is_symlink():
        return target
    linked = target.resolve()
    is_protected = linked.is_file() and not linked.stat().st_mode & 0o222
    return target if is_protected else linked


def write_text_atomic(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_atomic(source: Path, target: Path) -> None:
    """Copy the content of a file atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_mode(folder: Path) -> int:
    """Return the permissions of a new file: the umask's, and those of the folder's group."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask | stat.S_IMODE(folder.stat().st_mode) & _READ_WRITE


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; the group has the permissions that it has in the parent."""
    folder = Path(folder)
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        mode = stat.S_IMODE(folder.stat().st_mode)
        folder.chmod(mode | stat.S_IMODE(folder.parent.stat().st_mode) & _ALL)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
