"""Objects that name their keys have no others: what people who write `properties` mean. Pure.

JSON Schema itself allows any further key. A small model then goes on inventing keys, and callers
who unpack an object into arguments fail on them. llama.cpp, Ollama and OpenAI's strict mode close
such objects too. An object stays open where something else in the schema could name keys of it.
"""

from collections.abc import Mapping

from localrun.output.shapes import array_in, object_in

_LITERAL = frozenset({"enum", "const", "default", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_SAYS_MORE = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames"}
    | {"not", "dependentSchemas", "minProperties"}
)
_JOINS = frozenset({"allOf", "if", "unevaluatedProperties", "$dynamicRef"})
_CHOICES = frozenset({"$ref", "anyOf", "oneOf"})
"""Beside `properties` they say more about the same object."""
MAX_DEPTH = 200


def closed(schema: Mapping[str, object]) -> Mapping[str, object]:
    """The schema, its objects closed that name their keys.

    Where parts of the document are joined (`allOf`), any object may be one half of another.
    """
    return schema if _joins(schema, 0) else _closed(schema, 0)


def _joins(value: object, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return True
    if (members := object_in(value)) is not None:
        if not _JOINS.isdisjoint(members):
            return True
        if "properties" in members and not _CHOICES.isdisjoint(members):
            return True
        return any(_joins(item, depth + 1) for key, item in members.items() if key not in _LITERAL)
    return any(_joins(item, depth + 1) for item in array_in(value) or ())


def _closed(schema: Mapping[str, object], depth: int) -> dict[str, object]:
    found = {key: _member(key, value, depth) for key, value in schema.items()}
    if "properties" not in schema:
        return found
    if _SAYS_MORE.isdisjoint(schema) and _names_all(schema):
        found["additionalProperties"] = False
    return found


def _names_all(schema: Mapping[str, object]) -> bool:
    """What must be there has a name."""
    names = object_in(schema["properties"])
    return names is not None and all(key in names for key in array_in(schema.get("required")) or ())


def _member(key: str, value: object, depth: int) -> object:
    if key in _LITERAL or depth > MAX_DEPTH:
        return value
    if (members := object_in(value)) is not None:
        if key in _NAMED:
            return {name: _member("", item, depth + 1) for name, item in members.items()}
        return _closed(members, depth + 1)
    if (items := array_in(value)) is not None:
        return [_member("", item, depth + 1) for item in items]
    return value
