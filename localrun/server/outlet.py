"""The way of a stream's bytes to its client, kept open by pings while nothing comes."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from localrun.server.answers import Call
from localrun.server.ask import Begin, Writer

if TYPE_CHECKING:
    from localrun.server.express import Express

_BUSY = float("inf")
"""When the last record was sent while one is being sent: no ping is due."""


class Outlet:
    """One streamed answer. An async context: it pings inside and falls silent on the way out.

    The stream begins, with its headers and `Writer.begin`, when the first record is there or a ping
    is due; until then an error can still have its own status.

    Args:
        call: Where the bytes go.
        writer: Makes what the stream opens with and the ping.
        begin: Given to the writer.
        ping_s: Seconds of silence before a ping.
    """

    def __init__(self, call: Call, writer: Writer, begin: Begin, ping_s: float) -> None:
        self.writer = writer
        call.stream_type = writer.content_type
        self._call, self._begin, self._ping_s = call, begin, ping_s
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None
        self._express: Express | None = None

    async def __aenter__(self) -> Self:
        if self.writer.ping:
            self._timer = self._loop.call_later(self._ping_s, self._look)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    @property
    def is_clear(self) -> bool:
        """Whether `send_now` can send now."""
        express = self._express
        if express is None:
            express = self._express = self._call.express()
        return express is not None and self._ping is None and express.is_open

    @property
    def way(self) -> Callable[[bytes], Awaitable[None]]:
        """Sends records: `send`, or something shorter for a stream without opening and pings."""
        bare = not self.writer.ping and not self.writer.begin(self._begin)
        return self._call.write if bare else self.send

    async def send(self, records: bytes) -> None:
        """Send records now; waits for a slow client."""
        if self._ping is not None:
            await self._pinged(self._ping)
        if not self._call.has_begun:
            records = self.writer.begin(self._begin) + records
        self._last_s = _BUSY
        await self._call.write(records)
        self._last_s = self._loop.time()

    def send_now(self, records: bytes) -> None:
        """Send records at once by the short way, which must be clear."""
        assert self._express is not None
        self._express.write(records)
        if self._timer is not None:
            self._last_s = self._loop.time()

    async def finish(self, records: bytes) -> None:
        """Send the last records and end the answer."""
        self._last_s = _BUSY
        if self._ping is not None:
            await self._pinged(self._ping)
        if not self._call.has_begun:
            records = self.writer.begin(self._begin) + records
        await self._call.finish(records)

    async def _pinged(self, ping: "asyncio.Task[None]") -> None:
        """A ping is on its way to a slow client: nothing overtakes it."""
        await asyncio.wait((ping,))
        self._ping = None

    def _look(self) -> None:
        """Ping if nothing was sent for long enough, and look again when that may be so."""
        due_s = self._last_s + self._ping_s
        now_s = self._loop.time()
        if due_s <= now_s and (self._ping is None or self._ping.done()):
            self._ping = self._loop.create_task(self._send_ping())
            due_s = now_s + self._ping_s
        self._timer = self._loop.call_at(min(due_s, now_s + self._ping_s), self._look)

    async def _send_ping(self) -> None:
        record = self.writer.ping
        if not self._call.has_begun:
            record = self.writer.begin(self._begin) + record
        await self._call.write(record)
        self._last_s = self._loop.time()
