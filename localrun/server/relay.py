"""Requests that an Ollama daemon answers for us, their bytes passed on as they come.

A model goes there by choice (`server/choice.py`), or because only the daemon has it: then our own
handler has said that there is no such model. The paths are the same on both sides, in all dialects,
so that little is rewritten: errors become ours, the three separators of `server/wire.py` are
escaped, and what the daemon keeps to itself is told (a stream that stops short of its end, a prompt
that was cut).
"""

import json
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import quote

from localrun.backends.ollama import HOP_HEADER, Daemon, Reply
from localrun.errors import (
    AccessDenied,
    BackendFailed,
    BackendGone,
    BadRequest,
    Busy,
    Forbidden,
    LocalrunError,
    ModelNotFound,
    NotFound,
    OutOfMemory,
    RateLimited,
    Unsupported,
)
from localrun.server.answers import Call, Handler, takes_pieces
from localrun.server.choice import is_of_cloud
from localrun.server.ending import Records, is_complete
from localrun.server.warning import warned
from localrun.server.wire import escape

BACKEND_HEADER = b"x-localrun-backend"
_HOP = HOP_HEADER.encode()
_PASSED = (b"content-type", b"accept", b"user-agent", b"anthropic-version", b"anthropic-beta",
           b"content-length")  # fmt: skip
"""Request headers that the daemon gets. Keys are ours, so it gets none."""

_BY_CHOICE = {"/api/pull", "/api/push", "/api/create", "/api/blobs/{digest}"}
"""Nobody wants these done elsewhere by the way."""
_ALSO_MISSING = {
    "/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show", "/api/delete",
    "/api/copy", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
    "/v1/messages", "/v1/models/{name:path}",
}  # fmt: skip
"""These go there, too, for a model that only the daemon has."""

_CLASSES: Mapping[int, type[LocalrunError]] = {
    400: BadRequest, 401: AccessDenied, 403: Forbidden, 404: NotFound, 429: RateLimited, 503: Busy,
}  # fmt: skip
_NO_MEMORY = re.compile(r"more system memory|out of memory|unable to allocate", re.IGNORECASE)


def relayed(path: str, handler: Handler) -> Handler:
    """A route's handler with the daemon behind it, where Ollama has that route."""
    if path not in _BY_CHOICE | _ALSO_MISSING:
        return handler
    streams_body = path == "/api/blobs/{digest}"

    async def answer(call: Call) -> None:
        choice = _chosen(call, has_body=not streams_body)
        if choice == "ollama":
            await _relay(call, streams_body=streams_body)
            return
        try:
            await handler(call)
        except NotFound as missing:
            if choice or path in _BY_CHOICE or call.has_begun:
                raise
            if not await _relay_missing(call, missing):
                raise

    return takes_pieces(answer) if streams_body else answer


async def theirs(call: Call, path: str, key: str) -> list[dict[str, object]]:
    """What the daemon lists under a path, each marked as its own; nothing where there is none."""
    daemon = call.rooms.daemon
    if daemon is None or daemon.was_lost_lately or call.header(_HOP):
        return []
    try:
        found = (await daemon.ask(path)).get(key)
    except LocalrunError:
        return []
    if not isinstance(found, list):
        return []
    items = cast("list[object]", found)
    return [
        cast("dict[str, object]", item) | {"backend": "ollama"}
        for item in items
        if isinstance(item, dict)
    ]


def _chosen(call: Call, *, has_body: bool) -> str:
    """The backend that was chosen for a request; what was forwarded once stays here."""
    if call.header(_HOP):
        return "llamacpp"
    choice = call.rooms.choice
    name = _name_of(call) if choice.needs_name and has_body else ""
    return choice.of(name, call.header(BACKEND_HEADER))


def _name_of(call: Call) -> str:
    """The model of a request, as its client wrote it; empty if there is none to be read."""
    if "name" in call.scope["path_params"]:
        return str(call.scope["path_params"]["name"])
    try:
        body: object = json.loads(call.body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(body, dict):
        return ""
    fields = {key.lower(): value for key, value in cast("dict[str, object]", body).items()}
    found = fields.get("model") or fields.get("name") or fields.get("source")
    return found if isinstance(found, str) else ""


async def _relay(call: Call, *, streams_body: bool) -> None:
    daemon = call.rooms.daemon
    if daemon is None:
        raise BackendGone(
            "no Ollama is configured as a backend",
            hint="set LOCALRUN_OLLAMA=<its address>, such as 127.0.0.1:11434",
        )
    await _forward(call, daemon, streams_body=streams_body)


async def _relay_missing(call: Call, missing: NotFound) -> bool:
    """Have the daemon answer for a model that is not here; False if it does not have it either."""
    daemon, name = call.rooms.daemon, _name_of(call)
    if daemon is None or is_of_cloud(name):  # nothing leaves this machine by the way
        return False
    if daemon.was_lost_lately and not daemon.is_expected:
        return False
    try:
        await _forward(call, daemon)
    except BackendGone as gone:
        if call.has_begun:
            raise
        if daemon.is_expected:
            missing.hint = f"{missing.hint}  (nor can it be asked for: {gone.message})".strip()
        return False
    except NotFound:
        return False
    return True


async def _forward(call: Call, daemon: Daemon, *, streams_body: bool = False) -> None:
    """Send the request on and pass the answer back.

    Raises:
        LocalrunError: What the daemon refuses with, or how it fails.
    """
    scope = call.scope
    path = quote(scope["path"], safe="/:@")
    if query := scope["query_string"].decode("latin-1"):
        path += f"?{query}"
    headers = {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in _PASSED and (streams_body or name != b"content-length")
    }
    body = call.body_pieces() if streams_body else call.body
    async with daemon.request(scope["method"], path, body=body, headers=headers) as reply:
        if reply.status >= 400:
            raise _error_of(call, daemon, reply, await reply.read())
        if reply.content_type.startswith(("application/x-ndjson", "text/event-stream")):
            await _pass_stream(call, daemon, reply)
        else:
            await _pass_whole(call, daemon, reply)


async def _pass_whole(call: Call, daemon: Daemon, reply: Reply) -> None:
    body = await reply.read()
    if body and not reply.content_type.startswith("application/json"):
        raise _foreign(daemon)
    if body:
        body = escape(await warned(call.body, body, daemon))
    await call.answer(reply.status, body, reply.content_type.encode("latin-1"))


async def _pass_stream(call: Call, daemon: Daemon, reply: Reply) -> None:
    """Pass records on as soon as they are whole: a client is never left inside of one."""
    is_native = "ndjson" in reply.content_type
    call.stream_type = reply.content_type.encode("latin-1")
    records = Records(b"\n" if is_native else b"\n\n")
    express = None
    async for piece in reply.pieces():
        whole = records.take(piece)
        if not whole:
            continue
        if is_native and b'"done":true' in whole:
            whole = await warned(call.body, whole, daemon)
        whole = escape(whole)
        express = express or call.express()
        if express is not None and express.is_open:
            express.write(whole)
        else:
            await call.write(whole)
    last, rest = records.last, records.rest
    if rest and is_complete(rest):
        last = rest
        await call.write(rest + records.end)
    if not is_complete(last):
        raise BackendFailed(
            f"Ollama at {daemon.address} ended its answer before it was complete",
            hint="its log says why; the request can be sent again",
        )
    await call.finish()


def _error_of(call: Call, daemon: Daemon, reply: Reply, body: bytes) -> LocalrunError:
    """A refusal of the daemon as one of ours."""
    message = _message_of(body)
    if not message and reply.status in (404, 405):
        return Unsupported(
            f"Ollama at {daemon.address} has no {call.scope['path']}", hint="update Ollama"
        )
    if reply.status == 404 and "not found" in message and (name := _name_of(call)):
        return ModelNotFound(name, hint=f"ollama pull {name}")
    cls = _CLASSES.get(reply.status, BackendFailed)
    if cls is BackendFailed and _NO_MEMORY.search(message):
        cls = OutOfMemory
    error = cls.__new__(cls, message)
    said = message or f"Ollama at {daemon.address} answered {reply.status}"
    LocalrunError.__init__(error, said, hint=f"so says Ollama at {daemon.address}")
    return error


def _message_of(body: bytes) -> str:
    """What an error says, in any dialect; empty if it is none of them."""
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = cast("dict[str, object]", found).get("error") if isinstance(found, dict) else None
    if isinstance(error, dict):
        error = cast("dict[str, object]", error).get("message")
    return error if isinstance(error, str) else ""


def _foreign(daemon: Daemon) -> BackendFailed:
    return BackendFailed(
        f"what answers at {daemon.address} is no Ollama", hint="look at LOCALRUN_OLLAMA"
    )
