"""What no text may do to a parser: lose a word, raise, hang, or depend on how it was cut."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.output.pieces import (
    CallBroken,
    CallDone,
    Content,
    Piece,
    Thinking,
)
from tests.output.formats import FEW, FORMATS, TOOLS, Format
from tests.output.reading import fed, is_coherent, joined, read

FAMILIES = {f.name: f for f in FEW}


def fragments(fmt: Format) -> list[str]:
    """Whole texts of a family, its markers, and halves of both."""
    family = fmt.family
    markers = [*family.markers, *(o for s in family.style.syntaxes for o in s.openers)]
    whole = [fmt.one, fmt.two, fmt.thought or "", fmt.words, fmt.empty]
    halves = [text[: len(text) // 2] for text in (*whole, *markers)]
    words = ["Wörter 🌍", "W1", "{", "}", '"', "[", "]", "\n", " ", "<", "\\", "```", '{"name": "']
    return [text for text in (*whole, *markers, *halves, *words) if text]


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_text_is_read_the_same_however_it_is_cut(name: str, data) -> None:
    fmt = FAMILIES[name]
    texts = data.draw(st.lists(st.sampled_from(fragments(fmt)), max_size=8))
    text = "".join(texts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    once = read(fmt.family, text, len(text) + 1, prompt=fmt.prompt)
    assert joined(fed(fmt.family, parts, fmt.prompt, TOOLS)) == joined(once)
    assert joined(read(fmt.family, text, 1, prompt=fmt.prompt)) == joined(once)
    assert is_coherent(once)


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_no_word_of_the_model_is_lost(name: str, data) -> None:
    fmt = FAMILIES[name]
    parts = data.draw(st.lists(st.sampled_from([*fragments(fmt), *["word"] * 20]), max_size=8))
    numbered = [f" w{i}ord " if part == "word" else part for i, part in enumerate(parts)]
    pieces = read(fmt.family, "".join(numbered), 5, prompt=fmt.prompt)
    told = "".join(_told(piece) for piece in pieces)
    for word in numbered:
        if word.startswith(" w"):
            assert word.strip() in told


def _told(piece: Piece) -> str:
    match piece:
        case Content() | Thinking():
            return piece.text
        case CallBroken():
            return piece.raw
        case CallDone():
            return f"{piece.name} {piece.arguments}"
    return ""


HOSTILE = {
    "openers": lambda f: first(f) + "",
    "begun openers": lambda f: first(f)[:-1] or "{",
    "open braces": lambda f: "{",
    "open brackets": lambda f: "[",
    "open quote": lambda f: "\\u00",
    "line breaks in a string": lambda f: "Paris\\n",
    "halves of calls": lambda f: f.one[: len(f.one) // 2],
    "white space": lambda f: " \n",
    "reasoning": lambda f: f.family.reasoning_start or "<",
}
"""What a hostile text repeats, behind the beginning of a call."""


def first(fmt: Format) -> str:
    return next((o for s in fmt.family.style.syntaxes for o in (*s.openers, *s.starts)), ">>>")


def seconds(fmt: Format, kind: str, n_chars: int, size: int) -> float:
    again = HOSTILE[kind](fmt)
    text = fmt.one[: fmt.one.index("Paris")] if "string" in kind or "quote" in kind else first(fmt)
    text += again * (n_chars // len(again))
    begun = time.process_time()
    read(fmt.family, text, size, prompt=fmt.prompt)
    return time.process_time() - begun


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("size", [4, 10**9])
def test_hostile_text_costs_some_microseconds_a_character(kind: str, size: int) -> None:
    for fmt in FEW[::5]:
        assert seconds(fmt, kind, 10_000, size) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("size", [4, 10**9])
def test_long_hostile_text_is_read_in_linear_time(kind: str, size: int) -> None:
    for fmt in FORMATS:
        assert seconds(fmt, kind, 150_000, size) < 2
