"""Turn the bytes of tokens into text: split UTF-8 and stop strings. Pure."""

import codecs
from collections.abc import Sequence


class TextAssembler:
    """Feed the pieces of one completion, take text that can no longer become a stop string.

    Bytes that are not UTF-8 become U+FFFD; a character that is not complete at the end is left
    out. A stop string ends the text before it; what comes after is dropped.

    Attributes:
        stopped: A stop string has ended the text.
        stop: Which one; empty before.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped, self.stop = False, ""

    def feed(self, piece: bytes) -> str:
        """Take the next token's bytes and return the text that is now certain, maybe none."""
        return self._release(self._decoder.decode(piece))

    def flush(self) -> str:
        """Return what was held back, at the end of the completion; empty after a stop string."""
        rest, self._held = self._held, ""
        return rest

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.stop = min(found, key=lambda match: match[0])
            self.stopped = True
            before, self._held = self._held[:at], ""
            return before
        n_keep = self._n_open()
        cut = len(self._held) - n_keep
        certain, self._held = self._held[:cut], self._held[cut:]
        return certain

    def _n_open(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(map(len, self._stops)) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-n:]
            if any(stop.startswith(end) for stop in self._stops):
                return n
        return 0
