"""Start a Python module as a child that gets a socket: one way for POSIX, one for Windows."""

import functools
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from localrun.system.parent import send_shared
from localrun.system.windows import Job, kernel32


class Launcher(Protocol):
    """Starts a process that finds `theirs` through its argument `--frames-fd`."""

    def launch(
        self, arguments: Sequence[str], theirs: socket.socket, env: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start Python with these arguments; the caller closes `theirs` afterwards.

        Raises:
            OSError: If the process cannot be started.
        """
        ...


class PosixLauncher:
    """The socket is inherited by number; Linux and macOS.

    Call it on a thread that lives as long as the children should: on Linux a child dies with the
    thread that started it.
    """

    def launch(
        self, arguments: Sequence[str], theirs: socket.socket, env: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start Python with these arguments."""
        fd = theirs.fileno()
        return subprocess.Popen(
            [sys.executable, *arguments, "--frames-fd", str(fd)],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(fd,),
            env=dict(env),
        )


class WindowsLauncher:
    """The socket is duplicated for the child and named by a record on its standard input.

    Args:
        make_job: Makes the job that all children live in; called once.
        share: Makes the record for a process id; by default `socket.share`.
        creation_flags: Own process group (Ctrl-C is the server's to handle), no console window.
    """

    def __init__(
        self,
        make_job: Callable[[], Job] = lambda: Job(kernel32()),
        share: Callable[[socket.socket, int], bytes] | None = None,
        creation_flags: int | None = None,
    ) -> None:
        self._make_job = make_job
        self._share = share or _share
        self._flags = (
            getattr(subprocess, "CREATE_NO_WINDOW", 0)
            | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            if creation_flags is None
            else creation_flags
        )
        self._job: Job | None = None

    def launch(
        self, arguments: Sequence[str], theirs: socket.socket, env: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start Python with these arguments."""
        # python.exe of a virtual environment only starts the real one, whose process id the
        # record must name; multiprocessing starts that one directly in the same way.
        python = str(getattr(sys, "_base_executable", sys.executable))
        process = subprocess.Popen(
            [python, *arguments, "--frames-fd", "0"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**env, "__PYVENV_LAUNCHER__": sys.executable},
            creationflags=self._flags,
        )
        try:
            self._adopt(process, theirs)
        except OSError:
            process.kill()
            process.communicate()
            raise
        return process

    def _adopt(self, process: "subprocess.Popen[bytes]", theirs: socket.socket) -> None:
        assert process.stdin is not None
        if self._job is None:
            self._job = self._make_job()  # kept for ever: closing it ends the children
        self._job.add(int(getattr(process, "_handle", 0)))
        send_shared(process.stdin, self._share(theirs, process.pid))


@functools.cache
def launcher_for(system: str = sys.platform) -> Launcher:
    """The launcher of an operating system, given as `sys.platform` says it."""
    return WindowsLauncher() if system == "win32" else PosixLauncher()


def _share(sock: socket.socket, pid: int) -> bytes:
    share = getattr(sock, "share", None)
    if share is None:
        raise OSError("sockets cannot be shared on this system")
    record: bytes = share(pid)
    return record


@dataclass(frozen=True, slots=True, eq=False)
class Launched:
    """A child that has been started and that nobody listens to yet; `adopt_child` does.

    Attributes:
        process: The child.
        sock: Our end of its frames.
    """

    process: "subprocess.Popen[bytes]"
    sock: socket.socket

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def discard(self) -> None:
        """Close its input, and kill it."""
        self.sock.close()
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def launch_child(
    module: str,
    *,
    env: Mapping[str, str],
    arguments: Sequence[str] = (),
    launcher: Launcher | None = None,
) -> Launched:
    """Start `python -m module` with a frame socket; needs no event loop.

    Call it on a thread that outlives the child, the main one: on Linux PR_SET_PDEATHSIG follows the
    thread that started the child.

    Args:
        module: A module whose `__main__` calls `connect_to_parent`.
        env: The child's whole environment.
        arguments: Further command-line arguments.
        launcher: How processes are started; by default the way of this system.

    Raises:
        OSError: If the process cannot be started.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 (the socket's own signature)
    try:
        with theirs:
            process = (launcher or launcher_for()).launch(["-m", module, *arguments], theirs, env)
    except OSError:
        ours.close()
        raise
    return Launched(process, ours)
