"""The functions a template may call: Go's own and Ollama's. Pure.

Source: Go `text/template/funcs.go`, Ollama `template/template.go`.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import quote_plus

from localrun.gotemplate.compare import equal, less
from localrun.gotemplate.format import is_print
from localrun.gotemplate.gojson import to_json
from localrun.gotemplate.printf import Budget, sprintf
from localrun.gotemplate.printing import print_value, sprint, sprintln
from localrun.gotemplate.values import (
    INVALID,
    NIL,
    Byte,
    GoError,
    Kind,
    Map,
    Nothing,
    Pointer,
    Slice,
    Struct,
    Value,
    bytes_text,
    followed,
    is_true,
    text_bytes,
    type_of,
    zero_of,
)

Parameter: TypeAlias = Literal["value", "any", "string"]
"""`value` takes all, even no value; `any` gets an empty interface for it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes: its fixed parameters and that of the rest, if it takes more."""

    call: Callable[[Sequence[Value]], Value]
    fixed: tuple[Parameter, ...]
    rest: Parameter | None = None

    def parameter(self, index: int) -> Parameter:
        """The parameter that the argument of this index is for."""
        if index < len(self.fixed):
            return self.fixed[index]
        return self.rest or "value"


def functions_of(today: datetime.date, budget: Budget) -> Mapping[str, Signature]:
    """Every function by its name; `and` and `or` are part of the language.

    Args:
        today: What `currentDate` writes.
        budget: Limits the text of one call.
    """
    yesterday = today - datetime.timedelta(days=1)

    def limited(write: Callable[[Sequence[Value]], str]) -> Callable[[Sequence[Value]], Value]:
        def call(args: Sequence[Value]) -> Value:
            text = write(args)
            budget(len(text))
            return text

        return call

    def format_all(args: Sequence[Value]) -> str:
        return sprintf(print_value(args[0]), args[1:], budget)

    return {
        **_VALUE_FUNCTIONS,
        "print": Signature(limited(sprint), (), "any"),
        "println": Signature(limited(sprintln), (), "any"),
        "printf": Signature(limited(format_all), ("string",), "any"),
        "html": Signature(limited(escape_html), (), "any"),
        "js": Signature(limited(escape_js), (), "any"),
        "urlquery": Signature(limited(escape_query), (), "any"),
        "json": Signature(limited(lambda args: to_json(args[0])), ("any",)),
        "currentDate": Signature(lambda _: today.isoformat(), (), "string"),
        "yesterdayDate": Signature(lambda _: yesterday.isoformat(), (), "string"),
    }


def length(args: Sequence[Value]) -> Value:
    """Items of a slice or map, bytes of a string."""
    match followed(args[0]):
        case str() as text:
            return len(text_bytes(text))
        case Slice() | Map() as items:
            return len(items)
        case value:
            raise GoError(f"len of {describe(value)}")


def index(args: Sequence[Value]) -> Value:
    """The first argument indexed by the others, one after the other."""
    item = args[0]
    if isinstance(item, Nothing):
        raise GoError("index of untyped nil")
    for key in args[1:]:
        item = _item(followed(item), key)
    return item


def _item(item: Value, key: Value) -> Value:
    match item:
        case str():
            data = text_bytes(item)
            return Byte(data[_position(key, len(data), has_end=False)])
        case Slice():
            return item.values()[_position(key, len(item), has_end=False)]
        case Map():
            return _entry(item, key)
        case _:
            raise GoError(f"can't index item of type {describe(item)}")


def _entry(item: Map, key: Value) -> Value:
    if not isinstance(key, str):
        raise GoError(f"value has type {describe(key)}; should be string")
    found = (item.items or {}).get(key)
    return zero_of(item.type.elem or type_of(NIL)) if found is None else found


def _position(key: Value, size: int, *, has_end: bool) -> int:
    if not isinstance(key, int) or isinstance(key, bool):
        raise GoError(f"cannot index slice/array with {describe(key)}")
    if not 0 <= key <= size - (not has_end):
        raise GoError(f"index out of range: {int(key)}")
    return int(key)


def slice_of(args: Sequence[Value]) -> Value:
    """A part of a string, in bytes, or of a slice, from the second argument to the third."""
    item, limits = followed(args[0]), args[1:]
    if len(limits) > 3:
        raise GoError(f"too many slice indexes: {len(limits)}")
    if not isinstance(item, str | Slice):
        raise GoError(f"can't slice item of type {describe(item)}")
    if isinstance(item, str) and len(limits) == 3:
        raise GoError("cannot 3-index slice a string")
    data = text_bytes(item) if isinstance(item, str) else item.items or ()
    places = [_position(one, len(data), has_end=True) for one in limits]
    start, end = [*places, 0, len(data)][0] if places else 0, len(data)
    end = places[1] if len(places) > 1 else end
    if start > end or (len(places) == 3 and end > places[2]):
        raise GoError(f"invalid slice index: {places}")
    if isinstance(item, str):
        return bytes_text(text_bytes(item)[start:end])
    return Slice(item.type, None if item.items is None else data[start:end])


def describe(value: Value) -> str:
    """A value's type, for a message."""
    return "nil" if isinstance(value, Nothing) else type_of(value).name


def escape_html(args: Sequence[Value]) -> str:
    """Text that can stand in HTML."""
    return _joined(args).translate(_HTML)


_HTML = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def escape_js(args: Sequence[Value]) -> str:
    """Text that can stand in a JavaScript string."""
    return "".join(_js_char(char) for char in _joined(args))


_JS = {
    "\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026",
    "=": "\\u003D",
}  # fmt: skip


def _js_char(char: str) -> str:
    if char in _JS:
        return _JS[char]
    if 0xDC80 <= ord(char) <= 0xDCFF:
        return "\ufffd"
    if char >= " " and (char <= "\x7f" or is_print(char)):
        return char
    return f"\\u{ord(char):04X}"


def escape_query(args: Sequence[Value]) -> str:
    """Text that can stand in the query of a URL."""
    return quote_plus(text_bytes(_joined(args)), safe="-_.~")


def _joined(args: Sequence[Value]) -> str:
    if len(args) == 1 and isinstance(args[0], str):
        return args[0]
    return sprint(["<no value>" if isinstance(arg, Nothing) else followed(arg) for arg in args])


def _refuse_call(args: Sequence[Value]) -> Value:
    raise GoError(f"non-function of type {describe(args[0])}")


def _typescript(args: Sequence[Value]) -> Value:
    value = followed(args[0])
    method = (
        (type_of(value).methods or {}).get("ToTypeScriptType")
        if isinstance(value, Struct)
        else None
    )
    return "any" if method is None else method(value)


def _chained(args: Sequence[Value]) -> Value:
    if len(args) < 2:
        raise GoError("missing argument for comparison")
    return any(equal(args[0], arg) for arg in args[1:])


_VALUE_FUNCTIONS: dict[str, Signature] = {
    "call": Signature(_refuse_call, ("value",), "value"),
    "eq": Signature(_chained, ("value",), "value"),
    "ge": Signature(lambda args: not less(args[0], args[1]), ("value", "value")),
    "gt": Signature(
        lambda args: not (less(args[0], args[1]) or equal(args[0], args[1])), ("value", "value")
    ),
    "index": Signature(index, ("value",), "value"),
    "le": Signature(
        lambda args: less(args[0], args[1]) or equal(args[0], args[1]), ("value", "value")
    ),
    "len": Signature(length, ("value",)),
    "lt": Signature(lambda args: less(args[0], args[1]), ("value", "value")),
    "ne": Signature(lambda args: not equal(args[0], args[1]), ("value", "value")),
    "not": Signature(lambda args: not is_true(args[0]), ("value",)),
    "slice": Signature(slice_of, ("value",), "value"),
    "toTypeScriptType": Signature(_typescript, ("any",)),
}

FUNCTION_NAMES = frozenset(
    {
        *_VALUE_FUNCTIONS, "and", "or", "print", "println", "printf", "html", "js", "urlquery",
        "json", "currentDate", "yesterdayDate",
    }
)  # fmt: skip
"""What a template may call."""

__all__ = ["FUNCTION_NAMES", "INVALID", "Kind", "Pointer", "Signature", "functions_of"]
