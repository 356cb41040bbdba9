"""What Ollama gives a template: its messages and tools as Go values. Pure.

Source: Ollama `template/template.go` and `api/types.go`. Of a tool's JSON schema only the keywords
of those types are kept, as in Ollama; a value of another type than theirs is their zero value.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from localrun.gotemplate import gojson
from localrun.gotemplate.printing import print_value
from localrun.gotemplate.values import (
    ANY,
    ANY_SLICE,
    INT,
    STRING,
    STRING_SLICE,
    UINT8,
    Kind,
    Map,
    Pointer,
    Slice,
    Struct,
    StructField,
    Type,
    Value,
    as_list,
    as_object,
    from_json,
    whole_text,
    zero_of,
)

if TYPE_CHECKING:
    from localrun.messages import Turn


def _shown_as_json(value: Value) -> str:
    if isinstance(value, Map) and value.items is None:
        return "{}"
    return gojson.to_json(value)


def _shown_types(value: Value) -> str:
    names = value.values() if isinstance(value, Slice) else []
    if not names:
        return ""
    return print_value(names[0] if len(names) == 1 else Slice(STRING_SLICE, names))


def _json_types(value: Value) -> str:
    if isinstance(value, Slice) and len(value) == 1:
        return gojson.encode(value.values()[0])
    items = value.items if isinstance(value, Slice) else None
    return gojson.encode(Slice(STRING_SLICE, items))


def _typescript(value: Value) -> Value:
    """A property as a TypeScript type."""
    if not isinstance(value, Struct):
        return "any"
    choices, types = value.values["AnyOf"], value.values["Type"]
    if isinstance(choices, Slice) and len(choices):
        return " | ".join(print_value(_typescript(one)) for one in choices.values())
    if not isinstance(types, Slice) or not len(types):
        return "any"
    return " | ".join(_TYPESCRIPT.get(print_value(one), "any") for one in types.values())


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _inner_map(value: Value) -> Map:
    """The properties of a property, in the order they were written in."""
    target = value.target if isinstance(value, Pointer) else None
    inner = target.values["om"] if isinstance(target, Struct) else None
    held = inner.target if isinstance(inner, Pointer) else None
    return held if isinstance(held, Map) else Map(PROPERTY_MAP, None)


def _json_properties(value: Value) -> str:
    items = _inner_map(value).items
    return "null" if items is None else gojson.members(items.items())


def _n_properties(value: Value) -> Value:
    return len(_inner_map(value))


PROPERTY_TYPE = Type("api.PropertyType", Kind.SLICE, STRING, text=_shown_types, json=_json_types)
PROPERTY = Type("api.ToolProperty", Kind.STRUCT, methods={"ToTypeScriptType": _typescript})
PROPERTY_MAP = Type("map[string]api.ToolProperty", Kind.MAP, PROPERTY)
PROPERTIES = Type("template.templateProperties", Kind.MAP, PROPERTY, text=_shown_as_json)
ORDERED_MAP = "*orderedmap.Map[string,github.com/ollama/ollama/api.ToolProperty]"
ORDERED_POINTER = Type(ORDERED_MAP, Kind.POINTER, PROPERTY_MAP)
INNER_PROPERTIES = Type(
    "api.ToolPropertiesMap", Kind.STRUCT, fields=(StructField("om", ORDERED_POINTER),)
)
INNER_PROPERTIES_POINTER = Type(
    "*api.ToolPropertiesMap",
    Kind.POINTER,
    INNER_PROPERTIES,
    json=_json_properties,
    methods={"Len": _n_properties, "ToMap": _inner_map},
)
PROPERTY.fields = (
    StructField(
        "AnyOf", Type("[]api.ToolProperty", Kind.SLICE, PROPERTY), "anyOf", omits_empty=True
    ),
    StructField("Type", PROPERTY_TYPE, "type", omits_empty=True),
    StructField("Items", ANY, "items", omits_empty=True),
    StructField("Description", STRING, "description", omits_empty=True),
    StructField("Enum", ANY_SLICE, "enum", omits_empty=True),
    StructField("Properties", INNER_PROPERTIES_POINTER, "properties", omits_empty=True),
    StructField("Required", STRING_SLICE, "required", omits_empty=True),
)
PARAMETERS = Type(
    "template.templateToolFunctionParameters",
    Kind.STRUCT,
    fields=(
        StructField("Type", STRING, "type"),
        StructField("Defs", ANY, "$defs", omits_empty=True),
        StructField("Items", ANY, "items", omits_empty=True),
        StructField("Required", STRING_SLICE, "required", omits_empty=True),
        StructField("Properties", PROPERTIES, "properties"),
    ),
)
TOOL_FUNCTION = Type(
    "template.templateToolFunction",
    Kind.STRUCT,
    fields=(
        StructField("Name", STRING, "name"),
        StructField("Description", STRING, "description"),
        StructField("Parameters", PARAMETERS, "parameters"),
    ),
)
TOOL = Type(
    "template.templateTool",
    Kind.STRUCT,
    fields=(
        StructField("Type", STRING, "type"),
        StructField("Items", ANY, "items", omits_empty=True),
        StructField("Function", TOOL_FUNCTION, "function"),
    ),
    text=_shown_as_json,
)
TOOLS = Type("template.templateTools", Kind.SLICE, TOOL, text=_shown_as_json)
ARGUMENTS = Type("template.templateArgs", Kind.MAP, ANY, text=_shown_as_json)
CALL_FUNCTION = Type(
    "template.templateToolCallFunction",
    Kind.STRUCT,
    fields=(
        StructField("Index", INT),
        StructField("Name", STRING),
        StructField("Arguments", ARGUMENTS),
    ),
)
TOOL_CALL = Type(
    "template.templateToolCall",
    Kind.STRUCT,
    fields=(StructField("ID", STRING), StructField("Function", CALL_FUNCTION)),
)
IMAGE = Type("api.ImageData", Kind.SLICE, UINT8)
IMAGES = Type("[]api.ImageData", Kind.SLICE, IMAGE)
TOOL_CALLS = Type("[]template.templateToolCall", Kind.SLICE, TOOL_CALL)
MESSAGE = Type(
    "template.templateMessage",
    Kind.STRUCT,
    fields=(
        StructField("Role", STRING),
        StructField("Content", STRING),
        StructField("Thinking", STRING),
        StructField("Images", IMAGES),
        StructField("ToolCalls", TOOL_CALLS),
        StructField("ToolName", STRING),
        StructField("ToolCallID", STRING),
    ),
)
MESSAGE_POINTER = Type("*template.templateMessage", Kind.POINTER, MESSAGE)
MESSAGES = Type("[]*template.templateMessage", Kind.SLICE, MESSAGE_POINTER)


def messages_of(turns: "Sequence[Turn]") -> Slice:
    """The conversation as `.Messages`."""
    return Slice(MESSAGES, [Pointer(MESSAGE_POINTER, _message(turn)) for turn in turns] or None)


def _message(turn: "Turn") -> Struct:
    extra = turn.extra
    return Struct(
        MESSAGE,
        {
            "Role": whole_text(turn.role),
            "Content": whole_text(turn.content),
            "Thinking": _text(extra, "thinking"),
            "Images": _images(extra.get("images")),
            "ToolCalls": _tool_calls(extra.get("tool_calls")),
            "ToolName": _text(extra, "tool_name"),
            "ToolCallID": _text(extra, "tool_call_id"),
        },
    )


def _images(data: object) -> Slice:
    items = [Slice(IMAGE, _image(one)) for one in as_list(data) or ()]
    return Slice(IMAGES, items or None)


def _image(data: object) -> bytes:
    if isinstance(data, str):
        try:
            return base64.b64decode(data)
        except binascii.Error:
            return b""
    return bytes(data) if isinstance(data, bytes | bytearray) else b""


def _tool_calls(data: object) -> Slice:
    calls = [_tool_call(one) for one in _objects(data)]
    return Slice(TOOL_CALLS, calls or None)


def _tool_call(data: Mapping[str, object]) -> Struct:
    function = _object(data, "function")
    index = function.get("index")
    values: dict[str, Value] = {
        "Index": index if isinstance(index, int) and not isinstance(index, bool) else 0,
        "Name": _text(function, "name"),
        "Arguments": _arguments(function.get("arguments")),
    }
    return Struct(TOOL_CALL, {"ID": _text(data, "id"), "Function": Struct(CALL_FUNCTION, values)})


def _arguments(data: object) -> Map:
    """Arguments, which OpenAI's clients write as a text of JSON."""
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except ValueError:
            data = None
    members = as_object(data)
    if members is None:
        return Map(ARGUMENTS, None)
    return Map(ARGUMENTS, {key: from_json(one) for key, one in members.items()})


def tools_of(tools: Sequence[Mapping[str, object]]) -> Slice:
    """What the model may call, as `.Tools`."""
    return Slice(TOOLS, [_tool(one) for one in tools] or None)


def _tool(data: Mapping[str, object]) -> Struct:
    function = _object(data, "function")
    parameters = _object(function, "parameters")
    properties = as_object(parameters.get("properties"))
    items = None if properties is None else _properties(properties)
    parameter_values: dict[str, Value] = {
        "Type": _text(parameters, "type"),
        "Defs": from_json(parameters.get("$defs")),
        "Items": from_json(parameters.get("items")),
        "Required": _texts(parameters.get("required")),
        "Properties": Map(PROPERTIES, items),
    }
    function_values: dict[str, Value] = {
        "Name": _text(function, "name"),
        "Description": _text(function, "description"),
        "Parameters": Struct(PARAMETERS, parameter_values),
    }
    return Struct(
        TOOL,
        {
            "Type": _text(data, "type"),
            "Items": from_json(data.get("items")),
            "Function": Struct(TOOL_FUNCTION, function_values),
        },
    )


def _properties(data: Mapping[str, object]) -> dict[str, Value]:
    return {name: _property(as_object(one) or {}) for name, one in data.items()}


def _property(data: Mapping[str, object]) -> Struct:
    any_of, enum = data.get("anyOf"), data.get("enum")
    choices = [_property(one) for one in _objects(any_of)] if any_of is not None else None
    values: dict[str, Value] = {
        "AnyOf": Slice(PROPERTY.fields[0].type, choices),
        "Type": _types(data.get("type")),
        "Items": from_json(data.get("items")),
        "Description": _text(data, "description"),
        "Enum": from_json(enum) if as_list(enum) is not None else zero_of(ANY_SLICE),
        "Properties": _inner_properties(as_object(data.get("properties"))),
        "Required": _texts(data.get("required")),
    }
    return Struct(PROPERTY, values)


def _inner_properties(data: Mapping[str, object] | None) -> Pointer:
    if data is None:
        return Pointer(INNER_PROPERTIES_POINTER, None)
    held: dict[str, Value] = {"om": Pointer(ORDERED_POINTER, Map(PROPERTY_MAP, _properties(data)))}
    return Pointer(INNER_PROPERTIES_POINTER, Struct(INNER_PROPERTIES, held))


def _types(data: object) -> Slice:
    if isinstance(data, str):
        return Slice(PROPERTY_TYPE, [whole_text(data)])
    return Slice(PROPERTY_TYPE, _texts(data).items)


def _texts(data: object) -> Slice:
    items = as_list(data)
    if items is None:
        return Slice(STRING_SLICE, None)
    return Slice(STRING_SLICE, [whole_text(one) for one in items if isinstance(one, str)])


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    return whole_text(value) if isinstance(value, str) else ""


def _object(data: Mapping[str, object], key: str) -> Mapping[str, object]:
    return as_object(data.get(key)) or {}


def _objects(data: object) -> list[dict[str, object]]:
    found = (as_object(one) for one in as_list(data) or ())
    return [one for one in found if one is not None]
