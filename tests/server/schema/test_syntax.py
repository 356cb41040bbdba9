"""What is wrong with a body that is no JSON, in Go's words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.server.schema.syntax import EOF, MAX_DEPTH, syntax_error

VALUE, KEY = "looking for beginning of value", "looking for beginning of object key string"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", EOF),
        (b'{"a":tr', EOF),
        (b'{"a":1e', EOF),
        (b'{"a":"\\u', EOF),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":1e}', "invalid character '}' in exponent of numeric literal"),
        (b'{"a":-}', "invalid character '}' in numeric literal"),
        (b'{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b'{"a":[1 2]}', "invalid character '2' after array element"),
        (b'{"a":{"b":1]}', "invalid character ']' after object key:value pair"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1,}', f"invalid character '}}' {KEY}"),
        (b"[1,]", f"invalid character ']' {VALUE}"),
        (b"{'a':1}", f"invalid character '\\'' {KEY}"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a":"\\u12"}', "invalid character '\"' in \\u hexadecimal character escape"),
        (b'{"a":"\t"}', "invalid character '\\t' in string literal"),
        (b'{"\x00":1}', "invalid character '\\x00' in string literal"),
        (b'{"a":\x7f}', f"invalid character '\\x7f' {VALUE}"),
        (b"\xc3\xa9", f"invalid character 'Ã' {VALUE}"),
        (b"\xa0", f"invalid character '\\u00a0' {VALUE}"),
        (b"[" * (MAX_DEPTH + 1), "invalid character '[' exceeded max depth"),
    ],
)
def test_the_first_wrong_byte_is_named_with_its_place(body, error):
    assert syntax_error(body) == error


@pytest.mark.parametrize("body", [b"[]]", b"{} x", b"nulll", b"1 2", b'[{"a":[{}]}]', b"-0.5E+3 "])
def test_what_follows_the_first_value_does_not_matter(body):
    assert syntax_error(body) is None


@given(st.text(alphabet='{}[]":,\\ud8eE01-+.ntrfalse \n', max_size=40))
def test_it_refuses_just_what_python_refuses(text):
    text = f"[{text}]"  # a bare number would end where it still makes sense
    try:
        json.JSONDecoder().raw_decode(text)
    except ValueError:
        assert syntax_error(text.encode()) is not None
    else:
        assert syntax_error(text.encode()) is None
