"""The constants of a Go template: quoted strings, characters and numbers. Pure.

Source: Go `strconv.Unquote` and `text/template/parse`, `node.go`, `newNumber` with `exec.go`,
`idealConstant`.
"""

import re

from localrun.gotemplate.values import GoError, Value, bytes_text, whole_text

_ESCAPE = re.compile(
    r"""\\(?:
      (?P<simple>[abfnrtv\\'"])
    | (?P<octal>[0-7]{3})
    | x(?P<byte>[0-9a-fA-F]{2})
    | u(?P<short>[0-9a-fA-F]{4})
    | U(?P<long>[0-9a-fA-F]{8})
    )""",
    re.VERBOSE,
)
_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"',
}  # fmt: skip
_MAX_INT, _MAX_UINT = (1 << 63) - 1, (1 << 64) - 1


def unquote(text: str) -> str:
    """The string that a quoted or raw constant stands for.

    Raises:
        GoError: If an escape is none.
    """
    if text[0] == "`":
        return text[1:-1].replace("\r", "")
    pieces: list[bytes] = []
    at, end = 1, len(text) - 1
    while at < end:
        stop = text.find("\\", at, end)
        stop = end if stop < 0 else stop
        pieces.append(text[at:stop].encode("utf-8", "surrogatepass"))
        at = stop
        if at < end:
            data, at = _escape(text, at, quote='"')
            pieces.append(data if isinstance(data, bytes) else chr(data).encode())
    return whole_or_cut(b"".join(pieces))


def whole_or_cut(data: bytes) -> str:
    """The text of a constant's bytes."""
    return bytes_text(data)


def unquote_char(text: str) -> int:
    """The code of a character constant.

    Raises:
        GoError: If it is not one character.
    """
    inner = text[1:-1]
    if inner.startswith("\\"):
        code, end = _escape(text, 1, quote="'")
        if end != len(text) - 1:
            raise GoError(f"malformed character constant: {text}")
        return code[0] if isinstance(code, bytes) else code
    if len(inner) != 1:
        raise GoError(f"malformed character constant: {text}")
    return ord(whole_text(inner))


def _escape(text: str, at: int, *, quote: str) -> tuple[bytes | int, int]:
    """A single byte or the code of a character, and where the escape ends."""
    match = _ESCAPE.match(text, at)
    if match is None or (match["simple"] in {"'", '"'} and match["simple"] != quote):
        raise GoError(f"invalid syntax: {text}")
    if match["simple"]:
        return ord(_SIMPLE[match["simple"]]), match.end()
    if match["octal"] or match["byte"]:
        code = int(match["octal"], 8) if match["octal"] else int(match["byte"], 16)
        if code > 0xFF:
            raise GoError(f"invalid syntax: {text}")
        return bytes([code]), match.end()
    code = int(match["short"] or match["long"], 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise GoError(f"invalid syntax: {text}")
    return code, match.end()


def number_of(text: str) -> Value | None:
    """The value of a number where its type is open; None for one too large for Go's `int`.

    Raises:
        GoError: If it is no number.
    """
    if text[0] == "'":
        return unquote_char(text)
    if text[-1] == "i":
        return _complex(text)
    whole = _integer(text)
    if whole is None:
        value = _float(text)
        if not set(text) & set(".eEpP"):
            raise GoError(f"integer overflow: {text}")
        return value
    is_hex = text[:2].lower() == "0x" and len(text) > 2 and not set(text) & set("pP")
    if set(text) & set(".eEpP") and not is_hex:
        return float(whole)
    return whole if whole <= _MAX_INT else None


def _integer(text: str) -> int | None:
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    if re.fullmatch(r"0_?[0-7](?:_?[0-7])*", digits):
        digits = f"0o{digits[1:]}"
    try:
        value = int(digits, 0)
    except ValueError:
        return None
    value = -value if sign == "-" else value
    return value if -_MAX_INT - 1 <= value <= (_MAX_INT if sign else _MAX_UINT) else None


def _float(text: str) -> float:
    bare = re.sub(r"(?<=[0-9a-fA-FxX])_(?=[0-9a-fA-F])", "", text)
    if "x" in bare.lower():
        if "p" not in bare.lower():
            raise GoError(f"illegal number syntax: {text}")
        value = float.fromhex(bare)
    else:
        value = float(bare)
    if value in {float("inf"), float("-inf")}:
        raise GoError(f"illegal number syntax: {text}")
    return value


def _complex(text: str) -> complex:
    """`2i` or `1+2i`."""
    body = text[:-1]
    cut = max((at for at in range(1, len(body)) if _parts(body, at)), default=0)
    return complex(_float(body[:cut]) if cut else 0.0, _float(body[cut:]))


def _parts(body: str, at: int) -> bool:
    """Whether a sign at this place parts the real from the imaginary number."""
    return body[at] in "+-" and (body[at - 1] not in "eEpP" or body[:2].lower() == "0x")
