"""JSON and times as they go on the wire. Pure.

UTF-8 with U+0085, U+2028 and U+2029 escaped: the line splitter of httpx, which the ollama client
reads records with, cuts at those three. They can stand inside strings only, so that replacing bytes
cannot hurt the structure.
"""

import time
from datetime import UTC, datetime
from typing import cast

import msgspec

_encoder = msgspec.json.Encoder()
_SEPARATORS = (
    ("\u0085".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
_FOREVER_S = 292 * 365.25 * 86400
_last_second: tuple[int, bytes] = (-1, b"")


def dump(value: object) -> bytes:
    """Any JSON value as one line, without a newline; lone surrogates become U+FFFD."""
    try:
        return escape(_encoder.encode(value))
    except UnicodeEncodeError:
        return escape(_encoder.encode(without_surrogates(value)))


def dump_text(text: str) -> bytes:
    """A string as a JSON string."""
    if text.isascii():
        return _encoder.encode(text)
    return dump(text)


def escape(encoded: bytes) -> bytes:
    """Escape the three separators in encoded JSON."""
    if encoded.isascii():
        return encoded
    for raw, escaped in _SEPARATORS:
        if raw in encoded:
            encoded = encoded.replace(raw, escaped)
    return encoded


def utc_now() -> bytes:
    """The time as Go prints it in UTC, such as `2026-08-21T18:48:00.123456Z`.

    Called once a record: the part above a second is kept from the last call.
    """
    global _last_second  # noqa: PLW0603 (a cache of one)
    second, rest = divmod(time.time_ns(), 1_000_000_000)
    if second != _last_second[0]:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last_second = second, text.encode()
    return b"%s.%06dZ" % (_last_second[1], rest // 1000)


def local_time(moment: datetime) -> str:
    """A time with the local zone's offset, as Go prints a `time.Time`: `Z` where it is zero."""
    return moment.astimezone().isoformat(timespec="microseconds").replace("+00:00", "Z")


def local_time_of(unix_s: float) -> str:
    """The same of a Unix time in seconds; `inf` is about 292 years ahead, as in Go."""
    return local_time(datetime.fromtimestamp(min(unix_s, time.time() + _FOREVER_S), UTC))


def nanoseconds(seconds: float) -> int:
    """Whole nanoseconds."""
    return int(seconds * 1e9)


def without_surrogates(value: object) -> object:
    """A JSON value with lone surrogates replaced by U+FFFD, which no encoder refuses."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [without_surrogates(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {str(without_surrogates(key)): without_surrogates(item) for key, item in items}
    return value
