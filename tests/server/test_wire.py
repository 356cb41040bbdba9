"""JSON and times on the wire."""

import json
import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from localrun.server.records import ChatWriter, GenerateWriter
from localrun.server.wire import dump, dump_text, local_time, local_time_of, utc_now
from tests.server.schema.test_decode import VALUES

ANY_TEXT = st.text(st.characters(codec=None))


@given(VALUES)
def test_what_is_written_reads_back(value):
    assert json.loads(dump(value)) == value


@given(st.text(alphabet='a\u0085\u2028\u2029天é\n\r\x0b\x1c<&>"\\', max_size=30))
def test_a_record_is_one_line_for_every_splitter(text):
    for line in (dump({"t": text}), dump_text(text)):
        assert len(line.decode().splitlines()) == 1
    assert json.loads(dump_text(text)) == text


@given(ANY_TEXT)
def test_no_text_breaks_the_encoder(text):
    read = json.loads(dump({"list": [text], text: 1, "t": text}))
    assert "\ud800" not in read["t"]


def test_only_the_three_separators_are_escaped():
    assert dump("<天>&\u2028\u2029\u0085") == '"<天>&\\u2028\\u2029\\u0085"'.encode()


def test_the_time_is_utc_with_a_fraction_and_a_z():
    text = utc_now().decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()) < 5


def test_local_times_have_an_offset_and_never_is_far_ahead():
    assert re.search(r"([+-]\d\d:\d\d|Z)$", local_time(datetime.now(UTC)))
    assert datetime.fromisoformat(local_time_of(float("inf"))).year > 2300


@given(st.text(max_size=20), st.text(max_size=20))
def test_records_by_hand_are_the_same_json(model, text):
    generate = json.loads(GenerateWriter(model, has_context=False).text(text))
    chat = json.loads(ChatWriter(model).text(text))
    assert (generate["model"], generate["response"], generate["done"]) == (model, text, False)
    assert chat["message"] == {"role": "assistant", "content": text}
