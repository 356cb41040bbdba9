"""Decode a request body as Go's `encoding/json` does, with its words for what is wrong. Pure.

Field names match in any case, unknown fields are ignored, null leaves a field unset, of duplicates
the last wins, and what follows the first value is ignored.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar, cast

from localrun.errors import BadRequest
from localrun.server.schema.syntax import syntax_error
from localrun.server.wire import without_surrogates

T = TypeVar("T")

_SPACE = re.compile(r"[ \t\r\n]*")
_MAX_INT_DIGITS = 20  # with the sign
_KINDS: tuple[tuple[type, str], ...] = ((str, "string"), (list, "array"), (dict, "object"))


class Literal(float):
    """A number that is no Go `int`: it has a fraction or an exponent, or is too large.

    Attributes:
        text: As it was written.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "Literal":
        """Read the number."""
        self = super().__new__(cls, text)
        self.text = text
        return self


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _whole_number(text: str) -> int | Literal:
    if len(text) <= _MAX_INT_DIGITS and -(1 << 63) <= (number := int(text)) < 1 << 63:
        return number
    return Literal(text)


_decoder = json.JSONDecoder(
    parse_constant=_no_constant, parse_int=_whole_number, parse_float=Literal
)


def parse_json(body: bytes) -> object:
    """The first JSON value of a body; invalid UTF-8 and lone surrogates become U+FFFD.

    Raises:
        BadRequest: In Go's words.
    """
    text = body.decode("utf-8", "replace")
    start = _SPACE.match(text)
    at = start.end() if start else 0
    if at == len(text):
        raise BadRequest("missing request body")
    try:
        value, _ = _decoder.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise BadRequest(syntax_error(body) or "exceeded max depth") from error
    return without_surrogates(value) if "\\u" in text else value


def plain(value: object) -> object:
    """A decoded value without `Literal`: what leaves this process holds numbers only."""
    if isinstance(value, Literal):
        return float(value)
    if isinstance(value, list):
        return [plain(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in cast("dict[str, object]", value).items()}
    return value


class Fields:
    """Typed access to the fields of one JSON object; absent and null give None.

    Args:
        value: The decoded object.
        struct: Name of Go's struct, for the words of an error.
        path: Where the object stands in it, with a dot at the end; empty at the top.
        go_type: Go's name of the object's type where it is not the struct's own.
    """

    def __init__(self, value: object, struct: str, path: str = "", go_type: str = "") -> None:
        value = {} if value is None else value  # null leaves all fields unset
        if not isinstance(value, dict):
            place = f"struct field {struct}.{path.rstrip('.')}" if path else "value"
            wanted = go_type or f"api.{struct}"
            raise BadRequest(
                f"json: cannot unmarshal {kind_of(value)} into Go {place} of type {wanted}"
            )
        items = cast("dict[str, object]", value).items()
        self.all: Mapping[str, object] = {key.lower(): item for key, item in items}
        self._struct, self._path = struct, path

    def text(self, name: str) -> str | None:
        """A string."""
        return self._typed(name, str, "string")

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        return self._typed(name, bool, "bool")

    def count(self, name: str) -> int | None:
        """A whole number."""
        value = self.all.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, value, "int")
        return value

    def part(self, name: str, go_type: str, struct: str = "") -> "Fields":
        """The fields of an object in this one; of an empty one if it is absent.

        Args:
            name: Of the field.
            go_type: Go's name of its type.
            struct: Go's struct for the words of an error in it, where it has a decoder of its own.
        """
        path = f"{self._path}{name}."
        Fields(self.all.get(name), self._struct, path, go_type)
        return Fields(self.all.get(name), struct or self._struct, path, go_type)

    def texts(self, name: str) -> list[str] | None:
        """An array of strings."""
        values = self.array(name, "[]string")
        for value in values or ():
            if not isinstance(value, str):
                raise self.wrong(name, value, "string")
        return cast("list[str] | None", values)

    def record(self, name: str) -> dict[str, object] | None:
        """An object, its keys as they are."""
        return cast("dict[str, object] | None", self._typed(name, dict, "map[string]interface {}"))

    def texts_by_name(self, name: str) -> dict[str, str] | None:
        """An object of strings; a null in it is an empty one."""
        values = cast("dict[str, object] | None", self._typed(name, dict, "map[string]string"))
        if values is None:
            return None
        items = values.items()
        for _, value in items:
            if value is not None and not isinstance(value, str):
                raise self.wrong(name, value, "string")
        return {key: value if isinstance(value, str) else "" for key, value in items}

    def array(self, name: str, go_type: str) -> list[object] | None:
        """An array of anything."""
        return cast("list[object] | None", self._typed(name, list, go_type))

    def ints(self, name: str) -> list[int] | None:
        """An array of whole numbers; a null in it is 0."""
        values = self.array(name, "[]int")
        if values is None:
            return None
        values = [0 if value is None else value for value in values]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                raise self.wrong(name, value, "int")
        return cast("list[int]", values)

    def each(
        self, name: str, go_type: str, read: Callable[["Fields"], T], struct: str = ""
    ) -> list[T]:
        """An array of objects, each read by `read`; empty if absent. `struct` as in `part`."""
        values = self.array(name, go_type) or []
        path, item_type = f"{self._path}{name}.", go_type.removeprefix("[]")
        for value in values:
            Fields(value, self._struct, path, item_type)
        return [read(Fields(value, struct or self._struct, path, item_type)) for value in values]

    def _typed(self, name: str, cls: type[T], go_type: str) -> T | None:
        value = self.all.get(name)
        if value is None:
            return None
        if isinstance(value, cls):
            return value
        raise self.wrong(name, value, go_type)

    def wrong(self, name: str, value: object, go_type: str) -> BadRequest:
        """The error of a field that has a value of another type."""
        return BadRequest(
            f"json: cannot unmarshal {kind_of(value, go_type)} into Go struct field"
            f" {self._struct}.{self._path}{name} of type {go_type}"
        )

    _wrong = wrong


def kind_of(value: object, go_type: str = "") -> str:
    """Go's word for the kind of a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        text = value.text if isinstance(value, Literal) else value
        return f"number {text}" if go_type == "int" else "number"
    for kind, word in _KINDS:
        if isinstance(value, kind):
            return word
    return "null"
