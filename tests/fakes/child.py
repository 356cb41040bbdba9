"""A real child that speaks frames and misbehaves on demand: `python -m tests.fakes.child MODE`.

Every mode but `early` first connects to the parent; frames carry plain bytes, not messages.
"""

import argparse
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from localrun.system.frames import ChildPipe
from localrun.system.parent import connect_to_parent


def framed(body: bytes) -> bytes:
    """A body with its length."""
    return len(body).to_bytes(4, "little") + body


def _echo(pipe: ChildPipe) -> None:
    for body in pipe.frames():
        pipe.send(framed(body))


def _prints(pipe: ChildPipe) -> None:
    print("a stray print", flush=True)  # noqa: T201 (the point of this mode)
    libc = ctypes.CDLL(None)
    libc.puts(b"a stray puts")
    libc.fflush(None)
    os.write(1, b"a stray write\n")
    _echo(pipe)


def _floods(pipe: ChildPipe) -> None:
    for _ in range(16):
        os.write(2, b"x" * (1 << 16))
    for n in range(60):
        os.write(2, f"\nline {n}".encode())
    _echo(pipe)


def _crashes(pipe: ChildPipe) -> None:
    pipe.send(framed(b"last frame"))
    pipe.flush(5.0)
    os.write(2, b"out of luck\n")
    os.kill(os.getpid(), signal.SIGABRT)


def _announces_too_much(pipe: ChildPipe) -> None:
    pipe.send(framed(b"good") + (0xFFFFFFFF).to_bytes(4, "little"))
    pipe.send(framed(b"never heard"))
    threading.Event().wait()


def _closes_its_socket(pipe: ChildPipe) -> None:
    pipe._sock.shutdown(socket.SHUT_RDWR)
    threading.Event().wait()


def _gets_stuck(pipe: ChildPipe) -> None:
    """Wait in a native call that keeps the interpreter's lock: no Python thread runs any more."""
    pipe.send(framed(str(os.getpid()).encode()))
    pipe.flush(5.0)
    ctypes.PyDLL(None).pause()


def _counts_slowly(pipe: ChildPipe) -> None:
    """Read nothing before SIGUSR1; then send back what arrived, in order."""
    pipe.send(framed(b"not reading"))
    signal.sigwait({signal.SIGUSR1})
    _echo(pipe)


def _leaves_a_grandchild(pipe: ChildPipe) -> None:
    """Fork a process that keeps standard error open, and die."""
    if os.fork() == 0:
        signal.alarm(30)
        signal.pause()
    os._exit(3)


MODES: dict[str, Callable[[ChildPipe], None]] = {
    "echo": _echo,
    "prints": _prints,
    "floods": _floods,
    "crashes": _crashes,
    "announces": _announces_too_much,
    "closes": _closes_its_socket,
    "stuck": _gets_stuck,
    "slow": _counts_slowly,
    "grandchild": _leaves_a_grandchild,
}


def main() -> None:
    """Run one mode."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=[*MODES, "early"])
    parser.add_argument("--frames-fd", type=int, required=True)
    given = parser.parse_args()
    if given.mode == "early":
        os.write(2, b"no such engine\n")
        sys.exit(7)
    if given.mode == "slow":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    MODES[given.mode](connect_to_parent(given.frames_fd))


if __name__ == "__main__":
    main()
