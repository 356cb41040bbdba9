"""The short way of a stream's records, past every task and middleware."""

import json
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from localrun.server.express import express_of
from tests.server.conftest import Running


class Cycle:
    """As much of uvicorn's cycle as is used."""

    def __init__(self, **changes: object) -> None:
        self.written: list[bytes] = []
        self.transport = SimpleNamespace(write=self.written.append)
        self.flow = SimpleNamespace(write_paused=False)
        self.disconnected = self.response_complete = False
        self.chunked_encoding: bool | None = True
        vars(self).update(changes)

    async def send(self, message: object) -> None:
        """Never called here."""


def test_a_record_is_written_as_one_chunk() -> None:
    cycle = Cycle()
    express = express_of(cycle.send)
    assert express is not None
    assert express.is_open
    express.write(b"0123456789abcdef")
    assert cycle.written == [b"10\r\n0123456789abcdef\r\n"]


@pytest.mark.parametrize(
    "change",
    [
        {"flow": SimpleNamespace(write_paused=True)},
        {"disconnected": True},
        {"response_complete": True},
    ],
    ids=["client is behind", "client is gone", "answer is over"],
)
def test_the_way_is_closed_where_a_record_has_to_wait(change: dict[str, object]) -> None:
    express = express_of(Cycle(**change).send)
    assert express is not None
    assert not express.is_open


def test_there_is_no_short_way_without_chunks_or_behind_another_send() -> None:
    async def other(message: object) -> None:
        """A middleware's."""

    assert express_of(Cycle(chunked_encoding=False).send) is None
    assert express_of(other) is None


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
def test_a_running_stream_has_the_short_way(
    path: str, server: Running, client: httpx2.Client
) -> None:
    """Of the installed uvicorn, whose inner names are no promise."""
    stop = ["fake: flood 400"]
    body: dict[str, Any] = {"model": "tiny", "prompt": "hi", "stream": True}
    body |= {"stop": stop} if path.startswith("/v1") else {"options": {"stop": stop}}
    with client.stream("POST", path, json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        assert server.rooms is not None
        ways = [call.express() for call in server.rooms.calls if call.has_begun]
        n_bytes = sum(len(line) for line in lines)
    assert [way is not None for way in ways] == [True]
    assert n_bytes > 300 * 1024


def test_a_stream_by_the_short_way_is_the_same_text(client: httpx2.Client) -> None:
    pieces = [f"{n} " for n in range(500)]
    stop = [f"fake: pieces {json.dumps(pieces)}"]
    body = {"model": "tiny", "prompt": "hi", "options": {"stop": stop}}
    with client.stream("POST", "/api/generate", json=body) as answer:
        records = [json.loads(line) for line in answer.iter_lines()]
    assert [record["response"] for record in records[:-1]] == pieces
    assert records[-1]["done"]
