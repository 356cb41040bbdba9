"""TextAssembler: bytes of tokens to text, whatever the cuts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.runner.stops import TextAssembler


def assemble(pieces: list[bytes], stops: tuple[str, ...] = ()) -> tuple[str, bool]:
    text = TextAssembler(stops)
    out = "".join(text.feed(piece) for piece in pieces)
    return out + text.flush(), text.stopped


@pytest.mark.parametrize(
    ("pieces", "stops", "expected", "stopped"),
    [
        ([b"a", b"b"], (), "ab", False),
        (["天".encode()[:1], "天".encode()[1:]], (), "天", False),
        ([b"a\xe5\xa4"], (), "a", False),
        ([b"\xff", b"x"], (), "\ufffdx", False),
        ([b"one STOP two"], ("STOP",), "one ", True),
        ([b"one ST", b"OP two"], ("STOP",), "one ", True),
        ([b"one ST", b"AY"], ("STOP",), "one STAY", False),
        ([b"one ST"], ("STOP",), "one ST", False),
        ([b"aab"], ("ab", "aab"), "", True),
        ([b"xyz"], ("", "y"), "x", True),
        (["好".encode()[:2], "好".encode()[2:] + b"!"], ("好!",), "", True),
    ],
)
def test_text_ends_before_the_first_stop_string(
    pieces: list[bytes], stops: tuple[str, ...], expected: str, stopped: bool
) -> None:
    assert assemble(pieces, stops) == (expected, stopped)


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    text = TextAssembler(("</end>",))
    assert text.feed(b"hi </en") == "hi "
    assert text.feed(b"tity>") == "</entity>"


def test_nothing_follows_a_stop_string() -> None:
    text = TextAssembler(("X",))
    assert text.feed(b"aXb") == "a"
    assert text.feed(b"more") == ""
    assert text.flush() == ""


@given(
    st.text(max_size=40),
    st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple),
    st.lists(st.integers(0, 160), max_size=12),
)
def test_text_is_the_same_however_the_bytes_are_cut(
    text: str, stops: tuple[str, ...], cuts: list[int]
) -> None:
    data = text.encode("utf-8", "replace")
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    whole, stopped = assemble(pieces, stops)
    found = [at for stop in stops if (at := data.decode().find(stop)) >= 0]
    assert stopped == bool(found)
    assert data.decode().startswith(whole)
    # With several stop strings the earliest completed one ends the text, not the earliest begun.
    if len(stops) <= 1:
        assert whole == (data.decode()[: found[0]] if found else data.decode())
