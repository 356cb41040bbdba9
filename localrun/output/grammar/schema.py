"""JSON schemas as clients write them → as llguidance can hold them. Pure.

Dropped is what says nothing about which values are valid: the name of the dialect, and formats that
JSON Schema does not know, which it defines to be annotations. What is left and cannot be held is
refused by llguidance itself, with a sentence that names it.
"""

from collections.abc import Mapping

from localrun.output.shapes import array_in, object_in

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_LITERAL = frozenset({"enum", "const", "default", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_DROPPED = frozenset({"$schema", "$id", "$comment", "x-guidance"})
MAX_DEPTH = 200


def held_schema(schema: Mapping[str, object], *, is_strict: bool) -> dict[str, object]:
    """A copy without what cannot be held and means nothing.

    Args:
        schema: As the client wrote it.
        is_strict: Leave in what cannot be held though it means something, for llguidance to
            refuse; else a tool with a careless schema can be called all the same.
    """
    return _members(schema, 0, is_strict=is_strict)


def _members(schema: Mapping[str, object], depth: int, *, is_strict: bool) -> dict[str, object]:
    return {
        key: _member(key, value, depth, is_strict=is_strict)
        for key, value in schema.items()
        if _is_kept(key, value) and (is_strict or _can_be_held(key, value))
    }


def _is_kept(key: str, value: object) -> bool:
    if key in _DROPPED or (value is None and key not in _LITERAL):
        return False
    if key == "propertyNames":
        return value not in ({}, {"type": "string"}, True)
    if key == "uniqueItems":
        return value is not False
    return key != "format" or value in _FORMATS


def _can_be_held(key: str, value: object) -> bool:
    """Not so the slips that are common in the schemas of tools."""
    if key == "type":
        names = [value] if isinstance(value, str) else array_in(value) or ()
        return all(name in _TYPES for name in names)
    return key != "pattern" or "(?" not in str(value)


def _member(key: str, value: object, depth: int, *, is_strict: bool) -> object:
    if key in _LITERAL or depth > MAX_DEPTH:
        return value
    named = object_in(value) if key in _NAMED else None
    if named is not None:
        return {k: _schema(item, depth + 1, is_strict=is_strict) for k, item in named.items()}
    return _schema(value, depth + 1, is_strict=is_strict)


def _schema(value: object, depth: int, *, is_strict: bool) -> object:
    if (members := object_in(value)) is not None:
        return _members(members, depth, is_strict=is_strict)
    if (items := array_in(value)) is not None:
        return [_schema(item, depth + 1, is_strict=is_strict) for item in items]
    return value
