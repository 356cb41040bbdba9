"""JSON schemas as clients write them → as llguidance can hold them. Pure.

Dropped is what says nothing about which values are valid: the name of the dialect, and formats that
JSON Schema does not know, which it defines to be annotations. What is left and cannot be held is
refused by llguidance itself, with a sentence that names it.
"""

from collections.abc import Mapping

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
_LITERAL = frozenset({"enum", "const", "default", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
MAX_DEPTH = 200


def held_schema(schema: Mapping[str, object]) -> dict[str, object]:
    """A copy without what cannot be held and means nothing."""
    return {key: _member(key, value, 0) for key, value in schema.items() if _is_kept(key, value)}


def _is_kept(key: str, value: object) -> bool:
    if key in {"$schema", "$id", "$comment", "x-guidance"}:
        return False
    if key == "propertyNames":
        return value not in ({}, {"type": "string"}, True)
    if key == "uniqueItems":
        return value is not False
    return key != "format" or value in _FORMATS


def _member(key: str, value: object, depth: int) -> object:
    if key in _LITERAL or depth > MAX_DEPTH:
        return value
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _schema(item, depth + 1) for name, item in value.items()}
    return _schema(value, depth + 1)


def _schema(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        return {k: _member(k, v, depth) for k, v in value.items() if _is_kept(k, v)}
    if isinstance(value, list):
        return [_schema(item, depth + 1) for item in value]
    return value
