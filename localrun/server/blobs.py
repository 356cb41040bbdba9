"""The routes of single files: HEAD and POST /api/blobs/:digest."""

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import unquote

from localrun.errors import BadRequest, Forbidden, NotFound
from localrun.server.answers import Call, takes_pieces
from localrun.server.models import is_local
from localrun.store.uploads import Upload, link_file

_PATH_HEADER = b"x-localrun-path"
_BATCH_BYTES = 4 << 20


async def head_blob(call: Call) -> None:
    """HEAD /api/blobs/:digest: whether a file is here."""
    digest = _digest(call)
    if not await asyncio.to_thread(call.rooms.shelf.library.blobs.has, digest):
        raise NotFound(f'blob "{digest}" not found')
    await call.answer(200, b"")


@takes_pieces
async def post_blob(call: Call) -> None:
    """POST /api/blobs/:digest: store a file; its bytes are the body, of any length.

    The user's own CLI may name a file of this machine instead, which is then linked, not copied.
    """
    digest = _digest(call)
    blobs = call.rooms.shelf.library.blobs
    if await asyncio.to_thread(blobs.has, digest):
        await call.answer(200, b"")
        return
    if path := call.header(_PATH_HEADER):
        if not is_local(call):
            raise Forbidden("local files are taken only from the command line")
        file = Path(unquote(path))
        await asyncio.to_thread(link_file, blobs, file, digest, call.rooms.closing.is_set)
    else:
        await _receive(call, await asyncio.to_thread(Upload, blobs, digest, _length(call)))
    await call.answer(201, b"")


async def _receive(call: Call, upload: Upload) -> None:
    """Hash and write the body in a thread while more of it comes."""
    writing: asyncio.Task[None] | None = None
    batch: list[bytes] = []
    n_bytes = 0
    try:
        async for piece in call.body_pieces():
            batch.append(piece)
            n_bytes += len(piece)
            if n_bytes >= _BATCH_BYTES:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(asyncio.to_thread(upload.write, batch))
                batch, n_bytes = [], 0
        if writing is not None:
            await writing
        await asyncio.to_thread(upload.finish, batch)
    finally:
        if writing is not None:
            with contextlib.suppress(Exception):  # its own error, or the one that is on its way
                await writing
        upload.discard()


def _digest(call: Call) -> str:
    """The digest in the path, in the form in which files are named."""
    digest = call.scope["path_params"]["digest"].lower().replace("sha256-", "sha256:", 1)
    call.rooms.shelf.library.blobs.path(digest)
    return str(digest)


def _length(call: Call) -> int:
    """Bytes of the body, 0 if the client does not say."""
    text = call.header(b"content-length")
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(f"content-length {text!r} is no number")
    return int(text)


ROUTES = (
    ("HEAD", "/api/blobs/{digest}", head_blob),
    ("POST", "/api/blobs/{digest}", post_blob),
)
