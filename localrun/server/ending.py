"""Where the records of another's stream end, and whether the last one is an end. Pure."""

import re
from typing import cast

import msgspec

_LAST_EVENTS = re.compile(
    rb"event: (message_stop|error|response\.(completed|incomplete|failed))\b|data: \[DONE\]"
    rb'|data: \{"error"'
)


class Records:
    """Cuts a stream of bytes at the ends of its records.

    Args:
        end: What ends a record.

    Attributes:
        last: What `take` gave last; its end is that of the stream.
        rest: The beginning of a record whose end has not come.
    """

    __slots__ = ("end", "last", "rest")

    def __init__(self, end: bytes) -> None:
        self.end = end
        self.last: bytes = b""
        self.rest: bytes = b""

    def take(self, piece: bytes) -> bytes:
        """The records that are whole with this piece; mostly the piece itself."""
        if self.rest or not piece.endswith(self.end):
            piece = self.rest + piece
            at = piece.rfind(self.end) + len(self.end)
            if at < len(self.end):
                self.rest = piece
                return b""
            piece, self.rest = piece[:at], piece[at:]
        self.last = piece
        return piece


def is_complete(records: bytes) -> bool:
    """Whether the last of some records, NDJSON or events, says that nothing more follows."""
    text = records.strip()
    event = text.rpartition(b"\n\n")[2]
    if event.startswith((b"data:", b"event:")):
        return _LAST_EVENTS.match(event) is not None
    try:
        record: object = msgspec.json.decode(text.rpartition(b"\n")[2])
    except msgspec.DecodeError:
        return False
    if not isinstance(record, dict):
        return False
    record = cast("dict[str, object]", record)
    return record.get("done") is True or record.get("status") == "success" or "error" in record
