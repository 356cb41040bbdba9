"""The child's way to its parent: take the frames' socket over, and do not outlive the parent.

Apart from `spawn` because a child starts faster without asyncio.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import IO

from localrun.system.frames import ChildPipe

SHARE_BYTES = 1024
"""Upper bound of the record that names a shared socket on Windows."""


def connect_to_parent(frames_fd: int, *, system: str = sys.platform) -> ChildPipe:
    """Open the frames' socket inside a child, and make sure that it does not outlive its parent.

    Standard output is joined to standard error: C code may print there, and it belongs to the log.
    Call this before the engine is imported, from the main thread.

    Args:
        frames_fd: The inherited descriptor; on Windows the record on standard input counts.
        system: Value of `sys.platform`.
    """
    sock = receive_shared(sys.stdin.buffer) if system == "win32" else _inherited(frames_fd)
    if system == "linux":
        _die_with_parent(sock)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    return ChildPipe(sock)


def send_shared(stream: IO[bytes], record: bytes) -> None:
    """Write the record that names a shared socket to a child's standard input and close it."""
    with stream:
        stream.write(len(record).to_bytes(4, "little") + record)


def receive_shared(
    stream: IO[bytes], open_shared: Callable[[bytes], socket.socket] | None = None
) -> socket.socket:
    """Open the socket whose record the parent writes to standard input.

    Args:
        stream: Where `send_shared` wrote to.
        open_shared: Makes a socket of the record; by default `socket.fromshare` (Windows only).

    Raises:
        EOFError: If the parent is gone or wrote no such record.
    """
    size = int.from_bytes(stream.read(4), "little")
    record = stream.read(size) if 0 < size <= SHARE_BYTES else b""
    if not record:
        raise EOFError("the parent handed over no socket")
    opener = open_shared or getattr(socket, "fromshare", None)
    if opener is None:
        raise OSError("sockets cannot be shared on this system")
    shared: socket.socket = opener(record)
    return shared


def _inherited(frames_fd: int) -> socket.socket:
    sock = socket.socket(fileno=frames_fd)
    # A grandchild that held it would keep the parent from seeing this process end.
    sock.set_inheritable(False)
    return sock


def _die_with_parent(sock: socket.socket) -> None:
    """Ask the kernel for SIGKILL when the parent's thread ends, even inside a native call.

    A parent that died before the request raises no signal, but its end of the socket is closed
    then. (Comparing `getppid` would mistake a server that is process 1 of a container, and a
    launcher between the two.)
    """
    import ctypes  # only here: the engine needs it anyway, other systems do not

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    try:
        is_gone = sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        is_gone = False
    except OSError:
        is_gone = True
    if is_gone:
        os._exit(0)
