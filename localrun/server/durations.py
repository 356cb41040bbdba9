"""Ollama's `keep_alive`: its input forms and their errors. Pure.

Source: Ollama's `api.Duration.UnmarshalJSON` and Go's `time.ParseDuration`.
"""

import re
from math import isinf

from localrun.errors import BadRequest
from localrun.server.schema.decode import kind_of

FOREVER = float("inf")
_MAX_S = ((1 << 63) - 1) / 1e9
"""What Go's durations can hold."""

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)
_KINDS: dict[type, str] = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def parse_keep_alive(value: object) -> float | None:
    """Seconds that a model stays; `inf` for ever, None for the server's default.

    Args:
        value: The JSON value: null, a number of seconds or a Go duration such as `1h30m`.
            Negative is for ever.

    Raises:
        BadRequest: If it is none of these, in Go's words.
    """
    if value is None:
        return None
    if isinstance(value, str):
        seconds = parse_go_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
        if isinf(seconds):  # a literal that no float64 can hold
            raise BadRequest(
                f"json: cannot unmarshal {kind_of(value, 'int')} into Go value of type float64"
            )
    else:
        raise BadRequest(f"Unsupported type: '{_KINDS.get(type(value), type(value).__name__)}'")
    return FOREVER if seconds < 0 or seconds != seconds else min(seconds, _MAX_S)


def parse_go_duration(text: str) -> float:
    """Seconds of a Go duration.

    Raises:
        BadRequest: In Go's words.
    """
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0.0
    total, at = 0.0, 0
    while part := _PART.match(body, at):
        number, unit = part.groups()
        if not unit:
            raise BadRequest(f"time: missing unit in duration {_quoted(text)}")
        if unit not in _UNITS_S:
            raise BadRequest(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
        total, at = total + float(number) * _UNITS_S[unit], part.end()
    if not body or at != len(body) or total > _MAX_S:
        raise BadRequest(f"time: invalid duration {_quoted(text)}")
    return -total if text.startswith("-") else total


def _quoted(text: str) -> str:
    """As Go's `time` quotes: what is not printable ASCII as bytes."""
    escaped = (
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"
        for byte in text.encode("utf-8", "replace")
    )
    return f'"{"".join(escaped)}"'
