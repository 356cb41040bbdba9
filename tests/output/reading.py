"""What the tests of parsers share: feeding in pieces, and asking what came out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from localrun.output.family import Family
from localrun.output.pieces import (
    CallArguments,
    CallBegun,
    CallBroken,
    CallDone,
    Content,
    Piece,
    Thinking,
)
from tests.output.formats import TOOLS


def read(
    family: Family,
    text: str,
    size: int,
    prompt: str = "",
    tools: Sequence[Mapping[str, object]] = TOOLS,
    is_formatted: bool = False,
) -> list[Piece]:
    """All pieces of a text that comes `size` characters at a time."""
    parts = (text[i : i + size] for i in range(0, len(text), size))
    return fed(family, parts, prompt, tools, is_formatted)


def read_both(family: Family, text: str, **how: Any) -> list[Piece]:
    """All pieces of a text that comes character by character; the same as if it comes at once."""
    pieces = read(family, text, 1, **how)
    assert joined(pieces) == joined(read(family, text, len(text) + 1, **how))
    assert is_coherent(pieces)
    return pieces


def fed(
    family: Family,
    texts: Iterable[str],
    prompt: str,
    tools: Sequence[Mapping[str, object]],
    is_formatted: bool = False,
) -> list[Piece]:
    parser = family.parser(prompt_text=prompt, tools=tools, think=None, is_formatted=is_formatted)
    pieces = [piece for text in texts for piece in parser.feed(text)]
    return pieces + parser.finish()


def content(pieces: Sequence[Piece]) -> str:
    return "".join(p.text for p in pieces if isinstance(p, Content))


def thinking(pieces: Sequence[Piece]) -> str:
    return "".join(p.text for p in pieces if isinstance(p, Thinking))


def calls(pieces: Sequence[Piece]) -> list[tuple[str, Mapping[str, object]]]:
    return [(p.name, p.arguments) for p in pieces if isinstance(p, CallDone)]


def broken(pieces: Sequence[Piece]) -> list[str]:
    return [p.raw for p in pieces if isinstance(p, CallBroken)]


def is_coherent(pieces: Sequence[Piece]) -> bool:
    """Every call begins once, ends once, and its streamed arguments are those it ends with."""
    begun = [p.index for p in pieces if isinstance(p, CallBegun)]
    ended = [p.index for p in pieces if isinstance(p, CallDone | CallBroken)]
    for piece in pieces:
        if isinstance(piece, CallDone):
            told = (
                p.text for p in pieces if isinstance(p, CallArguments) and p.index == piece.index
            )
            if json.loads("".join(told)) != piece.arguments:
                return False
    return begun == ended == list(range(len(begun)))


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind made one, ids left out: how the text was cut no longer shows."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if isinstance(piece, Content | Thinking) and type(last) is type(piece):
            out[-1] = type(piece)(last.text + piece.text)
        elif isinstance(piece, CallArguments) and isinstance(last, CallArguments):
            out[-1] = CallArguments(piece.index, last.text + piece.text)
        elif isinstance(piece, CallBegun | CallDone):
            out.append(replace(piece, id=""))
        else:
            out.append(piece)
    return out
