"""HTTP/1.1 to one server on kept connections, with little between the socket and who reads.

httpx2 costs 0.2 ms of a core for each piece of a stream: beside a daemon that computes on all cores
that is a fifth of a small model's speed. Here a piece costs its parsing.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

Body: TypeAlias = "bytes | AsyncIterator[bytes]"
BROKEN = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)
"""What reading and writing raises where a connection breaks or speaks no HTTP."""

_MAX_KEPT = 32


@dataclass(eq=False, slots=True)
class Connection:
    """A connection that one request has at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    may_stay: bool = True

    @property
    def is_open(self) -> bool:
        """Whether the other side has not closed it in the meantime."""
        return not (self.reader.at_eof() or self.writer.is_closing())


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer; names of fields in lower case."""

    status: int
    fields: Mapping[str, str]


class Origin:
    """Connections to one origin. Used on the event loop only."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._kept: list[Connection] = []

    async def connect(self) -> Connection:
        """A kept connection, or a new one.

        Raises:
            OSError: If nobody takes it.
        """
        while self._kept:
            kept = self._kept.pop()
            if kept.is_open:
                return kept
            kept.writer.close()
        return Connection(*await asyncio.open_connection(self._host, self._port, ssl=self._tls))

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it where its answer was not read."""
        if connection.may_stay and connection.is_open and len(self._kept) < _MAX_KEPT:
            self._kept.append(connection)
        else:
            connection.writer.close()

    def close(self) -> None:
        """Close what is kept."""
        while self._kept:
            self._kept.pop().writer.close()

    async def send(
        self, connection: Connection, method: str, path: str, body: Body, fields: Mapping[str, str]
    ) -> Head:
        """Send a request and read the beginning of its answer. Raises `BROKEN`."""
        connection.may_stay = False
        host = f"[{self._host}]" if ":" in self._host else self._host
        given = {name.lower(): value for name, value in fields.items()}
        given["host"] = f"{host}:{self._port}"
        if isinstance(body, bytes):
            given["content-length"] = str(len(body))
        elif "content-length" not in given:
            given["transfer-encoding"] = "chunked"
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in given.items())]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if isinstance(body, bytes):
            connection.writer.write(head + body)
        else:
            connection.writer.write(head)
            await _send_pieces(connection.writer, body, in_chunks="content-length" not in given)
        return _read_head(await connection.reader.readuntil(b"\r\n\r\n"))


async def body_of(connection: Connection, method: str, head: Head) -> AsyncGenerator[bytes, None]:
    """The pieces of an answer's body; the connection may stay once they have been read."""
    reader, fields = connection.reader, head.fields
    stays = fields.get("connection", "").lower() != "close"
    if method == "HEAD" or head.status in (204, 304):
        pass
    elif "chunked" in fields.get("transfer-encoding", "").lower():
        while n_bytes := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            yield (await reader.readexactly(n_bytes + 2))[:-2]
        await reader.readuntil(b"\r\n")
    elif "content-length" in fields:
        left = int(fields["content-length"])
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise EOFError("the answer is cut")
            left -= len(piece)
            yield piece
    else:
        stays = False
        while piece := await reader.read(1 << 16):
            yield piece
    connection.may_stay = stays


async def _send_pieces(
    writer: asyncio.StreamWriter, pieces: AsyncIterator[bytes], *, in_chunks: bool
) -> None:
    async for piece in pieces:
        if piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if in_chunks else piece)
            await writer.drain()
    if in_chunks:
        writer.write(b"0\r\n\r\n")


def _read_head(data: bytes) -> Head:
    first, *lines = data.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("no HTTP answer")
    pairs = (line.partition(":") for line in lines if line)
    return Head(int(rest[:3]), {name.strip().lower(): text.strip() for name, _, text in pairs})
