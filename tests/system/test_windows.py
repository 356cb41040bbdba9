"""Windows' way of starting children, run here on models of its calls."""

import contextlib
import ctypes
import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from localrun.config import child_environment
from localrun.system.launch import PosixLauncher, WindowsLauncher, launcher_for
from localrun.system.parent import receive_shared, send_shared
from localrun.system.sandbox import limit_self
from localrun.system.windows import ExtendedLimits, Job, kernel32

ROOT = Path(__file__).parents[2]

CHILD = """
import socket, sys
from localrun.system.parent import receive_shared

def open_shared(record):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(record.decode())
    return sock

with receive_shared(sys.stdin.buffer, open_shared) as sock:
    sock.sendall(" ".join(sys.argv[1:]).encode())
"""


class FakeKernel32:
    """Windows' job calls, with what they were given."""

    def __init__(self, *, refuses: str = "") -> None:
        self.refuses = refuses
        self.flags, self.memory_bytes = 0, 0
        self.members: list[int] = []
        self.closed: list[int] = []

    def CreateJobObjectW(self, attributes: None, name: None, /) -> int | None:  # noqa: N802
        return None if self.refuses == "create" else 77

    def SetInformationJobObject(  # noqa: N802
        self, job: int, kind: int, limits: object, size: int, /
    ) -> int:
        assert (job, kind) == (77, 9)
        given = cast("ExtendedLimits", limits._obj)  # type: ignore[attr-defined]  # byref's own
        assert size == ctypes.sizeof(given)
        self.flags, self.memory_bytes = given.basic.flags, given.process_memory
        return 0 if self.refuses == "limits" else 1

    def AssignProcessToJobObject(self, job: int, process: int, /) -> int:  # noqa: N802
        self.members.append(process)
        return 0 if self.refuses == "assign" else 1

    def CloseHandle(self, handle: int, /) -> int:  # noqa: N802
        self.closed.append(handle)
        return 1


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the known size is that of 64 bits")
def test_the_limits_have_the_size_that_windows_documents() -> None:
    assert ctypes.sizeof(ExtendedLimits) == 144


@pytest.mark.parametrize(("memory_bytes", "flags"), [(0, 0x2000), (1 << 30, 0x2100)])
def test_a_job_ends_its_processes_and_limits_memory_where_asked(
    memory_bytes: int, flags: int
) -> None:
    fake = FakeKernel32()
    job = Job(fake, memory_bytes=memory_bytes)
    job.add(5)
    job.close()
    assert (fake.flags, fake.memory_bytes) == (flags, memory_bytes)
    assert (fake.members, fake.closed) == ([5], [77])


@pytest.mark.parametrize(("refuses", "closed"), [("create", []), ("limits", [77]), ("assign", [])])
def test_a_refusal_of_windows_is_an_error(refuses: str, closed: list[int]) -> None:
    fake = FakeKernel32(refuses=refuses)
    with pytest.raises(OSError, match="Windows"):
        Job(fake).add(5)
    assert fake.closed == closed


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(20.0)
        yield server


def test_a_child_opens_the_socket_that_a_record_on_its_input_names(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    job = FakeKernel32()
    launcher = WindowsLauncher(
        make_job=lambda: Job(job), share=lambda sock, pid: str(path).encode(), creation_flags=0
    )
    ours, theirs = socket.socketpair()
    with listening(path) as server, ours, theirs:
        env = child_environment(PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
        process = launcher.launch(["-c", CHILD, "word"], theirs, env)
        with process, server.accept()[0] as sock:
            assert sock.recv(100) == b"word --frames-fd 0"
    assert process.returncode == 0
    assert len(job.members) == 1


def test_a_child_that_cannot_be_put_into_the_job_is_not_left_behind() -> None:
    launcher = WindowsLauncher(
        make_job=lambda: Job(FakeKernel32(refuses="assign")),
        share=lambda sock, pid: b"never used",
        creation_flags=0,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="job object"):
        launcher.launch(["-c", "input()"], theirs, child_environment())


@pytest.mark.parametrize("written", [b"", b"\x05\x00\x00\x00", b"\xff\xff\x00\x00" + b"x" * 70_000])
def test_a_parent_that_hands_over_no_socket_is_the_end_of_input(written: bytes) -> None:
    with pytest.raises(EOFError, match="no socket"):
        receive_shared(io.BytesIO(written), lambda record: socket.socket())


def test_a_record_arrives_as_it_was_sent() -> None:
    class Kept(io.BytesIO):
        def close(self) -> None:
            self.kept = self.getvalue()
            super().close()

    stream, heard = Kept(), []

    def open_shared(record: bytes) -> socket.socket:
        heard.append(record)
        return socket.socket()

    send_shared(stream, b"\x00record")
    receive_shared(io.BytesIO(stream.kept), open_shared).close()
    assert heard == [b"\x00record"]


def test_each_system_has_its_launcher() -> None:
    assert isinstance(launcher_for("win32"), WindowsLauncher)
    assert isinstance(launcher_for("linux"), PosixLauncher)
    assert isinstance(launcher_for("darwin"), PosixLauncher)


@pytest.mark.skipif(sys.platform == "win32", reason="what happens elsewhere")
def test_windows_calls_elsewhere_are_an_error_and_not_a_crash() -> None:
    with pytest.raises(OSError, match="kernel32"):
        kernel32()
    with pytest.raises(OSError, match="cannot be shared"):
        receive_shared(io.BytesIO(b"\x01\x00\x00\x00x"))
    ours, theirs = socket.socketpair()
    launcher = WindowsLauncher(make_job=lambda: Job(FakeKernel32()), creation_flags=0)
    with ours, theirs, pytest.raises(OSError, match="cannot be shared"):
        launcher.launch(["-c", "input()"], theirs, child_environment())


def test_a_sandbox_on_windows_is_a_job_around_this_process() -> None:
    fake = FakeKernel32()
    assert limit_self(memory_bytes=5 << 20, system="win32", windows=lambda: fake) == {
        "job memory": 5 << 20
    }
    assert (fake.members, fake.memory_bytes) == ([-1], 5 << 20)
    assert fake.closed == []
