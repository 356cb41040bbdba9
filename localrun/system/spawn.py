"""Start a child of ours and talk frames with it; die with the parent.

The frames travel over a socket of their own, not over descriptors 0 to 2: C code prints on 1, and
Windows pipes are text. The child's standard error is kept, as its last lines are the only witness
of a native crash.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from localrun.system.frames import ChildPipe, FrameSplitter

STDERR_LINES = 50
_BULK_HIGH_WATER = 1 << 18


class Child(asyncio.Protocol):
    """A running child: frames out by `send`, frames in by the callback given to `start_child`.

    All methods are called on the event loop. `on_exit` is called once, after the last frame.
    """

    def __init__(
        self, on_frame: Callable[[bytes], None], on_exit: Callable[[int, str], None]
    ) -> None:
        self._on_frame, self._on_exit = on_frame, on_exit
        self._splitter = FrameSplitter()
        self._bulk: deque[tuple[int, bytes]] = deque()
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tail: deque[str] = deque(maxlen=STDERR_LINES)
        self._closed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writable = True

    @property
    def pid(self) -> int:
        """Process id of the child."""
        assert self._process is not None
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The last lines of the child's standard error."""
        return "\n".join(self._tail)

    def send(self, frame: bytes) -> None:
        """Send a small frame now; it overtakes whatever `send_bulk` still holds."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def send_bulk(self, request_id: int, frames: Sequence[bytes]) -> None:
        """Send large frames in order, as fast as the child takes them.

        Frames of a request that is dropped by `drop_bulk` before their turn are never sent.
        """
        self._bulk.extend((request_id, frame) for frame in frames)
        self._pump()

    def drop_bulk(self, request_id: int) -> bool:
        """Forget what is still queued for a request; True if its last frame was among it."""
        kept = [item for item in self._bulk if item[0] != request_id]
        dropped = len(kept) != len(self._bulk)
        self._bulk = deque(kept)
        return dropped

    def close_input(self) -> None:
        """Close the frames' socket: the child sees the end of input and leaves."""
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """Kill the child at once."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def wait(self, timeout_s: float) -> int:
        """Wait for the exit and return its status; kill after `timeout_s` seconds."""
        try:
            await asyncio.wait_for(self._closed.wait(), timeout_s)
        except TimeoutError:
            self.kill()
            await self._closed.wait()
        assert self._process is not None
        return self._process.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio's callback)."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=_BULK_HIGH_WATER)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Cut frames and hand them on (asyncio's callback)."""
        try:
            bodies = self._splitter.feed(data)
        except ValueError:
            self.kill()
            return
        for body in bodies:
            self._on_frame(body)

    def pause_writing(self) -> None:
        """Hold bulk frames back (asyncio's callback)."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on with bulk frames (asyncio's callback)."""
        self._writable = True
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """The child closed its end or died (asyncio's callback)."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._reap()))

    def _pump(self) -> None:
        while self._bulk and self._writable and self._transport is not None:
            self._transport.write(self._bulk.popleft()[1])

    async def _reap(self) -> None:
        """Collect the exit status; a child that closed its socket has five seconds to go."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.run_in_executor(None, self._process.wait, 5.0), 6.0)
        except (subprocess.TimeoutExpired, TimeoutError):
            self.kill()
            await loop.run_in_executor(None, self._process.wait)
        await self._tasks[0]
        self._closed.set()
        self._on_exit(self._process.returncode, self.last_words)

    async def _watch_stderr(self, stream: asyncio.StreamReader) -> None:
        while line := await self._line(stream):
            self._tail.append(line.decode("utf-8", "replace").rstrip())

    @staticmethod
    async def _line(stream: asyncio.StreamReader) -> bytes:
        try:
            return await stream.readline()
        except ValueError:  # a line beyond the reader's limit: take what is there
            return await stream.read(1 << 16)

    async def attach(self, process: subprocess.Popen[bytes]) -> None:
        """Watch this process; called once by `start_child`."""
        self._process = process
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), process.stderr)
        self._tasks.append(loop.create_task(self._watch_stderr(stream)))


async def start_child(
    module: str,
    *,
    env: Mapping[str, str],
    on_frame: Callable[[bytes], None],
    on_exit: Callable[[int, str], None],
    arguments: Sequence[str] = (),
) -> Child:
    """Start `python -m module` with a frame socket.

    Args:
        module: A module whose `__main__` calls `connect_to_parent`.
        env: The child's whole environment.
        on_frame: Called on the loop with each frame body, in order.
        on_exit: Called once with the exit status and the last lines of standard error.
        arguments: Further command-line arguments.

    Raises:
        OSError: If the process cannot be started.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 (the socket's own signature)
    child = Child(on_frame, on_exit)
    try:
        # On this thread on purpose: PR_SET_PDEATHSIG follows the thread that started the child.
        process = subprocess.Popen(  # noqa: ASYNC220 (our own module; 1 ms, once a load)
            [sys.executable, "-m", module, "--frames-fd", str(theirs.fileno()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env=dict(env),
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    await child.attach(process)
    await asyncio.get_running_loop().create_connection(lambda: child, sock=ours)
    return child


def connect_to_parent(frames_fd: int) -> ChildPipe:
    """Open the frames' socket inside a child, and make sure that it does not outlive its parent.

    Standard output is joined to standard error: C code may print there, and it belongs to the log.
    """
    _die_with_parent()
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    return ChildPipe(socket.socket(fileno=frames_fd))


def _die_with_parent() -> None:
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
