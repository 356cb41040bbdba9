"""Decoding as Go does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import BadRequest
from localrun.server.schema.decode import Fields, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
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
        (b'"\\u0000"', "\x00"),
    ],
)
def test_odd_values(body, value):
    assert parse_json(body) == value


def test_the_last_of_two_spellings_wins():
    assert Fields({"Model": "a", "model": "b"}, "X").text("model") == "b"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("1.5", "number 1.5"),
        ("3.0", "number 3.0"),
        ("1e3", "number 1e3"),
        ("9223372036854775808", "number 9223372036854775808"),
        ("true", "bool"),
        ('"1"', "string"),
    ],
)
def test_a_count_is_a_whole_number_that_go_can_hold(number, kind):
    assert Fields(parse_json(b'{"n":-9223372036854775808}'), "X").count("n") == -(1 << 63)
    fields = Fields(parse_json(f'{{"n":{number}}}'.encode()), "X")
    with pytest.raises(BadRequest) as caught:
        fields.count("n")
    words = f"json: cannot unmarshal {kind} into Go struct field X.n of type int"
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'"\\x"', "invalid character 'x' in string escape code"),
        (b'"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
        (b'"a\nb"', "invalid character '\\n' in string literal"),
        (b"nul", "unexpected EOF"),
        (b"nulx", "invalid character 'x' in literal null (expecting 'l')"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"[1.x]", "invalid character 'x' after decimal point in numeric literal"),
        (b"[1ex]", "invalid character 'x' in exponent of numeric literal"),
        (b"\xe4", "invalid character 'ä' looking for beginning of value"),
        (b"'", "invalid character '\\'' looking for beginning of value"),
        (b"[" * 10_001, "invalid character '[' exceeded max depth"),
    ],
)
def test_a_syntax_error_is_told_in_gos_words(body, error):
    with pytest.raises(BadRequest) as caught:
        parse_json(body)
    assert caught.value.message == error


@pytest.mark.parametrize("number", ["1e2", "1.0", "99999999999999999999", "-1.5"])
def test_a_number_that_is_no_int_is_named_as_it_was_written(number):
    fields = Fields(parse_json(f'{{"n":{number}}}'.encode()), "X")
    with pytest.raises(BadRequest, match=f"number {number} into Go struct field X.n of type int"):
        fields.count("n")


def test_null_is_an_object_without_fields():
    assert Fields(parse_json(b"null"), "X").text("model") is None
