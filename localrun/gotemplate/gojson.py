"""Write values as Go's `encoding/json` does. Pure.

Keys of maps are sorted, `<`, `>` and `&` are escaped, and a whole float has no point.
"""

import base64
import json
import math
from collections.abc import Iterable

from localrun.gotemplate.format import float_text
from localrun.gotemplate.values import (
    GoError,
    Kind,
    Map,
    Nothing,
    Pointer,
    Slice,
    Struct,
    StructField,
    Value,
    is_nil,
    is_true,
    type_of,
)

_FROM_POWER, _TO_POWER = 1e-6, 1e21
"""Floats outside these are written with an exponent."""
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_ESCAPED = str.maketrans({**_ESCAPES, **{chr(code): "\\ufffd" for code in range(0xDC80, 0xDD00)}})
"""Go also escapes the sign that stands for a byte of no character."""


def to_json(value: Value) -> str:
    """The value as JSON; empty for one that JSON has no form for, as Ollama drops the error."""
    try:
        return encode(value)
    except GoError:
        return ""


def encode(value: Value) -> str:
    """The value as JSON.

    Raises:
        GoError: If JSON has no form for it.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return _float(value)
        case str():
            return string(value)
        case complex():
            raise GoError("a complex number has no JSON form")
        case Nothing():
            return "null"
        case _:
            return _compound(value)


def string(text: str) -> str:
    """A text as a JSON string."""
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)


def _compound(value: Value) -> str:
    own = type_of(value).json
    if own is not None:
        return own(value)
    match value:
        case _ if is_nil(value):
            return "null"
        case Slice():
            return _slice(value)
        case Map():
            return members(value.pairs())
        case Struct():
            return members(
                (one.json_name or one.name, value.values[one.name])
                for one in value.type.fields
                if not (one.omits_empty and _is_empty(one, value.values[one.name]))
            )
        case Pointer(_, Struct() | Map() as target):
            return encode(target)
        case _:
            raise GoError(f"{value!r} has no JSON form")


def _slice(value: Slice) -> str:
    if isinstance(value.items, bytes):
        return string(base64.b64encode(value.items).decode())
    return f"[{','.join(encode(one) for one in value.values())}]"


def members(pairs: Iterable[tuple[str, Value]]) -> str:
    """An object of these members, in this order."""
    return f"{{{','.join(f'{string(key)}:{encode(one)}' for key, one in pairs)}}}"


def _is_empty(field: StructField, value: Value) -> bool:
    if field.type.kind in {Kind.INTERFACE, Kind.POINTER}:
        return is_nil(value)
    return not isinstance(value, Struct) and not is_true(value)


def _float(value: float) -> str:
    size = abs(value)
    sign = "-" if math.copysign(1, value) < 0 else ""
    if size and not _FROM_POWER <= size < _TO_POWER:
        text = float_text(size, "e", None)
        mantissa, _, power = text.partition("e")
        # Go writes e-9 for e-09, but leaves positive powers alone.
        power = f"-{power[2:]}" if power.startswith("-0") else power
        return f"{sign}{mantissa}e{power}"
    return sign + float_text(size, "f", None)
