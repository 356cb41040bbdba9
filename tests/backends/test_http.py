"""HTTP to a daemon, against a server that sends what it is told."""

import asyncio

import pytest

from localrun.backends.http import BROKEN, Origin, body_of

DEADLINE_S = 5


async def ask(*answers: bytes, n_requests: int = 1, method: str = "GET"):
    """The bodies of requests one after the other, and how many connections they took."""
    waiting, n_connections = list(answers), 0

    async def serve(reader, writer):
        nonlocal n_connections
        n_connections += 1
        while waiting and await reader.readuntil(b"\r\n\r\n"):
            answer = waiting.pop(0)
            for at in range(0, len(answer), 7):  # never what a reader would like to get at once
                writer.write(answer[at : at + 7])
                await writer.drain()
            if b"close" in answer or answer == UNTIL_END:
                break
        writer.close()

    async with (
        asyncio.timeout(DEADLINE_S),
        await asyncio.start_server(serve, "127.0.0.1") as server,
    ):
        origin = Origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        bodies = []
        for _ in range(n_requests):
            connection = await origin.connect()
            try:
                head = await origin.send(connection, method, "/", b"", {})
                pieces = [piece async for piece in body_of(connection, method, head)]
                bodies.append(b"".join(pieces))
            finally:
                origin.give_back(connection)
        origin.close()
    return bodies, n_connections


OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
UNTIL_END = OK + b"\r\nhello"


@pytest.mark.parametrize("answer", [LENGTH, UNTIL_END, CHUNKED])
def test_a_body_is_read_however_it_is_framed(answer):
    assert asyncio.run(ask(answer))[0] == [b"hello"]


def test_a_connection_is_used_again_where_it_may_stay():
    assert asyncio.run(ask(LENGTH, LENGTH, n_requests=2)) == ([b"hello"] * 2, 1)
    closing = LENGTH.replace(b"Content", b"Connection: close\r\nContent")
    assert asyncio.run(ask(closing, LENGTH, n_requests=2)) == ([b"hello"] * 2, 2)


def test_an_answer_to_head_has_no_body():
    assert asyncio.run(ask(OK + b"Content-Length: 5\r\n\r\n", method="HEAD"))[0] == [b""]


@pytest.mark.parametrize(
    "answer",
    [
        b"close",
        b"SSH-2.0 close\r\n\r\n",
        OK + b"Connection: close\r\nContent-Length: 9\r\n\r\nhello",
        OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
        OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_cut_or_no_http_is_an_error(answer):
    with pytest.raises(BROKEN):
        asyncio.run(ask(answer))
