"""The text of an argument → the JSON value that its schema asks for. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence

from localrun.output.lenient import JsonReader, State
from localrun.output.shapes import array_in, object_in

MAX_DEPTH = 8
_STRING = frozenset({"string"})
_ANY = frozenset({"string", "number", "boolean", "null", "object", "array"})


def types_of(schema: object, root: Mapping[str, object], depth: int = 0) -> frozenset[str]:
    """The JSON types that a schema allows; empty where it says nothing about them.

    Args:
        schema: Of one argument.
        root: The schema it stands in, for references.
        depth: Of this schema in `root`.
    """
    members = object_in(schema)
    if members is None or depth > MAX_DEPTH:
        return frozenset()
    names = members.get("type")
    if isinstance(names, str):
        return frozenset({names})
    if (several := array_in(names)) is not None:
        return frozenset(name for name in several if isinstance(name, str))
    if (values := _values(members)) is not None:
        return frozenset(_type(value) for value in values)
    found: set[str] = set()
    for part in _parts(members, root):
        found |= types_of(part, root, depth + 1)
    return frozenset(found)


def _values(schema: Mapping[str, object]) -> Sequence[object] | None:
    return [schema["const"]] if "const" in schema else array_in(schema.get("enum"))


def _parts(schema: Mapping[str, object], root: Mapping[str, object]) -> Iterator[object]:
    for key in ("anyOf", "oneOf", "allOf"):
        yield from array_in(schema.get(key)) or ()
    if isinstance(target := schema.get("$ref"), str) and target.startswith("#/"):
        found: object = root
        for name in target[2:].split("/"):
            found = (object_in(found) or {}).get(name)
        yield found


def _type(value: object) -> str:
    for name, kinds in _KINDS:
        if isinstance(value, kinds):
            return name
    return "null"


_KINDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("boolean", bool),
    ("number", (int, float)),
    ("string", str),
    ("object", dict),
    ("array", list),
)


def typed(text: str, types: frozenset[str]) -> str:
    """The JSON of an argument that a model wrote as plain text.

    Args:
        text: As it stands between the markers.
        types: What the schema allows; empty if nothing is known.

    Returns:
        The text as JSON if that is of an allowed type; else the text as a string.
    """
    if types == _STRING:
        return json.dumps(text, ensure_ascii=False)
    found = json_of(text)
    if found is None:
        return json.dumps(text, ensure_ascii=False)
    value: object = json.loads(found)
    kind = _type(value)
    if kind == "number" and "integer" in types and "number" not in types:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return str(int(value)) if whole else json.dumps(text)  # type: ignore[call-overload]
    allowed = types or _ANY
    return found if kind in allowed else json.dumps(text, ensure_ascii=False)


def json_of(text: str) -> str | None:
    """The text as JSON, mended where `lenient` can; None if it is none."""
    reader = JsonReader()
    end = reader.feed(text)
    if end == len(text):
        reader.finish()
    written = reader.drain()
    if reader.state is not State.DONE or text[end:].strip():
        return None
    return written
