"""Text that arrives in pieces, read once, by generators that yield when they need more. Pure."""

import re
import sys
from collections.abc import Callable, Generator, Iterable
from functools import lru_cache
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""A reader: it yields whenever it waits for more text, and returns what it found."""


class Tape:
    """The text of one completion behind a reading position.

    Readers take what they have looked at and never look back, which is what keeps a parser linear
    in its input however small the pieces are.

    Attributes:
        text: What has arrived and was not dropped yet.
        at: Where the next reader begins in `text`.
        ended: Nothing will be added any more.
    """

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self._record: list[str] | None = None

    def add(self, text: str) -> None:
        """Append what has arrived."""
        self.text = self.text[self.at :] + text if self.at < len(self.text) else text
        self.at = 0

    def take(self, end: int) -> str:
        """Move on to `end` and return what lies between."""
        taken = self.text[self.at : end]
        self.at = end
        if self._record is not None:
            self._record.append(taken)
        return taken

    def back(self, n: int) -> None:
        """Give the last `n` characters back that were taken just now."""
        self.at -= n
        if self._record is not None:
            self._record[-1] = self._record[-1][:-n]

    def record(self, first: str = "") -> None:
        """Keep a copy of everything taken from now on, behind `first`."""
        self._record = [first]

    def recorded(self) -> str:
        """End `record` and return the copy."""
        taken, self._record = self._record or [], None
        return "".join(taken)

    def peek(self) -> Steps[str]:
        """The next character, without taking it; empty at the end."""
        while self.at >= len(self.text):
            if self.ended:
                return ""
            yield
        return self.text[self.at]

    def blank(self, write: Callable[[str], None] | None = None) -> Steps[None]:
        """Take white space."""
        while True:
            match = _BLANK.match(self.text, self.at)
            assert match is not None
            space = self.take(match.end())
            if space and write is not None:
                write(space)
            if self.at < len(self.text) or self.ended:
                return
            yield

    def literal(self, text: str) -> Steps[bool]:
        """Take `text` if it comes next; else take nothing."""
        while len(self.text) - self.at < len(text) and not self.ended:
            if not text.startswith(self.text[self.at :]):
                return False
            yield
        if not self.text.startswith(text, self.at):
            return False
        self.take(self.at + len(text))
        return True

    def one_of(self, texts: Iterable[str]) -> Steps[str]:
        """Take the first of `texts` that comes next; empty if none does."""
        for text in texts:
            if text and (yield from self.literal(text)):
                return text
        return ""

    def until(self, markers: "Markers", write: Callable[[str], None]) -> Steps[str]:
        """Take text up to a marker, and the marker.

        Args:
            markers: What to stop at.
            write: Gets the text before it, as soon as it cannot be part of a marker.

        Returns:
            The marker; empty at the end of the text.
        """
        while True:
            match = markers.search(self.text, self.at)
            end = len(self.text) if match is None else match.start()
            if end > self.at:
                write(self.take(end))
            if match is not None and match.lastindex:
                return self.take(match.end())
            if self.ended:
                if self.at < len(self.text):
                    write(self.take(len(self.text)))
                return ""
            yield

    def short(self, markers: "Markers", write: Callable[[str], None], limit: int) -> Steps[str]:
        """As `until`, but give up, having taken some text, behind `limit` characters."""
        size = 0
        while True:
            stop = self.at + limit + 1 - size + markers.longest
            match = markers.search(self.text, self.at, stop)
            end = len(self.text) if match is None else match.start()
            end = min(end, self.at + limit + 1 - size)
            if end > self.at:
                size += end - self.at
                write(self.take(end))
            if size > limit or (match is None and self.ended):
                return ""
            if match is not None and match.lastindex:
                return self.take(match.end())
            if self.ended:
                return ""
            yield

    def word(self, pattern: "re.Pattern[str]", limit: int = 256) -> Steps[str]:
        """Take what matches `pattern`, a class of characters; more than `limit` of them is none."""
        parts: list[str] = []
        size = 0
        while True:
            match = pattern.match(self.text, self.at)
            if match is not None:
                parts.append(self.take(min(match.end(), self.at + limit + 1 - size)))
                size += len(parts[-1])
            if self.at < len(self.text) or self.ended or size > limit:
                return "".join(parts) if size <= limit else ""
            yield


class Markers:
    """A set of texts to look for in what arrives piece by piece; none begins with another."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(dict.fromkeys(text for text in texts if text))
        whole = "|".join(re.escape(text) for text in self.texts)
        begun = "|".join(_begun(text) for text in self.texts)
        self._pattern = re.compile(f"({whole})|(?:{begun})" if self.texts else r"(?!)")

        self.longest = max(map(len, self.texts), default=0)

    def search(self, text: str, at: int, stop: int = sys.maxsize) -> "re.Match[str] | None":
        """The first marker before `stop`, whole (then it is group 1) or begun at the end."""
        return self._pattern.search(text, at, stop)


@lru_cache(maxsize=256)
def markers_of(*texts: str) -> Markers:
    """`Markers`, kept: compiling them costs more than reading with them."""
    return Markers(texts)


_BLANK = re.compile(r"\s*")


def _begun(marker: str) -> str:
    r"""A pattern of the proper beginnings of `marker` at the end: `ab` → `a(?:\Z)`."""
    pattern = r"\Z"
    for char in reversed(marker[1:-1]):
        pattern = rf"(?:\Z|{re.escape(char)}{pattern})"
    return re.escape(marker[0]) + pattern if len(marker) > 1 else r"(?!)"
