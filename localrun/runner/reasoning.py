"""Where a completion reasons, and for how long: found in its text. Pure."""

from localrun.messages import Reasoning, unpack_tokens


class ReasoningTrack:
    """Follows one completion from its first token.

    Markers are looked for in the bytes of the text, as a model may write them in any tokens.

    Args:
        reasoning: As the request has it.
    """

    def __init__(self, reasoning: Reasoning) -> None:
        self.is_open = reasoning.is_open
        self.n_tokens = 0
        self.closing = unpack_tokens(reasoning.closing)
        self._start, self._end = reasoning.start.encode(), reasoning.end.encode()
        self._budget, self._asked = reasoning.budget, False
        self._tail = b""

    @property
    def must_close(self) -> bool:
        """Whether the closing tokens are to come next."""
        if not self.is_open or not self.closing:
            return False
        return self._asked or 0 <= self._budget <= self.n_tokens

    def ask_to_close(self) -> None:
        """Have it end soon; ignored where the completion is not reasoning."""
        self._asked = self.is_open

    def feed(self, piece: bytes) -> None:
        """Take the bytes of the next token. One that comes while the reasoning is open counts."""
        self.n_tokens += self.is_open
        self._tail += piece
        while marker := self._end if self.is_open else self._start:
            at = self._tail.find(marker)
            if at < 0:
                keep = len(marker) - 1
                self._tail = self._tail[-keep:] if keep else b""
                return
            self.is_open = not self.is_open
            self._tail = self._tail[at + len(marker) :]
        self._tail = b""

    def closed(self) -> None:
        """The closing tokens are in: the reasoning is over, whatever they spell."""
        self.is_open = self._asked = False
        self._tail = b""
