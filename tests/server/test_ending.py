"""Records of another's stream: cut only at their ends, and known by the last one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.server.ending import Records, is_complete

pieces = st.lists(st.binary(max_size=12).map(lambda piece: piece.replace(b"\r", b"\n")))


@given(pieces, st.sampled_from([b"\n", b"\n\n"]))
def test_nothing_is_lost_and_nothing_ends_inside_a_record(given_pieces, end):
    records = Records(end)
    taken = [records.take(piece) for piece in given_pieces]
    assert b"".join(taken) + records.rest == b"".join(given_pieces)
    assert all(whole.endswith(end) for whole in taken if whole)
    assert end not in records.rest


@pytest.mark.parametrize(
    ("records", "is_so"),
    [
        (b'{"done":false}\n{"done":true}\n', True),
        (b'{"done":true}\n{"done":false}\n', False),
        (b'{"response":"\\"done\\":true","done":false}\n', False),
        (b'{"status":"success"}', True),
        (b'{"status":"pulling"}\n', False),
        (b'{"error":"x"}\n', True),
        (b"[1]\n", False),
        (b'{"done":', False),
        (b"", False),
        (b"data: {}\n\ndata: [DONE]\n\n", True),
        (b'data: {"x":"[DONE]"}\n\n', False),
        (b'data: {"error":{}}\n\n', True),
        (b"event: message_stop\ndata: {}\n\n", True),
        (b"event: message_delta\ndata: {}\n\n", False),
        (b"event: response.incomplete\ndata: {}\n\n", True),
        (b"event: response.completed_not\ndata: {}\n\n", False),
        (b"event: error\ndata: {}\n\n", True),
    ],
)
def test_a_stream_is_complete_by_its_last_record(records, is_so):
    assert is_complete(records) == is_so
