"""Where a text can be cut so that its parts give the same tokens as the whole. Pure.

llama.cpp cuts the texts of special tokens out first, longest first, and tokenizes what lies between
them piece by piece. So the start of a special token divides the tokens exactly, as long as no other
special token that is looked for earlier can lie across that place or reach into the token.

Source: llama.cpp's `llama_vocab::impl::tokenizer_st_partition` and `tokenize`.
"""

from collections.abc import Iterable, Mapping, Sequence

MAX_BOUNDARIES = 16
"""Texts that are looked for; chat templates write fewer."""


def dividing_texts(candidates: Iterable[str], whole: Mapping[str, bool]) -> tuple[str, ...]:
    """Which of these texts divide a text wherever they stand.

    Args:
        candidates: Texts of special tokens.
        whole: All special tokens' texts, each with whether it takes the whitespace before it.
    """
    found = (text for text in candidates if _divides(text, whole))
    return tuple(found)[:MAX_BOUNDARIES]


def _divides(text: str, whole: Mapping[str, bool]) -> bool:
    # One that takes the whitespace before it, or begins with some that another could take, does not
    # divide at its start.
    if not text or text[0].isspace() or whole.get(text, True):
        return False
    n_bytes = len(text.encode("utf-8", "replace"))
    return not any(
        _overlaps(text, other)
        for other in whole
        # A shorter one is looked for later, when this one has been found.
        if len(other) * 4 >= n_bytes and len(other.encode("utf-8", "replace")) >= n_bytes
    )


def _overlaps(text: str, other: str) -> bool:
    """Whether another can cover the start of a text, or start inside it; the same start is none."""
    covers = text[0] in other[1:] and any(
        _agree(other[at:], text) for at in range(1, len(other)) if other[at] == text[0]
    )
    reaches = other[0] in text[1:] and any(
        _agree(text[at:], other) for at in range(1, len(text)) if text[at] == other[0]
    )
    return covers or reaches


def _agree(one: str, two: str) -> bool:
    return one.startswith(two) or two.startswith(one)


def cut(text: str, boundaries: Sequence[str], *, at_least: int = 1) -> list[str]:
    """A text in parts that begin with one of these texts, save the first; together they are it.

    Args:
        text: Any text.
        boundaries: What `dividing_texts` returned.
        at_least: Characters of a part that is followed by another.
    """
    places: list[int] = []
    for boundary in boundaries:
        at = text.find(boundary, 1)
        while at >= 0:
            places.append(at)
            at = text.find(boundary, at + len(boundary))
    places.sort()
    found: list[str] = []
    start = 0
    for at in places:
        if at - start >= at_least:
            found.append(text[start:at])
            start = at
    found.append(text[start:])
    return found
