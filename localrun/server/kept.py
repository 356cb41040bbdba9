"""Responses that are kept while the server lives: the oldest go when there are too many bytes."""

from collections import OrderedDict
from dataclasses import dataclass

MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response and what it answered.

    Attributes:
        response: Its JSON.
        items: JSON array of its own input, without that of the responses before it.
        output: JSON array of its output.
        previous: Id of the response that it goes on from; empty if it begins.
    """

    response: bytes
    items: bytes
    output: bytes
    previous: str

    @property
    def n_bytes(self) -> int:
        """What it takes, nearly."""
        return len(self.response) + len(self.items) + len(self.output)


class KeptResponses:
    """Responses by cache scope and id: nobody finds those of another key. Used on the event loop.

    Args:
        max_bytes: Of all of them together.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._kept: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()

    def put(self, scope: str, name: str, stored: StoredResponse) -> None:
        """Keep a response; one that is larger than all may be together is not kept."""
        if stored.n_bytes > self._max_bytes:
            return
        self.pop(scope, name)
        self._kept[scope, name] = stored
        self._n_bytes += stored.n_bytes
        while self._n_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._n_bytes -= oldest.n_bytes

    def get(self, scope: str, name: str) -> StoredResponse | None:
        """A response, which counts as used now; None if it is gone."""
        stored = self._kept.get((scope, name))
        if stored is not None:
            self._kept.move_to_end((scope, name))
        return stored

    def chain(self, scope: str, name: str) -> list[StoredResponse] | None:
        """A response and all before it, the first one first; None if one of them is gone.

        The first is used last: a conversation goes as a whole, never its beginning alone.
        """
        found: list[StoredResponse] = []
        while name:
            stored = self.get(scope, name)
            if stored is None:
                return None
            found.append(stored)
            name = stored.previous
        return found[::-1]

    def pop(self, scope: str, name: str) -> StoredResponse | None:
        """Forget a response; None if there was none."""
        stored = self._kept.pop((scope, name), None)
        if stored is not None:
            self._n_bytes -= stored.n_bytes
        return stored
