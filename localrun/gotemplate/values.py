"""The values a template works on, with as much of Go's types as a template can see. Pure.

Go prints, compares and counts by type, so a template's text depends on it: a missing entry of a map
is not an absent value, a number of a JSON argument is a float, and the length of a string is its
bytes. Strings that are cut inside a character carry the odd bytes as surrogates, as in Python's
`surrogateescape`; `clean_text` gives what a reader of the bytes sees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class GoError(ValueError):
    """Raised when Go would refuse a value; it never leaves this package."""


class Kind(StrEnum):
    """What a value is made of, as Go's `reflect.Kind`."""

    INVALID = "invalid"
    INTERFACE = "interface"
    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    FLOAT = "float"
    COMPLEX = "complex"
    STRING = "string"
    SLICE = "slice"
    MAP = "map"
    STRUCT = "struct"
    POINTER = "pointer"


@dataclass(eq=False, slots=True)
class Type:
    """A Go type.

    Attributes:
        name: As `%T` prints it.
        kind: What its values are made of.
        elem: Type of the items of a slice or map, or what a pointer points to.
        fields: Of a struct, in order.
        text: The type's `String` method, by which its values are printed.
        json: The type's `MarshalJSON` method.
        methods: Further methods without arguments.
    """

    name: str
    kind: Kind
    elem: "Type | None" = None
    fields: "tuple[StructField, ...]" = ()
    text: "Callable[[Value], str] | None" = None
    json: "Callable[[Value], str] | None" = None
    methods: "Mapping[str, Callable[[Value], Value]] | None" = None

    def field_of(self, name: str) -> "StructField | None":
        """The field of this name, if the type has one."""
        return next((one for one in self.fields if one.name == name), None)


@dataclass(frozen=True, slots=True)
class StructField:
    """One field of a struct type, and how it is written as JSON."""

    name: str
    type: Type
    json_name: str = ""
    omits_empty: bool = False


class Nothing(Enum):
    """Go's two ways of having no value."""

    INVALID = "no value"
    NIL = "an interface that holds nothing"


INVALID, NIL = Nothing.INVALID, Nothing.NIL


class Byte(int):
    """A `uint8`, which is what indexing a string gives."""


@dataclass(eq=False, slots=True)
class Slice:
    """A slice; `items` is None for Go's nil slice. Bytes are kept as `bytes`."""

    type: Type
    items: "Sequence[Value] | bytes | None"

    def __len__(self) -> int:
        return len(self.items or ())

    def values(self) -> "list[Value]":
        """The items as values."""
        if isinstance(self.items, bytes):
            return [Byte(one) for one in self.items]
        return list(self.items or ())


@dataclass(eq=False, slots=True)
class Map:
    """A map with strings as keys; `items` is None for Go's nil map."""

    type: Type
    items: "dict[str, Value] | None"

    def __len__(self) -> int:
        return len(self.items or ())

    def pairs(self) -> "list[tuple[str, Value]]":
        """Keys and values, sorted by key: Go's templates, prints and JSON all do that."""
        return sorted((self.items or {}).items(), key=lambda pair: pair[0])


@dataclass(eq=False, slots=True)
class Struct:
    """A struct; every field of its type has a value."""

    type: Type
    values: "dict[str, Value]"


@dataclass(eq=False, slots=True)
class Pointer:
    """A pointer to a struct or map; `target` is None for nil."""

    type: Type
    target: "Struct | Map | None"


Value: TypeAlias = (
    bool | int | float | complex | str | Byte | Slice | Map | Struct | Pointer | Nothing
)

ANY = Type("interface {}", Kind.INTERFACE)
BOOL = Type("bool", Kind.BOOL)
INT = Type("int", Kind.INT)
UINT8 = Type("uint8", Kind.UINT)
FLOAT64 = Type("float64", Kind.FLOAT)
COMPLEX128 = Type("complex128", Kind.COMPLEX)
STRING = Type("string", Kind.STRING)
ANY_SLICE = Type("[]interface {}", Kind.SLICE, ANY)
STRING_SLICE = Type("[]string", Kind.SLICE, STRING)
ANY_MAP = Type("map[string]interface {}", Kind.MAP, ANY)

_PLAIN_TYPES: dict[type, Type] = {
    bool: BOOL,
    int: INT,
    Byte: UINT8,
    float: FLOAT64,
    complex: COMPLEX128,
    str: STRING,
}


def type_of(value: Value) -> Type:
    """The type of a value that is one; an empty interface's is its own."""
    if isinstance(value, Slice | Map | Struct | Pointer):
        return value.type
    return ANY if isinstance(value, Nothing) else _PLAIN_TYPES[type(value)]


def kind_of(value: Value) -> Kind:
    """What a value is made of; no value at all is `INVALID`."""
    return Kind.INVALID if value is INVALID else type_of(value).kind


def zero_of(type_: Type) -> Value:
    """The zero value of a type, which Go gives for what is not in a map."""
    match type_.kind:
        case Kind.SLICE:
            return Slice(type_, None)
        case Kind.MAP:
            return Map(type_, None)
        case Kind.POINTER:
            return Pointer(type_, None)
        case Kind.STRUCT:
            return Struct(type_, {one.name: zero_of(one.type) for one in type_.fields})
        case _:
            return _PLAIN_ZEROS.get(type_.kind, NIL)


_PLAIN_ZEROS: dict[Kind, Value] = {
    Kind.BOOL: False,
    Kind.INT: 0,
    Kind.UINT: Byte(0),
    Kind.FLOAT: 0.0,
    Kind.COMPLEX: 0j,
    Kind.STRING: "",
}


def is_true(value: Value) -> bool:
    """Whether `if` takes a value: not the zero of its type; a struct always."""
    match value:
        case Nothing():
            return False
        case Slice() | Map():
            return len(value) > 0
        case Struct():
            return True
        case Pointer():
            return value.target is not None
        case _:
            return bool(value)


def followed(value: Value) -> Value:
    """What a pointer points to; a nil pointer is given back."""
    if isinstance(value, Pointer) and value.target is not None:
        return value.target
    return value


def is_nil(value: Value) -> bool:
    """Whether Go calls a value nil."""
    match value:
        case Nothing():
            return True
        case Slice() | Map():
            return value.items is None
        case Pointer():
            return value.target is None
        case _:
            return False


def from_json(data: object) -> Value:
    """What Go's JSON decoder makes of decoded JSON: every number is a float."""
    match data:
        case bool() | float():
            return data
        case str():
            return whole_text(data)
        case int():
            return float(data)
        case _ if (items := as_list(data)) is not None:
            return Slice(ANY_SLICE, [from_json(one) for one in items])
        case _ if (members := as_object(data)) is not None:
            return Map(ANY_MAP, {key: from_json(one) for key, one in members.items()})
        case _:
            return NIL


def as_list(data: object) -> "Sequence[object] | None":
    """Decoded JSON as a list, if it is one."""
    return cast("Sequence[object]", data) if isinstance(data, list | tuple) else None


def as_object(data: object) -> "dict[str, object] | None":
    """Decoded JSON as an object, if it is one."""
    if not isinstance(data, Mapping):
        return None
    members = cast("Mapping[object, object]", data)
    return {whole_text(str(key)): one for key, one in members.items()}


def whole_text(text: str) -> str:
    """The text with lone surrogates, which are no text, replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_bytes(text: str) -> bytes:
    """The bytes of a text that may have been cut inside a character."""
    return text.encode("utf-8", "surrogateescape")


def bytes_text(data: bytes) -> str:
    """The text of bytes that may have been cut inside a character."""
    return data.decode("utf-8", "surrogateescape")


def clean_text(text: str) -> str:
    """The text with every byte that belongs to no character replaced."""
    if text.isascii():
        return text
    again = bytes_text(text_bytes(text))
    return "".join("\ufffd" if "\udc80" <= one <= "\udcff" else one for one in again)
