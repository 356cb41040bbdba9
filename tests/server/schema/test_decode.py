"""Decoding as Go does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import BadRequest
from localrun.server.schema.decode import Fields, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(VALUES, st.sampled_from(["", " ", " x", "{}", "]"]))
def test_what_json_writes_is_read_back_whatever_follows(value, rest):
    if rest and isinstance(value, int | float) and not isinstance(value, bool):
        rest = " " + rest
    assert parse_json(json.dumps(value).encode() + rest.encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_bad_request(body):
    try:
        value = parse_json(body)
    except BadRequest:
        return
    json.dumps(value).encode()


@given(st.text(alphabet='{}[]":,\\ud8eE01-+.ntf "\'', max_size=40))
def test_anything_like_json_is_a_value_or_a_bad_request(text):
    try:
        value = parse_json(text.encode())
    except BadRequest:
        return
    json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'"\\ud800x"', "\ufffdx"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\xff"', "\ufffd"),
        (b"9" * 5000, float("inf")),
        (b'"\\u0000"', "\x00"),
    ],
)
def test_odd_values(body, value):
    assert parse_json(body) == value


def test_the_last_of_two_spellings_wins():
    assert Fields({"Model": "a", "model": "b"}, "X").text("model") == "b"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (1.5, "cannot unmarshal number 1.5 into Go struct field X.n of type int"),
        (True, "cannot unmarshal bool into Go struct field X.n of type int"),
        ("1", "cannot unmarshal string into Go struct field X.n of type int"),
        (float("inf"), "cannot unmarshal number inf into Go struct field X.n of type int"),
    ],
)
def test_a_count_is_a_whole_number(value, error):
    assert Fields({"n": 3.0}, "X").count("n") == 3
    with pytest.raises(BadRequest, match=error):
        Fields({"n": value}, "X").count("n")
