"""Tools with all the fields that templates reach for without asking. Pure.

To OpenAI and Anthropic a name is enough; a description, parameters and a type of each are not. A
tool is shown as it was written, and completed only for a template that fails on what is missing.
"""

from collections.abc import Mapping, Sequence
from typing import cast

MAX_DEPTH = 32


def completed(tools: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The tools, with an empty value or the likeliest one where there is none."""
    return [_tool(tool) for tool in tools]


def _tool(tool: Mapping[str, object]) -> Mapping[str, object]:
    given = _mapping(tool.get("function"))
    empty: dict[str, object] = {"type": "object", "properties": {}}
    schema = {**empty, **_mapping(given.get("parameters"))}
    function = {"description": "", **given, "parameters": _with_properties(schema, 0)}
    return {"type": "function", **tool, "function": function}


def _schema(schema: object, depth: int) -> object:
    """A parameter with one type and a description."""
    if depth > MAX_DEPTH or not isinstance(schema, Mapping):
        return schema
    given = cast("Mapping[str, object]", schema)
    whole = {"description": "", **given, "type": _one_type(given)}
    return _with_properties(whole, depth)


def _with_properties(schema: dict[str, object], depth: int) -> dict[str, object]:
    if isinstance(schema.get("properties"), Mapping):
        items = _mapping(schema["properties"]).items()
        schema = {**schema, "properties": {key: _schema(item, depth + 1) for key, item in items}}
    if isinstance(schema.get("items"), Mapping):
        schema = {**schema, "items": _schema(schema["items"], depth + 1)}
    return schema


def _one_type(schema: Mapping[str, object]) -> str:
    """The first type that is not null: few templates know lists of types."""
    found = schema.get("type")
    if isinstance(found, str):
        return found
    types = list(cast("list[object]", found)) if isinstance(found, list) else []
    choices = schema.get("anyOf") or schema.get("oneOf")
    for choice in cast("list[object]", choices) if isinstance(choices, list) else ():
        types.append(_mapping(choice).get("type"))
    named = (kind for kind in types if isinstance(kind, str) and kind != "null")
    return next(named, "string")


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
