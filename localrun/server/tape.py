"""Tapes: the bytes of answers that may be read again, and who writes them.

A tape keeps the last few MiB of what was read, and holds its writer when the reader is behind or
gone: the runner is paused then by its credit, and nothing is dropped.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localrun.errors import BadRequest, LocalrunError, NotFound

if TYPE_CHECKING:
    from localrun.server.answers import Scope

MAX_UNREAD_BYTES = 1 << 20
MAX_KEPT_BYTES = 4 << 20
MAX_ENDED = 64
MAX_ENDED_BYTES = 32 << 20


class StreamTaken(LocalrunError):
    """Raised when another connection reads the stream, or another request has its id."""

    code = "stream_taken"
    status = 409


class Tape:
    """The bytes of one answer, written by a call and read by at most one connection at a time.

    Args:
        owner: Cache scope and id.
        fingerprint: Of the request; another one may not use the same id.
        kept_bytes: How much of what was read is kept for a reader that has lost it.
    """

    def __init__(
        self, owner: tuple[str, str], fingerprint: bytes, kept_bytes: int = MAX_KEPT_BYTES
    ) -> None:
        self.owner, self.fingerprint = owner, fingerprint
        self.head: Scope | None = None
        self.has_ended = False
        self.reader: object = None
        self._kept_bytes = kept_bytes
        self._data = bytearray()
        self._base = 0
        self._read_to = 0
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()

    @property
    def end(self) -> int:
        """Bytes written so far."""
        return self._base + len(self._data)

    @property
    def is_refusal(self) -> bool:
        """Whether the answer is an error, which the same request again should not get."""
        return self.head is not None and self.head["status"] >= 400

    @property
    def n_kept(self) -> int:
        """Bytes held."""
        return len(self._data)

    async def send(self, message: "Scope") -> None:
        """Take a message of the call; waits while the reader is far behind, or gone."""
        if message["type"] == "http.response.start":
            self.head = message
        else:
            self._data += message.get("body", b"")
            self.has_ended = not message.get("more_body", False)
        self._changed.set()
        self._trim()
        while not self.has_ended and self.end - self._read_to > MAX_UNREAD_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    def attach(self, reader: object, start: int) -> None:
        """Begin to read at a byte; who read before is told at its next read.

        Raises:
            NotFound: If that byte is not kept any more.
            BadRequest: If the answer has not come so far.
        """
        if start < self._base:
            raise NotFound(f"the stream is kept from byte {self._base} on")
        if start > self.end:
            raise BadRequest(f"the stream has {self.end} bytes yet")
        self.reader = reader
        self._seek(start)
        self._changed.set()

    async def begun(self, reader: object) -> "Scope":
        """Wait for the head of the answer. Raises `StreamTaken` if another took over."""
        while self.head is None:
            await self._wait(reader)
        self._check(reader)
        return self.head

    async def read(self, reader: object, start: int) -> bytes:
        """Wait for bytes from `start` on, all that there are; empty at the end.

        Raises:
            StreamTaken: If another took over.
        """
        self._check(reader)
        self._seek(start)
        while start == self.end and not self.has_ended:
            await self._wait(reader)
        return bytes(memoryview(self._data)[start - self._base :])

    def _seek(self, start: int) -> None:
        self._read_to = start
        if self.end - start <= MAX_UNREAD_BYTES:
            self._has_room.set()

    async def _wait(self, reader: object) -> None:
        self._check(reader)
        self._changed.clear()
        await self._changed.wait()
        self._check(reader)

    def _check(self, reader: object) -> None:
        if self.reader is not reader:
            raise StreamTaken("another connection reads this stream now")

    def _trim(self) -> None:
        """Forget the oldest bytes, but none that the reader has not got yet."""
        surplus = min(len(self._data) - self._kept_bytes, self._read_to - self._base)
        if surplus > 0:
            del self._data[:surplus]
            self._base += surplus


@dataclass(slots=True)
class _Running:
    """A tape and who writes it."""

    tape: Tape
    task: "asyncio.Task[None] | None" = None
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Streams:
    """All tapes of a server. Used on its event loop.

    Attributes:
        wait_s: How long an answer goes on without a reader, and is kept after its end.
    """

    wait_s: float
    _found: dict[tuple[str, str], _Running] = field(default_factory=dict[tuple[str, str], _Running])

    def find(self, scope: str, stream_id: str) -> Tape | None:
        """The tape of an id, inside a scope, unless it became an error."""
        running = self._found.get((scope, stream_id))
        return None if running is None or running.tape.is_refusal else running.tape

    def begin(self, tape: Tape, write: Callable[[Tape], Awaitable[None]]) -> None:
        """Have a tape written, beside whoever reads it."""
        running = _Running(tape)
        self._found[tape.owner] = running
        running.task = asyncio.get_running_loop().create_task(self._write(running, write))

    def left(self, tape: Tape, reader: object) -> None:
        """A reader is gone: the answer ends too, unless somebody comes."""
        if tape.reader is reader:
            tape.reader = None
            self._wait(tape)

    def taken(self, tape: Tape) -> None:
        """Somebody reads."""
        running = self._found.get(tape.owner)
        if running is not None and running.timer is not None and not tape.has_ended:
            running.timer.cancel()

    def cancel(self, tape: Tape) -> None:
        """Stop the answer and forget it."""
        running = self._forget(tape)
        if running is not None and running.task is not None:
            running.task.cancel()

    async def _write(self, running: _Running, write: Callable[[Tape], Awaitable[None]]) -> None:
        tape = running.tape
        try:
            await write(tape)
        finally:
            if tape.has_ended and not tape.is_refusal:
                self._wait(tape)
                self._drop_oldest()
            else:
                self._forget(tape)

    def _forget(self, tape: Tape) -> _Running | None:
        running = self._found.get(tape.owner)
        if running is None or running.tape is not tape:
            return None
        del self._found[tape.owner]
        if running.timer is not None:
            running.timer.cancel()
        return running

    def _wait(self, tape: Tape) -> None:
        """Cancel and forget it, unless somebody comes in time."""
        running = self._found.get(tape.owner)
        if running is None or running.tape is not tape:
            return
        if running.timer is not None:
            running.timer.cancel()
        loop = asyncio.get_running_loop()
        running.timer = loop.call_later(self.wait_s, self.cancel, tape)

    def _drop_oldest(self) -> None:
        ended = [running.tape for running in self._found.values() if running.tape.has_ended]
        n_bytes = sum(tape.n_kept for tape in ended)
        n_ended = len(ended)
        for tape in ended:
            if n_ended <= MAX_ENDED and n_bytes <= MAX_ENDED_BYTES:
                break
            self._forget(tape)
            n_ended, n_bytes = n_ended - 1, n_bytes - tape.n_kept
