"""`keep_alive` in all its forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import BadRequest
from localrun.server.durations import FOREVER, parse_keep_alive
from localrun.server.schema.decode import Literal


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0), (5, 5), (1.5, 1.5), (-1, FOREVER), (-0.5, FOREVER), ("5m", 300),
        ("1h30m", 5400), ("500ms", 0.5), ("24h", 86400), ("0", 0), ("-1m", FOREVER),
        ("1.5h", 5400), ("+5s", 5), (".5s", 0.5), ("1.s", 1), ("3us", 3e-6), ("3µs", 3e-6),
    ],
)  # fmt: skip
def test_every_form_of_ollama_is_read(value, seconds):
    assert parse_keep_alive(value) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("", 'time: invalid duration ""'),
        ("m", 'time: invalid duration "m"'),
        ("5m x", 'time: unknown unit "m x" in duration "5m x"'),
        ("5parsec", 'time: unknown unit "parsec" in duration "5parsec"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
        ("٣s", r'time: invalid duration "\\xd9\\xa3s"'),
        (Literal("1e400"), "json: cannot unmarshal number 1e400 into Go value of type float64"),
        (True, "Unsupported type: 'bool'"),
        ([], r"Unsupported type: '\[\]interface {}'"),
        ({}, "Unsupported type: 'map"),
    ],
)
def test_anything_else_is_refused_in_gos_words(value, error):
    with pytest.raises(BadRequest, match=error):
        parse_keep_alive(value)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_parts_add_up(hours, minutes, seconds):
    assert parse_keep_alive(f"{hours}h{minutes}m{seconds}s") == pytest.approx(
        hours * 3600 + minutes * 60 + seconds
    )


@given(st.text())
def test_any_text_is_a_duration_or_a_bad_request(text):
    try:
        found = parse_keep_alive(text)
    except BadRequest:
        return
    assert found is not None
    assert found >= 0
