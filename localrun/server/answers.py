"""One request and its one answer: body in, JSON or records out, errors in one place.

A `Call` ends exactly once: with its answer, with an error (as a JSON body, or as the last record of
a stream that has begun), or silently when the client is gone.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from localrun.errors import BadRequest, Cancelled, LocalrunError
from localrun.server.codings import BodyTooLarge, decode_body
from localrun.server.express import Express, express_of
from localrun.server.wire import dump

if TYPE_CHECKING:
    from localrun.backends.base import Completion
    from localrun.server.rooms import Rooms

MAX_BODY_BYTES = 32 << 20
STREAM_HEADER = b"x-localrun-stream"
JSON = b"application/json; charset=utf-8"
PLAIN_JSON = b"application/json"
NDJSON = b"application/x-ndjson"
TEXT = b"text/plain; charset=utf-8"

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Scope]]
Send: TypeAlias = Callable[[Scope], Awaitable[None]]
Handler: TypeAlias = "Callable[[Call], Awaitable[None]]"

_log = logging.getLogger("localrun.server")


class Dialect(Protocol):
    """How one API says that something went wrong; every route has one."""

    @property
    def content_type(self) -> bytes:
        """Of its whole bodies."""
        ...

    def refuse(self, error: LocalrunError) -> bytes:
        """The body of an answer that is an error."""
        ...

    def break_off(self, error: LocalrunError) -> bytes:
        """What ends a stream that has begun and cannot go on."""
        ...


def error_body(error: LocalrunError) -> dict[str, object]:
    """An error as clients get it: Ollama's `error`, and our code, hint and facts beside it."""
    body: dict[str, object] = {"error": error.message, "code": error.code}
    if error.hint:
        body["hint"] = error.hint
    return body | error.facts()


class _Native:
    """Ollama's way."""

    content_type = JSON

    def refuse(self, error: LocalrunError) -> bytes:
        """An object with `error`."""
        return dump(error_body(error))

    def break_off(self, error: LocalrunError) -> bytes:
        """The same as the last record."""
        return dump(error_body(error)) + b"\n"


NATIVE: Dialect = _Native()


class Call:
    """A request being answered. Used by one task.

    Attributes:
        rooms: What the server consists of.
        dialect: How errors are said.
        body: The whole request body.
        has_begun: Bytes of the answer are on their way.
        stream_type: Content type of a streamed answer.
        headers: Further headers of the answer, set before it begins.
        answer_id: The id that the answer carries, where its dialect has one.
        completions: What is running for this answer.
    """

    __slots__ = (
        "_receive",
        "_send",
        "_send_body",
        "answer_id",
        "body",
        "completions",
        "dialect",
        "ending",
        "has_begun",
        "headers",
        "rooms",
        "scope",
        "stream_type",
        "task",
    )

    def __init__(self, scope: Scope, send: Send, rooms: "Rooms", dialect: Dialect = NATIVE) -> None:
        self.scope, self._send, self.rooms, self.dialect = scope, send, rooms, dialect
        self._send_body: Send = scope.get("localrun.send", send)
        self._receive: Receive | None = None
        self.body = b""
        self.has_begun = False
        self.ending: LocalrunError | None = None
        self.stream_type = NDJSON
        self.headers: dict[bytes, bytes] = {}
        self.answer_id = ""
        self.completions: Sequence[Completion] = ()
        self.task: asyncio.Task[None] | None = None

    @property
    def cache_scope(self) -> str:
        """Inside which the request's prefixes are shared."""
        scope: str = self.scope.get("localrun.scope", "local")
        return scope

    async def body_pieces(self) -> AsyncGenerator[bytes, None]:
        """The request's body as it comes, for a handler marked by `takes_pieces`.

        Raises:
            Cancelled: If the client goes away before its end.
        """
        assert self._receive is not None
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Cancelled("the client went away")
            more = message.get("more_body", False)
            yield message.get("body", b"")

    def receive_from(self, receive: Receive) -> None:
        """Leave the body to the handler."""
        self._receive = receive

    def header(self, name: bytes) -> str:
        """A request header, empty if there is none; `name` in lower case."""
        headers: list[tuple[bytes, bytes]] = self.scope["headers"]
        return next((value.decode("latin-1") for key, value in headers if key == name), "")

    async def json(self, value: object, content_type: bytes = b"") -> None:
        """Answer with one JSON object."""
        await self.answer(200, dump(value), content_type)

    async def answer(self, status: int, body: bytes, content_type: bytes = b"") -> None:
        """Answer with a whole body; it is the dialect's JSON unless another type is given."""
        self.has_begun = True
        fields = [(b"content-length", str(len(body)).encode()), *self.headers.items()]
        if body:
            fields.append((b"content-type", content_type or self.dialect.content_type))
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin an answer whose records follow, with exactly these headers."""
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, record: bytes) -> None:
        """Send a record of a stream; the first begins the answer. Waits for a slow client."""
        if not self.has_begun:
            await self.begin(200, [(b"content-type", self.stream_type), *self.headers.items()])
        await self._send_body({"type": "http.response.body", "body": record, "more_body": True})

    def express(self) -> Express | None:
        """The short way for the records of a stream that has begun, if there is one."""
        return express_of(self._send_body) if self.has_begun else None

    async def finish(self, record: bytes = b"") -> None:
        """Send the last record of a stream, and end it."""
        if not self.has_begun:
            await self.write(record)
            record = b""
        await self._send({"type": "http.response.body", "body": record, "more_body": False})

    async def fail(self, error: LocalrunError) -> None:
        """End with an error, in the form that what has been sent leaves."""
        if self.has_begun:
            await self.finish(self.dialect.break_off(error))
        else:
            await self.answer(error.status, self.dialect.refuse(error))

    def abort(self, error: LocalrunError) -> None:
        """Stop answering, from outside: the client is told the error."""
        self.ending = error
        if self.task is not None:
            self.task.cancel()

    def run(self, handler: Handler) -> asyncio.Task[None]:
        """Answer in a task of its own, which `abort` can stop."""
        self.task = asyncio.get_running_loop().create_task(self._run(handler))
        return self.task

    async def _run(self, handler: Handler) -> None:
        try:
            await handler(self)
        except asyncio.CancelledError:
            if self.ending is None:
                raise
            await self._end(self.ending)
        except LocalrunError as error:
            await self._end(error)
        except RecursionError:
            await self._end(BadRequest("a value in the request is nested too deeply"))
        except Exception as error:  # noqa: BLE001 (the last net: a client must not hang)
            _log.exception("%s %s failed", self.scope["method"], self.scope["path"])
            await self._end(LocalrunError(f"internal error: {type(error).__name__}"))

    async def _end(self, error: LocalrunError) -> None:
        self.rooms.counts.failed(error.code)
        with contextlib.suppress(RuntimeError):  # the answer was complete already
            await self.fail(error)


class Endpoint:
    """A handler as an ASGI application: stops the work when the client goes away."""

    def __init__(
        self, handler: Handler, rooms: "Rooms", dialect: Dialect = NATIVE, *, path: str = ""
    ) -> None:
        self._handler, self._rooms, self._dialect = handler, rooms, dialect
        self._path = path  # the route's pattern: what clients write there has no bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = Call(scope, send, self._rooms, self._dialect)
        self._rooms.counts.called(self._path)
        self._rooms.calls.add(call)
        try:
            if self._handler in _TAKE_PIECES:
                call.receive_from(receive)
                await _finish(call.run(self._handler))
            elif await _receive_body(call, receive):
                await self._answer(call, receive)
        finally:
            self._rooms.calls.discard(call)

    async def _answer(self, call: Call, receive: Receive) -> None:
        handler = self._handler
        if call.header(STREAM_HEADER) and call.scope["method"] == "POST":
            from localrun.server.resume import resumable  # knows calls, as this knows it

            handler = resumable(handler)
        work, gone = call.run(handler), asyncio.ensure_future(_wait_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()  # the client is gone, or the server's patience is over; else it is done
            await asyncio.gather(work, return_exceptions=True)


_TAKE_PIECES: set[Handler] = set()


def takes_pieces(handler: Handler) -> Handler:
    """Mark a handler that reads the body itself, by `Call.body_pieces`: bodies of any length."""
    _TAKE_PIECES.add(handler)
    return handler


async def _finish(work: "asyncio.Task[None]") -> None:
    """Wait for a handler that notices itself that its client is gone."""
    try:
        await asyncio.wait((work,))
    finally:
        work.cancel()  # the server's patience is over; else it is done
        await asyncio.gather(work, return_exceptions=True)


async def _receive_body(call: Call, receive: Receive) -> bool:
    """Read the request's body; False if there is nothing to answer any more."""
    call.task = asyncio.current_task()
    try:
        call.body = await _read_body(receive)
        if codings := call.header(b"content-encoding"):
            call.body = await asyncio.to_thread(decode_body, call.body, codings, MAX_BODY_BYTES)
    except Cancelled:
        return False
    except asyncio.CancelledError:
        if call.ending is None:
            raise
        await call.fail(call.ending)
        return False
    except LocalrunError as error:
        await call.fail(error)
        return False
    return True


async def _read_body(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    n_bytes = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client went away")
        piece: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        n_bytes += len(piece)
        if n_bytes > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
        pieces.append(piece)
    return b"".join(pieces)


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
