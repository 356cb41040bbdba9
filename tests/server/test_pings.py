"""Streams that are kept open while nothing comes."""

import socket

import pytest

from localrun.server.rooms import Patience
from tests.server.conftest import running


@pytest.fixture(scope="module")
def server(models):
    with running(models, patience=Patience(ping_s=0.02)) as state:
        yield state


def stalled(number: int) -> dict[str, object]:
    """A request whose answer stops after so many pieces."""
    return {
        "model": "tiny", "stream": True, "stop": [f"fake: stall {number}"], "max_tokens": 9,
        "messages": [{"role": "user", "content": "x"}],
    }  # fmt: skip


@pytest.mark.parametrize("number", [0, 2])
def test_a_silent_stream_is_pinged_before_and_between_its_pieces(client, number):
    with client.stream("POST", "/v1/chat/completions", json=stalled(number)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in response.iter_lines() if line)
        seen: list[str] = []
        while seen.count(": ping") < 3:
            seen.append(next(lines))
    pieces = [line for line in seen if '"content":"t' in line]
    assert len(pieces) == number
    assert seen[-1] == ": ping"


def test_lines_of_json_are_never_pinged(client, server):
    body = b'{"model":"tiny","prompt":"x","options":{"stop":["fake: stall 1"]}}'
    head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head.encode() + body)
        received = b""
        while b"\n\r\n" not in received.partition(b"\r\n\r\n")[2]:
            received += sock.recv(4096)
        n_pings = 0
        with client.stream("POST", "/v1/chat/completions", json=stalled(0)) as pinged:
            others = pinged.iter_lines()
            while n_pings < 3:  # the native stream has been silent for as long
                n_pings += next(others) == ": ping"
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(4096)
    assert b'"response":"t0 "' in received
