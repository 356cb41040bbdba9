"""Write single values as Go's `fmt` does: booleans, numbers and strings under flags. Pure.

Source: Go `fmt/format.go` and `strconv` (`FormatFloat`, `Quote`).
"""

import math
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

_SHORTEST_PRECISION = 6
"""From this power of ten on `%g` writes an exponent where no precision is given."""


@dataclass(slots=True)
class Flags:
    """What stands between `%` and the verb; None for a width or precision that is not given."""

    plus: bool = False
    minus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    go_syntax: bool = False
    names_fields: bool = False
    width: int | None = None
    precision: int | None = None


def padded(text: str, flags: Flags, *, with_zeros: bool = True) -> str:
    """The text, filled up to the width."""
    missing = (flags.width or 0) - len(text)
    if missing <= 0:
        return text
    if flags.minus:
        return text + " " * missing
    return ("0" if flags.zero and with_zeros else " ") * missing + text


def format_bool(value: bool, flags: Flags) -> str:  # noqa: FBT001 the value itself
    """`true` or `false`."""
    return padded("true" if value else "false", flags)


def format_integer(value: int, base: int, verb: str, flags: Flags) -> str:
    """An integer in a base, with sign, prefix and leading zeros as the flags say."""
    if flags.precision == 0 and value == 0:
        return " " * (flags.width or 0)
    digits = _digits(abs(value), base)
    sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
    n_digits = flags.precision or 0
    if flags.precision is None and flags.zero and not flags.minus and flags.width:
        n_digits = flags.width - len(sign)
    digits = digits.rjust(n_digits, "0")
    if flags.sharp:
        digits = _prefix(base, verb, digits) + digits
    if verb == "O":
        digits = f"0o{digits}"
    digits = digits.upper() if verb == "X" else digits
    return padded(sign + digits, flags, with_zeros=False)


def _digits(value: int, base: int) -> str:
    return format(value, {2: "b", 8: "o", 10: "d", 16: "x"}[base])


def _prefix(base: int, verb: str, digits: str) -> str:
    match base:
        case 2:
            return "0b"
        case 8:
            return "" if digits.startswith("0") else "0"
        case 16:
            return "0X" if verb == "X" else "0x"
        case _:
            return ""


def rune_text(code: int) -> str:
    """The character of a code; one that is no character is U+FFFD."""
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return chr(code)


def format_unicode(value: int, flags: Flags) -> str:
    """`U+0078`, with `#` also the character."""
    value &= (1 << 64) - 1
    text = f"U+{value:0{max(4, flags.precision or 0)}X}"
    if flags.sharp and value <= 0x10FFFF and is_print(rune_text(value)):
        text += f" '{rune_text(value)}'"
    return padded(text, flags, with_zeros=False)


def truncated(text: str, flags: Flags) -> str:
    """The text cut to the precision, in characters."""
    return text if flags.precision is None else text[: flags.precision]


def format_hex(data: bytes, flags: Flags, *, is_upper: bool) -> str:
    """Bytes as two hexadecimal digits each."""
    data = data if flags.precision is None else data[: flags.precision]
    if not data:
        return padded("", Flags(width=flags.width, minus=flags.minus, zero=flags.zero))
    prefix = ("0X" if is_upper else "0x") if flags.sharp else ""
    pieces = [f"{one:02X}" if is_upper else f"{one:02x}" for one in data]
    text = prefix + (f" {prefix}".join(pieces) if flags.space else "".join(pieces))
    return padded(text, flags)


def format_quoted(text: str, flags: Flags) -> str:
    """A string constant, or a raw one with `#` where that can be."""
    text = truncated(text, flags)
    if flags.sharp and can_backquote(text):
        return padded(f"`{text}`", flags)
    return padded(quoted(text, '"', is_ascii=flags.plus), flags)


def can_backquote(text: str) -> bool:
    """Whether a text can stand in a raw string."""
    return all(
        one != "`" and one != "\ufeff" and (one >= " " or one == "\t") and one != "\x7f"
        and not "\ud800" <= one <= "\udfff"
        for one in text
    )  # fmt: skip


_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    "\\": "\\\\",
}  # fmt: skip


def quoted(text: str, quote: str, *, is_ascii: bool = False) -> str:
    """A text as a Go constant."""
    inner = "".join(_quoted_char(one, quote, is_ascii=is_ascii) for one in text)
    return f"{quote}{inner}{quote}"


def _quoted_char(char: str, quote: str, *, is_ascii: bool) -> str:
    if char == quote:
        return f"\\{quote}"
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if is_print(char) and (code < 0x80 or not is_ascii):
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_print(char: str) -> bool:
    """Whether Go takes a character for one that prints."""
    return char == " " or unicodedata.category(char)[0] in "LMNPS"


def shortest_float(value: float) -> tuple[str, int]:
    """The fewest digits that give this number back, and the power of ten of the first one."""
    _, digits, exponent = Decimal(repr(abs(value))).as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    power = len(text) - 1 + int(exponent)
    return (text.rstrip("0") or "0", power if text else 0)


def format_float(value: float, verb: str, default: int | None, flags: Flags) -> str:
    """A float in the notation of a verb, `e`, `f`, `g` or `x`; None is the shortest precision."""
    precision = default if flags.precision is None else flags.precision
    number = float_text(abs(value), verb, precision)
    sign = "-" if math.copysign(1, value) < 0 else "+" if flags.plus else " " * flags.space
    if flags.sharp:
        number = _with_point(number, verb, precision)
    if flags.zero and not flags.minus and flags.width and sign:
        return sign + number.rjust(flags.width - len(sign), "0")
    return padded(sign + number, flags)


def float_text(value: float, verb: str, precision: int | None) -> str:
    """A float that is not negative, as Go's `strconv.FormatFloat`; None is the shortest one."""
    match verb:
        case "e" | "E":
            return _scientific(value, precision, verb)
        case "f":
            return _fixed(value) if precision is None else f"{value:.{precision}f}"
        case "x" | "X":
            return _hexadecimal(value, precision, is_upper=verb == "X")
        case "b":
            mantissa, exponent = math.frexp(value)
            return f"{int(mantissa * (1 << 53))}p{exponent - 53:+d}" if value else "0p-1074"
        case _:
            return _general(value, precision, verb)


def _scientific(value: float, precision: int | None, verb: str) -> str:
    if precision is not None:
        return f"{value:.{precision}{verb}}"
    digits, power = shortest_float(value)
    point = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{point}{verb}{power:+03d}"


def _fixed(value: float) -> str:
    return f"{Decimal(repr(value)):f}".removesuffix(".0")


def _general(value: float, precision: int | None, verb: str) -> str:
    if precision is not None:
        return f"{value:.{max(precision, 1)}{verb}}"
    _, power = shortest_float(value)
    if power < -4 or power >= _SHORTEST_PRECISION:
        return _scientific(value, None, "E" if verb == "G" else "e")
    return _fixed(value)


def _with_point(number: str, verb: str, precision: int | None) -> str:
    """What `#` adds: a decimal point, and zeros up to the precision for `g` and `x`."""
    wanted = (6 if precision is None else precision) if verb in "gGx" else 0
    cut = min((number.find(mark) for mark in "eEpP" if number.find(mark) > 0), default=-1)
    head, tail = (number, "") if cut < 0 or verb in "xX" else (number[:cut], number[cut:])
    n_digits = len(head.replace(".", "").lstrip("0"))
    if "." not in head:
        n_digits += head == "0"
        head += "."
    return head + "0" * max(0, wanted - n_digits) + tail


def _hexadecimal(value: float, precision: int | None, *, is_upper: bool) -> str:
    """`0x1.8p+01`."""
    mantissa, exponent = math.frexp(value)
    exponent, bits = (exponent - 1, int(mantissa * (1 << 53))) if value else (0, 0)
    if precision is not None and precision < 13 and value:
        shift = 4 * (13 - precision)
        half, rest = 1 << (shift - 1), bits & ((1 << shift) - 1)
        bits >>= shift
        bits += rest > half or (rest == half and bits & 1)
        bits <<= shift
        if bits >> 53:
            bits, exponent = bits >> 1, exponent + 1
    digits = f"{bits & ((1 << 52) - 1):013x}"
    digits = digits.rstrip("0") if precision is None else digits.ljust(precision, "0")[:precision]
    text = f"0x{bits >> 52}{'.' if digits else ''}{digits}p{exponent:+03d}"
    return text.upper() if is_upper else text
