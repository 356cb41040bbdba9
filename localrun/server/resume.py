"""Answers that outlive their connection: who names its stream may come back for the rest.

A request with the header `x-localrun-stream: <id>` is answered onto a tape, and its connection
reads from there. When it drops, the answer goes on for a while; the same request again, with
`x-localrun-stream-from: <bytes it has>`, gets the bytes from there on. Who comes later takes over.

An id belongs to the key that it came with. Requests without the header know nothing of all this.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from localrun.errors import BadRequest, NotFound
from localrun.server.answers import STREAM_HEADER, Call, Handler
from localrun.server.tape import StreamTaken, Tape

FROM_HEADER = b"x-localrun-stream-from"

_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")
_COUNT = re.compile(r"[0-9]{1,18}")


def resumable(handler: Handler) -> Handler:
    """The handler of a request that names its stream."""

    async def answer(call: Call) -> None:
        stream_id = checked_id(call.header(STREAM_HEADER))
        start = start_of(call.header(FROM_HEADER))
        streams, fingerprint = call.rooms.streams, _fingerprint(call)
        tape = streams.find(call.cache_scope, stream_id)
        if tape is None:
            if start:
                raise no_stream(stream_id)
            tape = Tape((call.cache_scope, stream_id), fingerprint)
            streams.begin(tape, _writing(call, handler))
        elif tape.fingerprint != fingerprint:
            raise StreamTaken(
                "another request has this stream id", hint="take a fresh id for each request"
            )
        await play(call, tape, start)

    return answer


async def play(call: Call, tape: Tape, start: int) -> None:
    """Answer with the bytes of a tape from `start` on, as they come.

    Raises:
        StreamTaken: If another connection takes over.
        NotFound: If those bytes are not kept.
    """
    reader, streams = object(), call.rooms.streams
    tape.attach(reader, start)
    streams.taken(tape)
    try:
        head = await tape.begun(reader)
        await call.begin(head["status"], _headers(tape, head["headers"], start))
        while piece := await tape.read(reader, start):
            await call.write(piece)
            start += len(piece)
        await call.finish()
    finally:
        streams.left(tape, reader)


def checked_id(text: str) -> str:
    """A stream's id as a client may choose it. Raises `BadRequest` for another."""
    if not _ID.fullmatch(text):
        raise BadRequest("a stream id is 8 to 128 characters of A-Z, a-z, 0-9, _ and -")
    return text


def start_of(text: str) -> int:
    """Bytes that a client has; an empty text means none. Raises `BadRequest` if it is no count."""
    if not text:
        return 0
    if not _COUNT.fullmatch(text):
        raise BadRequest(f"{text[:40]!r} is no count of bytes")
    return int(text)


def no_stream(stream_id: str) -> NotFound:
    """The error for an id that is not known, or not to this key."""
    return NotFound(
        f"stream '{stream_id}' not found",
        hint="it ended too long ago, or never began: send the request without a start",
    )


def _fingerprint(call: Call) -> bytes:
    path: str = call.scope["path"]
    return hashlib.blake2b(path.encode("utf-8", "replace") + b"\0" + call.body).digest()


def _writing(call: Call, handler: Handler) -> Callable[[Tape], Awaitable[None]]:
    """Answers a request onto a tape."""
    scope = {name: value for name, value in call.scope.items() if name != "localrun.send"}
    body, rooms, dialect = call.body, call.rooms, call.dialect

    async def write(tape: Tape) -> None:
        inner = Call(scope, tape.send, rooms, dialect)
        inner.body = body
        rooms.calls.add(inner)
        work = inner.run(handler)
        try:
            await asyncio.wait((work,))
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            rooms.calls.discard(inner)

    return write


_Headers: TypeAlias = list[tuple[bytes, bytes]]


def _headers(tape: Tape, headers: _Headers, start: int) -> _Headers:
    """The answer's headers for a reader who has its first `start` bytes."""
    found = [
        (name, str(int(value) - start).encode() if name == b"content-length" else value)
        for name, value in headers
    ]
    return [*found, (STREAM_HEADER, tape.owner[1].encode())]
