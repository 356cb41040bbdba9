"""Locks between open files, on this system and on the model of another."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localrun.system.locks import FlockLocker, MsvcrtLocker, locked, locker_for


class FakeMsvcrt:
    """Windows' byte locks: one holder at a time; `LK_LOCK` gives up after a while."""

    LK_LOCK, LK_NBLCK, LK_UNLCK = 1, 2, 0

    def __init__(self) -> None:
        self.holder: int | None = None
        self.places: list[int] = []
        self.n_given_up = 0

    def locking(self, fd: int, mode: int, n_bytes: int, /) -> None:
        self.places.append(os.lseek(fd, 0, os.SEEK_CUR))
        assert n_bytes == 1
        if mode == self.LK_UNLCK:
            self.holder = None
        elif self.holder is None:
            self.holder = fd
        elif mode == self.LK_LOCK:
            self.n_given_up += 1
            self.holder = None  # the other one leaves while we try again
            raise OSError(errno.EDEADLK, "Resource deadlock avoided")
        else:
            raise PermissionError(errno.EACCES, "Permission denied")


def test_a_second_open_file_does_not_get_the_lock_before_the_first_gives_it_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    with locked(path) as first:
        with locked(path, waits=False) as second:
            assert (first, second) == (True, False)
        with locked(path, waits=False) as third:
            assert not third, "the one that did not get the lock must not have given it back"
    with locked(path, waits=False) as fourth:
        assert fourth


def test_a_waiting_thread_gets_the_lock_when_it_is_given_back(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []
    asked = threading.Event()

    def wait() -> None:
        asked.set()
        with locked(path):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert asked.wait(5.0)
        order.append("first")
    thread.join(5.0)
    assert order == ["first", "second"]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import pathlib, sys; from localrun.system.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with locked(path, waits=False) as is_held:
            assert not is_held
        holder.kill()
        with locked(path) as is_held:
            assert is_held


def test_windows_locks_a_byte_behind_the_file_and_keeps_the_place(tmp_path: Path) -> None:
    fake = FakeMsvcrt()
    locker = MsvcrtLocker(fake)
    with (tmp_path / "lock").open("w+b") as file:
        file.write(b"words")
        file.flush()
        assert locker.lock(file.fileno(), waits=False)
        assert not locker.lock(file.fileno(), waits=False)
        locker.unlock(file.fileno())
        assert set(fake.places) == {1 << 30}
        assert file.tell() == 5


def test_windows_goes_on_waiting_when_its_call_gives_up(tmp_path: Path) -> None:
    fake = FakeMsvcrt()
    fake.holder = -1
    with locked(tmp_path / "lock", locker=MsvcrtLocker(fake)) as is_held:
        assert is_held
        assert fake.n_given_up == 1
    assert fake.holder is None


def test_other_errors_of_a_lock_are_raised(tmp_path: Path) -> None:
    class Broken(FakeMsvcrt):
        def locking(self, fd: int, mode: int, n_bytes: int, /) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    with (
        pytest.raises(OSError, match="Invalid argument"),
        locked(tmp_path / "lock", locker=MsvcrtLocker(Broken())),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl")
def test_the_way_of_posix_is_flock() -> None:
    assert isinstance(locker_for("darwin"), FlockLocker)
