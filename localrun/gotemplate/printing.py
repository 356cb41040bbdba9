"""Print values as Go's `fmt` does. Pure.

Source: Go `fmt/print.go`. A pointer inside another value prints as an address in Go, which differs
from run to run; here it is always the same one.
"""

from collections.abc import Sequence
from dataclasses import replace

from localrun.gotemplate.format import (
    Flags,
    format_bool,
    format_float,
    format_hex,
    format_integer,
    format_quoted,
    format_unicode,
    padded,
    quoted,
    rune_text,
    truncated,
)
from localrun.gotemplate.values import (
    Byte,
    Kind,
    Map,
    Nothing,
    Pointer,
    Slice,
    Struct,
    Value,
    bytes_text,
    is_nil,
    kind_of,
    text_bytes,
    type_of,
)

ADDRESS = 0xC000000000
"""Where every pointer points, as Go's first heap arena begins there."""


def sprint(args: Sequence[Value]) -> str:
    """The values one after the other, with a blank between two that are no strings."""
    pieces: list[str] = []
    for index, arg in enumerate(args):
        if index and not isinstance(arg, str) and not isinstance(args[index - 1], str):
            pieces.append(" ")
        pieces.append(print_value(arg))
    return "".join(pieces)


def sprintln(args: Sequence[Value]) -> str:
    """The values with blanks between them and a line end."""
    return " ".join(print_value(arg) for arg in args) + "\n"


def print_value(value: Value) -> str:
    """One value as `%v`."""
    return value if isinstance(value, str) else Printer(Flags()).arg(value, "v")


class Printer:
    """Prints one argument under the flags of its verb."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self.is_erroring = False

    def arg(self, value: Value, verb: str) -> str:
        """The argument by its verb; a verb that does not fit is said in the text."""
        if isinstance(value, Nothing):
            return padded("<nil>", self.flags) if verb in "Tv" else self.bad(value, verb)
        if verb == "T":
            return padded(truncated(type_of(value).name, self.flags), self.flags)
        if verb == "p":
            return self._pointer(value, verb)
        return self.value(value, verb, 0)

    def value(self, value: Value, verb: str, depth: int) -> str:
        """A value inside so many others."""
        text = self._own_text(value, verb)
        if text is not None:
            return text
        match value:
            case Slice() | Map() | Struct():
                return self._compound(value, verb, depth)
            case Pointer(_, Struct() | Map() as target) if not depth:
                return f"&{self.value(target, verb, depth + 1)}"
            case Pointer():
                return self._pointer(value, verb)
            case Nothing():
                return "interface {}(nil)" if self.flags.go_syntax else "<nil>"
            case _:
                return self._scalar(value, verb)

    def _compound(self, value: Slice | Map | Struct, verb: str, depth: int) -> str:
        if isinstance(value, Slice):
            return self._slice(value, verb, depth)
        if isinstance(value, Map):
            return self._map(value, verb, depth)
        return self._struct(value, verb, depth)

    def _own_text(self, value: Value, verb: str) -> str | None:
        """What the type's `String` method says, where the verb takes a string."""
        is_compound = isinstance(value, Slice | Map | Struct | Pointer)
        if not is_compound or self.is_erroring or self.flags.go_syntax or verb not in "vsxXq":
            return None
        method = type_of(value).text
        return None if method is None else self._string(method(value), verb)

    def _scalar(self, value: Value, verb: str) -> str:
        match value:
            case bool():
                return format_bool(value, self.flags) if verb in "tv" else self.bad(value, verb)
            case int():
                return self._integer(value, verb)
            case float():
                return self._float(value, verb)
            case complex():
                return self._complex(value, verb)
            case str():
                return self._string(value, verb)
            case _:
                return self.bad(value, verb)

    def _integer(self, value: int, verb: str) -> str:
        if verb in _BASES:
            if self.flags.go_syntax and isinstance(value, Byte):
                return self._hex_number(value)
            return format_integer(int(value), _BASES[verb], verb, self.flags)
        match verb:
            case "c":
                return padded(rune_text(value), self.flags)
            case "q":
                text = quoted(rune_text(value), "'", is_ascii=self.flags.plus)
                return padded(text, self.flags)
            case "U":
                return format_unicode(value, self.flags)
            case _:
                return self.bad(value, verb)

    def _hex_number(self, value: int, *, with_prefix: bool = True) -> str:
        return format_integer(int(value), 16, "v", replace(self.flags, sharp=with_prefix))

    def _float(self, value: float, verb: str) -> str:
        if verb not in "vbgGxXfFeE":
            return self.bad(value, verb)
        default = 6 if verb in "fFeE" else None
        letter = {"v": "g", "F": "f"}.get(verb, verb)
        return format_float(value, letter, default, self.flags)

    def _complex(self, value: complex, verb: str) -> str:
        if verb not in "vbgGxXfFeE":
            return self.bad(value, verb)
        signed = Printer(replace(self.flags, plus=True))
        return f"({self._float(value.real, verb)}{signed._float(value.imag, verb)}i)"

    def _string(self, text: str, verb: str) -> str:
        match verb:
            case "v" if self.flags.go_syntax:
                return format_quoted(text, self.flags)
            case "v" | "s":
                return padded(truncated(text, self.flags), self.flags)
            case "x" | "X":
                return format_hex(text_bytes(text), self.flags, is_upper=verb == "X")
            case "q":
                return format_quoted(text, self.flags)
            case _:
                return self.bad(text, verb)

    def _slice(self, value: Slice, verb: str, depth: int) -> str:
        elem = value.type.elem
        if elem is not None and elem.kind == Kind.UINT and verb in "sqxX":
            return self._string(bytes_text(bytes(value.items or b"")), verb)  # type: ignore[arg-type]  # bytes by its type
        if self.flags.go_syntax and value.items is None:
            return f"{value.type.name}(nil)"
        items = [self.value(one, verb, depth + 1) for one in value.values()]
        if self.flags.go_syntax:
            return f"{value.type.name}{{{', '.join(items)}}}"
        return f"[{' '.join(items)}]"

    def _map(self, value: Map, verb: str, depth: int) -> str:
        if self.flags.go_syntax and value.items is None:
            return f"{value.type.name}(nil)"
        items = [
            f"{self._string(key, verb)}:{self.value(one, verb, depth + 1)}"
            for key, one in value.pairs()
        ]
        if self.flags.go_syntax:
            return f"{value.type.name}{{{', '.join(items)}}}"
        return f"map[{' '.join(items)}]"

    def _struct(self, value: Struct, verb: str, depth: int) -> str:
        is_named = self.flags.go_syntax or self.flags.names_fields
        items = [
            f"{f'{one.name}:' if is_named else ''}"
            f"{self.value(value.values[one.name], verb, depth + 1)}"
            for one in value.type.fields
        ]
        if self.flags.go_syntax:
            return f"{value.type.name}{{{', '.join(items)}}}"
        return f"{{{' '.join(items)}}}"

    def _pointer(self, value: Value, verb: str) -> str:
        if kind_of(value) not in {Kind.POINTER, Kind.SLICE, Kind.MAP}:
            return self.bad(value, verb)
        address = 0 if is_nil(value) else ADDRESS
        match verb:
            case "v" if self.flags.go_syntax:
                shown = self._hex_number(address) if address else "nil"
                return f"({type_of(value).name})({shown})"
            case "v" if not address:
                return padded("<nil>", self.flags)
            case "v" | "p":
                return self._hex_number(address, with_prefix=not self.flags.sharp)
            case "b" | "o" | "d" | "x" | "X":
                return self._integer(address, verb)
            case _:
                return self.bad(value, verb)

    def bad(self, value: Value, verb: str) -> str:
        """What is written for a verb that does not fit."""
        if isinstance(value, Nothing):
            return f"%!{verb}(<nil>)"
        was_erroring, self.is_erroring = self.is_erroring, True
        text = f"%!{verb}({type_of(value).name}={self.value(value, 'v', 0)})"
        self.is_erroring = was_erroring
        return text


_BASES = {"v": 10, "d": 10, "b": 2, "o": 8, "O": 8, "x": 16, "X": 16}
