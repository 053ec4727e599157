"""Write a file completely or not at all, and lock a folder against a second writer."""

import errno
import json
import os
import shlex
import socket
import sys
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from ifttn.vocabulary import IfttnError

PARTIAL = ".partial"
"""Suffix of an incomplete file. A killed process leaves such files behind."""
LOCK = ".lock"

_locks: set[int] = set()


class DiskFullError(IfttnError):
    """The disk is full: no further file can be written either."""


def partial_beside(path: Path) -> Path:
    """A new name in the folder of `path`. It is short, because `path` may have the longest name that is allowed."""
    return path.with_name(f".{uuid.uuid4().hex}{PARTIAL}")


@contextmanager
def written_whole(path: Path) -> Generator[IO[bytes]]:
    """A new file to write into. When the block ends without an error, the file replaces the one at `path`.

    Until then, and if the block fails, the old file stays at `path`.

    Raises:
        DiskFullError: the disk is full.
        IfttnError: the file cannot be written; the message names it.
    """
    partial = partial_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # without this, a power failure may leave an empty file under the new name
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):  # the file was never made, or its folder is a file
            partial.unlink()
        if isinstance(error, OSError):
            raise not_written(path, error) from error
        raise


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file like `written_whole`, with the same errors."""
    with written_whole(path) as file:
        file.write(content)


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files of killed writers in a folder and below. No process may write there meanwhile."""
    for leftover in folder.rglob(f".*{PARTIAL}"):
        leftover.unlink(missing_ok=True)


def not_written(path: Path, error: OSError) -> IfttnError:
    """The error for a `path` that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{path}: cannot be written, because the disk is full")
    return IfttnError(f"{path}: cannot be written ({error.strerror or error})")


@contextmanager
def held(folder: Path, *, shared: bool = False, wait: bool = False) -> Generator[None]:
    """Lock a folder, so that no other process or thread works in it. The lock ends with the block or the process.

    On Windows, and on file systems without locks, this does nothing.

    Args:
        folder: the folder, which is made if it does not exist. Its file `.lock` names the process that holds the lock.
        shared: other processes that also ask for a shared lock may hold the folder at the same time.
        wait: if the folder is locked, print on stderr who holds it, and wait.

    Raises:
        IfttnError: another process holds the folder (the message names it), or the folder is not writable.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    lock = _opened(folder / LOCK)
    try:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):  # any other error: the file system has no locks
                line = f"{folder}: is in use by {_holder(lock)}"
                if not wait:
                    raise IfttnError(f"{line}; wait for it, or end it") from error
                print(f"ifttn: {line}; this one waits for it", file=sys.stderr, flush=True)
                fcntl.flock(lock, kind)
        _write_holder(lock)
        yield
    finally:
        if lock in _locks:  # not in a forked process, which has released it
            _locks.discard(lock)
            os.close(lock)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise not_written(path, error) from error
    _locks.add(lock)
    return lock


def _write_holder(lock: int) -> None:
    holder = {
        # Every notebook has the same command line; Jupyter gives the name of the notebook here.
        "command": os.environ.get("JPY_SESSION_NAME") or shlex.join(sys.argv),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(sep=" ", timespec="minutes"),
    }
    with suppress(OSError):  # on a full disk, the lock has no name
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(holder).encode(), 0)


def _holder(lock: int) -> str:
    try:
        holder = json.loads(os.pread(lock, 1 << 16, 0))
        return "`{command}` (process {pid} on {host}, since {since})".format(**holder)
    except (OSError, ValueError, KeyError):  # the process has not written its name yet
        return "another process"


def _release_in_fork() -> None:
    """Close the parent's locks in a forked process, which would keep them if the parent were killed."""
    for lock in _locks:
        with suppress(OSError):
            os.close(lock)
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_fork)
