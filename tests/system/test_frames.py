"""Cutting frames out of a stream."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.messages import MAX_FRAME_BYTES
from localrun.system.frames import ChildPipe, FrameSplitter
from tests.fakes.child import framed


@given(bodies=st.lists(st.binary(max_size=40), max_size=8), data=st.data())
def test_a_stream_gives_the_same_bodies_however_it_is_cut(
    bodies: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(framed, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter, heard = FrameSplitter(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard += splitter.feed(stream[start:end])
    assert heard == bodies
    assert splitter.feed(b"") == []


def test_the_largest_frame_is_waited_for_and_a_larger_one_is_refused() -> None:
    assert FrameSplitter().feed(MAX_FRAME_BYTES.to_bytes(4, "little")) == []
    with pytest.raises(ValueError, match=f"a frame of {MAX_FRAME_BYTES + 1} bytes was announced"):
        FrameSplitter().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


def test_a_child_reads_until_the_server_closes_and_writes_without_waiting() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipe = ChildPipe(theirs)
        large = framed(b"x" * 1_000_000)  # more than the socket's buffer: a direct write would hang
        pipe.send(large)
        pipe.send(framed(b"last"))
        heard: list[bytes] = []
        reader = threading.Thread(target=lambda: heard.extend(pipe.frames()))
        reader.start()
        ours.sendall(framed(b"one") + framed(b"two")[:3])
        ours.sendall(framed(b"two")[3:])
        splitter, sent = FrameSplitter(), list[bytes]()
        while len(sent) < 2:
            sent += splitter.feed(ours.recv(1 << 16))
        pipe.flush(5.0)
        ours.shutdown(socket.SHUT_RDWR)
        reader.join(5.0)
        assert sent == [large[4:], b"last"]
        assert heard == [b"one", b"two"]
