"""Start a child of ours and talk frames with it; die with the parent.

The frames travel over a socket of their own, not over descriptors 0 to 2: C code prints on 1, and
Windows pipes are text. The child's standard error is kept, as its last lines are the only witness
of a native crash. The child's side is `parent.connect_to_parent`.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from localrun.system.frames import FrameSplitter
from localrun.system.launch import Launched, Launcher, launch_child

if TYPE_CHECKING:
    import subprocess

STDERR_LINES = 50
STDERR_BYTES = 16 << 10
EXIT_GRACE_S = 5.0
"""How long a child that closed its socket may still run."""

DRAIN_S = 1.0
_BULK_HIGH_WATER = 1 << 18


class Child(asyncio.Protocol):
    """A running child: frames out by `send`, frames in by the callback given to `adopt_child`.

    All methods are called on the event loop. A child that closes its socket, or that sends what is
    no frame, is given up: it has `EXIT_GRACE_S` to leave, or is killed. When the loop ends before
    the child does, the child is killed and `on_exit` is not called.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        on_frame: Callable[[bytes], None],
        on_exit: Callable[[int, str], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._process = process
        self._on_frame, self._on_exit = on_frame, on_exit
        self._splitter = FrameSplitter()
        self._bulk: deque[tuple[int, bytes]] = deque()
        self._transport: asyncio.Transport | None = None
        self._writable, self._is_broken = True, False
        self._stderr = b""
        self._disconnected: asyncio.Future[None] = loop.create_future()
        self._drained: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[None] = loop.create_future()
        self._watch("stderr", self._read_stderr, self._drained)
        self._watch("exit", process.wait, self._exited)
        self._life = loop.create_task(self._live())

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The last lines of the child's standard error."""
        lines = self._stderr.decode("utf-8", "replace").splitlines()
        return "\n".join(line.rstrip() for line in lines[-STDERR_LINES:])

    def send(self, frame: bytes) -> None:
        """Send a small frame now; it overtakes whatever `send_bulk` still holds.

        Nothing happens once the child is gone: `on_exit` is, or will be, called.
        """
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def send_bulk(self, request_id: int, frames: Sequence[bytes]) -> None:
        """Send large frames in order, as fast as the child takes them.

        Frames of a request that is dropped by `drop_bulk` before their turn are never sent.
        """
        self._bulk.extend((request_id, frame) for frame in frames)
        self._pump()

    def drop_bulk(self, request_id: int) -> bool:
        """Forget what is still queued for a request; True if its last frame was among it.

        Frames go out in order, so the last one is queued whenever any is. Earlier frames of the
        request may have gone out: the child still has to be told of the cancel.
        """
        kept = [item for item in self._bulk if item[0] != request_id]
        was_queued = len(kept) != len(self._bulk)
        self._bulk = deque(kept)
        return was_queued

    def close_input(self) -> None:
        """Close the frames' socket: the child sees the end of input and leaves."""
        self._bulk.clear()
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """Kill the child at once; frames that it had already sent are still handed on."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._process.kill()

    async def wait(self, timeout_s: float) -> int:
        """Wait for the exit and return its status; kill after `timeout_s` seconds.

        `on_exit` has been called when this returns.
        """
        await asyncio.wait((self._life,), timeout=timeout_s)
        if not self._life.done():
            self.kill()
            await asyncio.wait((self._life,))
        return self._process.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio's callback)."""
        # A cast, as uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_BULK_HIGH_WATER)
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Cut frames and hand them on (asyncio's callback)."""
        if self._is_broken:
            return
        try:
            bodies = self._splitter.feed(data)
        except ValueError:
            self._is_broken = True
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
        self._bulk.clear()
        _settle(self._disconnected)

    def _pump(self) -> None:
        transport = self._transport
        while self._bulk and self._writable and transport is not None:
            if transport.is_closing():
                self._bulk.clear()
                return
            transport.write(self._bulk.popleft()[1])

    async def _live(self) -> None:
        """Wait until the child is gone and everything it said is heard, then report it."""
        grace: asyncio.TimerHandle | None = None
        try:
            ends = (self._disconnected, self._exited)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            grace = asyncio.get_running_loop().call_later(EXIT_GRACE_S, self.kill)
            await self._exited
            # A grandchild may hold an end open: what is not read by then stays unread.
            await asyncio.wait((self._disconnected, self._drained), timeout=DRAIN_S)
            self._on_exit(self._process.returncode, self.last_words)
        finally:
            if grace is not None:
                grace.cancel()
            self.kill()
            if self._transport is not None:
                self._transport.abort()

    def _watch(self, name: str, wait: Callable[[], object], done: "asyncio.Future[None]") -> None:
        """Run a blocking wait in a thread of its own and settle `done` on the loop after it.

        Threads, as no loop offers pipes and exits in the same way on every system.
        """
        loop = asyncio.get_running_loop()

        def run() -> None:
            wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, done)

        threading.Thread(target=run, name=f"child-{name}-{self.pid}", daemon=True).start()

    def _read_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        with stream:
            while piece := os.read(stream.fileno(), 1 << 16):
                self._stderr = (self._stderr + piece)[-STDERR_BYTES:]


async def adopt_child(
    launched: Launched,
    *,
    on_frame: Callable[[bytes], None],
    on_exit: Callable[[int, str], None],
) -> Child:
    """Listen to a child.

    Args:
        launched: The child; it is the returned one's from now on.
        on_frame: Called on the loop with each frame body, in order; must not raise.
        on_exit: Called once with the exit status and the last lines of standard error, after the
            last frame.
    """
    child = Child(launched.process, on_frame, on_exit)
    try:
        await asyncio.get_running_loop().create_connection(lambda: child, sock=launched.sock)
    except BaseException:  # cancelled between the start and the connection: leave no child behind
        child.kill()
        launched.sock.close()
        raise
    return child


async def start_child(
    module: str,
    *,
    env: Mapping[str, str],
    on_frame: Callable[[bytes], None],
    on_exit: Callable[[int, str], None],
    arguments: Sequence[str] = (),
    launcher: Launcher | None = None,
) -> Child:
    """Launch a child and listen to it: `launch_child` and `adopt_child`.

    Raises:
        OSError: If the process cannot be started.
    """
    launched = launch_child(module, env=env, arguments=arguments, launcher=launcher)
    return await adopt_child(launched, on_frame=on_frame, on_exit=on_exit)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
