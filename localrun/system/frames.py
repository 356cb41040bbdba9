"""Frames over a socket: cut from bytes (pure), and the blocking side used inside a child."""

import os
import queue
import socket
import threading
from collections.abc import Iterator

from localrun.messages import MAX_FRAME_BYTES

_DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
"""Absent on Windows, where every write goes through the writer thread."""


class FrameSplitter:
    """Cut a byte stream into frame bodies: feed pieces, take whole bodies."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return every body they complete, in order.

        Raises:
            ValueError: If an announced length is above `MAX_FRAME_BYTES`; the stream is broken.
        """
        self._pending += piece
        bodies: list[bytes] = []
        at = 0
        while len(self._pending) - at >= 4:
            size = int.from_bytes(self._pending[at : at + 4], "little")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes was announced")
            if len(self._pending) - at - 4 < size:
                break
            bodies.append(bytes(self._pending[at + 4 : at + 4 + size]))
            at += 4 + size
        del self._pending[:at]
        return bodies


class ChildPipe:
    """The child's end: blocking reads in the caller's thread, writes that never wait.

    What the socket takes at once is written by the caller, as waking another thread beside a
    compute loop costs more than the write. The rest goes to a writer thread, so that a server that
    is slow to read never holds up an engine step.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._n_queued = 0
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="frames-out", daemon=True)
        self._writer.start()

    def frames(self) -> Iterator[bytes]:
        """Yield frame bodies until the server closes its end or dies."""
        splitter = FrameSplitter()
        while piece := self._receive():
            yield from splitter.feed(piece)

    def send(self, frame: bytes) -> None:
        """Send a whole frame (`messages.encode`); callable from any thread, never blocks."""
        with self._lock:
            n_sent = 0 if self._n_queued else self._send_now(frame)
            if n_sent < len(frame):
                self._n_queued += 1
                self._outgoing.put(frame[n_sent:])

    def flush(self, timeout_s: float) -> None:
        """Close the queue and wait until it is written, at most `timeout_s` seconds."""
        self._outgoing.put(None)
        self._writer.join(timeout_s)

    def _send_now(self, frame: bytes) -> int:
        """Bytes that the socket takes without waiting."""
        if not _DONT_WAIT:
            return 0
        try:
            return self._sock.send(frame, _DONT_WAIT)
        except BlockingIOError:
            return 0
        except OSError:
            os._exit(0)

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(1 << 18)
        except OSError:
            return b""

    def _write(self) -> None:
        while (frame := self._outgoing.get()) is not None:
            try:
                self._sock.sendall(frame)
            except OSError:
                # The server is gone: nothing that this process could still say reaches anyone.
                os._exit(0)
            with self._lock:
                self._n_queued -= 1
