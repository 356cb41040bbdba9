"""Exclusive locks between processes, held on an open file and dropped by the system on a crash.

POSIX uses `flock`, Windows one byte far behind the end of the file, so that the file itself stays
readable to everyone. Locks are advisory: they bind those who ask.
"""

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Protocol, cast

_LOCKED_BYTE = 1 << 30


class Locker(Protocol):
    """How an operating system locks an open file."""

    def lock(self, fd: int, *, waits: bool) -> bool:
        """Take the lock; False if another holds it and we do not wait."""
        ...

    def unlock(self, fd: int) -> None:
        """Give the lock back; closing the file does the same."""
        ...


class _Fcntl(Protocol):
    LOCK_EX: int
    LOCK_NB: int
    LOCK_UN: int

    def flock(self, fd: int, operation: int, /) -> None: ...


class _Msvcrt(Protocol):
    LK_LOCK: int
    LK_NBLCK: int
    LK_UNLCK: int

    def locking(self, fd: int, mode: int, n_bytes: int, /) -> None: ...


class FlockLocker:
    """Locks by `flock`: Linux and macOS. The lock belongs to the open file, not to the process."""

    def __init__(self, fcntl: _Fcntl) -> None:
        self._fcntl = fcntl

    def lock(self, fd: int, *, waits: bool) -> bool:
        """Take the lock; False if another holds it and we do not wait."""
        try:
            self._fcntl.flock(fd, self._fcntl.LOCK_EX | (0 if waits else self._fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:
        """Give the lock back."""
        self._fcntl.flock(fd, self._fcntl.LOCK_UN)


class MsvcrtLocker:
    """Locks by `msvcrt.locking`: Windows."""

    def __init__(self, msvcrt: _Msvcrt) -> None:
        self._msvcrt = msvcrt

    def lock(self, fd: int, *, waits: bool) -> bool:
        """Take the lock; False if another holds it and we do not wait."""
        mode = self._msvcrt.LK_LOCK if waits else self._msvcrt.LK_NBLCK
        while True:
            try:
                self._locking(fd, mode)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EDEADLK):
                    raise
                if not waits:
                    return False
                # LK_LOCK itself waits ten seconds before it gives up, so this turns slowly.
            else:
                return True

    def unlock(self, fd: int) -> None:
        """Give the lock back."""
        self._locking(fd, self._msvcrt.LK_UNLCK)

    def _locking(self, fd: int, mode: int) -> None:
        place = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            self._msvcrt.locking(fd, mode, 1)
        finally:
            os.lseek(fd, place, os.SEEK_SET)


def locker_for(system: str = sys.platform) -> Locker:
    """The locker of an operating system, given as `sys.platform` says it."""
    if system == "win32":
        return MsvcrtLocker(cast("_Msvcrt", importlib.import_module("msvcrt")))
    return FlockLocker(cast("_Fcntl", importlib.import_module("fcntl")))


@contextlib.contextmanager
def locked(path: Path, *, waits: bool = True, locker: Locker | None = None) -> Generator[bool]:
    """Hold the exclusive lock of a lock file, which is created and stays.

    Who holds the lock may remove the file: whoever had opened it by then takes a new one.

    Args:
        path: The lock file; its folder must exist.
        waits: Wait for another holder; otherwise go on and say so.
        locker: How files are locked; by default the way of this system.

    Yields:
        Whether the lock is held; always True if `waits`.
    """
    chosen = locker or locker_for()
    fd, is_held = _take(path, chosen, waits=waits)
    try:
        try:
            yield is_held
        finally:
            if is_held:
                chosen.unlock(fd)
    finally:
        os.close(fd)


def _take(path: Path, locker: Locker, *, waits: bool) -> tuple[int, bool]:
    """Open and lock the file that has this name now; its descriptor, and whether it is locked."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            is_held = locker.lock(fd, waits=waits)
            if not is_held or _has_name(fd, path):
                return fd, is_held
            locker.unlock(fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _has_name(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
