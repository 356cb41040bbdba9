"""A tape gives every reader the same bytes, and holds its writer when nobody takes them."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.errors import BadRequest, NotFound
from localrun.server.tape import (
    MAX_ENDED,
    MAX_KEPT_BYTES,
    MAX_UNREAD_BYTES,
    Streams,
    StreamTaken,
    Tape,
)

HEAD = {"type": "http.response.start", "status": 200, "headers": []}
DEADLINE_S = 10.0


def body(data: bytes, *, more: bool = True):
    return {"type": "http.response.body", "body": data, "more_body": more}


def run(work):
    """Run a coroutine that must end in time."""

    async def bounded():
        return await asyncio.wait_for(work, DEADLINE_S)

    return asyncio.run(bounded())


async def write(tape: Tape, records: list[bytes]) -> None:
    await tape.send(HEAD)
    for record in records:
        await tape.send(body(record))
    await tape.send(body(b"", more=False))


async def read(tape: Tape, start: int, n_reads: int) -> bytes:
    """What a reader gets that leaves after so many reads."""
    reader, found = object(), b""
    tape.attach(reader, start)
    assert (await tape.begun(reader))["status"] == 200
    for _ in range(n_reads):
        piece = await tape.read(reader, start + len(found))
        if not piece:
            break
        found += piece
    return found


@settings(max_examples=40)
@given(
    st.lists(st.binary(max_size=40), max_size=12),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 100)), max_size=6),
)
def test_no_byte_is_lost_or_read_twice_however_often_the_reader_drops(records, drops):
    async def read_all():
        tape = Tape(("s", "id"), b"")
        writing = asyncio.ensure_future(write(tape, records))
        has = b""
        for n_reads, n_lost in drops:
            has += await read(tape, len(has), n_reads)
            has = has[: max(0, len(has) - n_lost)]  # bytes that never reached the client
        has += await read(tape, len(has), 1000)
        await writing
        return has

    assert run(read_all()) == b"".join(records)


def test_a_writer_without_a_reader_is_held_and_goes_on_later():
    async def drop_and_return():
        tape = Tape(("s", "id"), b"")
        records = [bytes(100_000)] * 30
        writing = asyncio.ensure_future(write(tape, records))
        await asyncio.wait((writing,), timeout=0.05)
        assert not writing.done()
        assert tape.n_kept <= MAX_UNREAD_BYTES + 100_000
        assert len(await read(tape, 0, 1000)) == 3_000_000
        await writing

    run(drop_and_return())


def test_what_was_read_long_ago_is_forgotten_and_said_to_be():
    async def read_much():
        tape = Tape(("s", "id"), b"")
        writing = asyncio.ensure_future(write(tape, [bytes(500_000)] * 20))
        assert len(await read(tape, 0, 1000)) == 10_000_000
        await writing
        assert tape.n_kept <= MAX_KEPT_BYTES + 500_000
        with pytest.raises(NotFound, match="kept from byte"):
            tape.attach(object(), 0)
        with pytest.raises(BadRequest, match="10000000 bytes yet"):
            tape.attach(object(), 10_000_001)
        assert len(await read(tape, 9_000_000, 1000)) == 1_000_000

    run(read_much())


def test_who_comes_later_takes_over():
    async def take_over():
        tape = Tape(("s", "id"), b"")
        waiting = asyncio.ensure_future(read(tape, 0, 1000))
        await asyncio.wait((waiting,), timeout=0.01)
        other = asyncio.ensure_future(read(tape, 0, 1000))
        with pytest.raises(StreamTaken):
            await waiting
        await write(tape, [b"abc"])
        assert await other == b"abc"

    run(take_over())


def test_of_ended_answers_only_so_many_are_kept():
    async def begin_many():
        streams = Streams(60.0)
        for number in range(MAX_ENDED + 5):
            tape = Tape(("s", str(number)), b"")
            streams.begin(tape, lambda tape: write(tape, [b"x"]))
            assert await read(tape, 0, 10) == b"x"
        found = [n for n in range(MAX_ENDED + 5) if streams.find("s", str(n))]
        assert found == list(range(5, MAX_ENDED + 5))

    run(begin_many())


def test_a_stream_without_a_reader_is_stopped_in_time_and_with_one_it_is_not():
    async def leave():
        streams, stopped = Streams(0.02), asyncio.Event()

        async def write_forever(tape):
            try:
                await tape.send(HEAD)
                await asyncio.Event().wait()
            finally:
                stopped.set()

        tape, reader = Tape(("s", "id"), b""), object()
        streams.begin(tape, write_forever)
        tape.attach(reader, 0)
        streams.taken(tape)
        await tape.begun(reader)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 0.05)
        streams.left(tape, reader)
        await stopped.wait()
        assert streams.find("s", "id") is None

    run(leave())
