"""What is wrong with a text that is no JSON, in the words of Go's scanner. Pure.

Called only after decoding has failed, so it may be slow.

Source: Go's `encoding/json` scanner and its `quoteChar`.
"""

MAX_DEPTH = 10_000
EOF = "unexpected EOF"

_SPACE = b" \t\r\n"
_DIGITS = b"0123456789"
_HEX = b"0123456789abcdefABCDEF"
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_VALUE, _KEY = "looking for beginning of value", "looking for beginning of object key string"


class _SyntaxError(Exception):
    """Raised at the byte that cannot stand where it stands; at the end of the text with EOF."""


def syntax_error(data: bytes) -> str | None:
    """The error of the first JSON value in `data`; None if there is none.

    Args:
        data: The body, as it was sent.
    """
    try:
        _Scanner(data).run()
    except _SyntaxError as error:
        return str(error)
    return None


class _Scanner:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._open: list[int] = []

    def run(self) -> None:
        """Read one value; `_open` holds the brackets around the place."""
        while True:
            if self._begins_value():
                continue
            while self._open:
                if self._is_followed():
                    break
            else:
                return

    def _begins_value(self) -> bool:
        """Read a scalar or an opening bracket; True if the first item of the bracket follows."""
        byte = self._next()
        if byte in b"{[":
            self._open.append(byte)
            if len(self._open) > MAX_DEPTH:
                raise self._wrong("exceeded max depth")
            self._at += 1
            if self._next() == byte + 2:  # the closing bracket of either pair
                self._close()
                return False
            if byte == ord("{"):
                self._key()
            return True
        self._scalar(byte)
        return False

    def _is_followed(self) -> bool:
        """After a value inside brackets: True at a comma, False when the bracket closes."""
        byte, opening = self._next(), self._open[-1]
        if byte == opening + 2:
            self._close()
            return False
        is_object = opening == ord("{")
        if byte != ord(","):
            raise self._wrong("after object key:value pair" if is_object else "after array element")
        self._at += 1
        if is_object:
            self._key()
        return True

    def _close(self) -> None:
        self._open.pop()
        self._at += 1

    def _key(self) -> None:
        if self._next() != ord('"'):
            raise self._wrong(_KEY)
        self._string()
        if self._next() != ord(":"):
            raise self._wrong("after object key")
        self._at += 1

    def _scalar(self, byte: int) -> None:
        if byte == ord('"'):
            self._string()
        elif byte == ord("-") or byte in _DIGITS:
            self._number()
        elif byte in _LITERALS:
            self._literal(_LITERALS[byte])
        else:
            raise self._wrong(_VALUE)

    def _string(self) -> None:
        self._at += 1
        while (byte := self._byte()) != ord('"'):
            if byte < 0x20:
                raise self._wrong("in string literal")
            self._at += 1
            if byte == ord("\\"):
                self._escape()
        self._at += 1

    def _escape(self) -> None:
        byte = self._byte()
        if byte not in b'bfnrt\\/"u':
            raise self._wrong("in string escape code")
        self._at += 1
        if byte == ord("u"):
            for _ in range(4):
                self._one_of(_HEX, "in \\u hexadecimal character escape")

    def _number(self) -> None:
        if self._byte() == ord("-"):
            self._at += 1
        starts_with_zero = self._one_of(_DIGITS, "in numeric literal") == ord("0")
        if not starts_with_zero:
            self._digits()
        if self._peek() == ord("."):
            self._at += 1
            self._one_of(_DIGITS, "after decimal point in numeric literal")
            self._digits()
        if self._peek() in (ord("e"), ord("E")):
            self._at += 1
            if self._byte() in b"+-":
                self._at += 1
            self._one_of(_DIGITS, "in exponent of numeric literal")
            self._digits()

    def _digits(self) -> None:
        while (byte := self._peek()) is not None and byte in _DIGITS:
            self._at += 1

    def _literal(self, word: bytes) -> None:
        for byte in word:
            self._one_of(bytes((byte,)), f"in literal {word.decode()} (expecting '{chr(byte)}')")

    def _one_of(self, allowed: bytes, where: str) -> int:
        byte = self._byte()
        if byte not in allowed:
            raise self._wrong(where)
        self._at += 1
        return byte

    def _next(self) -> int:
        """The next byte that is no space."""
        while self._byte() in _SPACE:
            self._at += 1
        return self._byte()

    def _byte(self) -> int:
        byte = self._peek()
        if byte is None:
            raise _SyntaxError(EOF)
        return byte

    def _peek(self) -> int | None:
        return self._data[self._at] if self._at < len(self._data) else None

    def _wrong(self, where: str) -> _SyntaxError:
        return _SyntaxError(f"invalid character {_quoted(self._data[self._at])} {where}")


def _quoted(byte: int) -> str:
    """A byte as Go quotes it: as the Latin-1 character that it is, or escaped."""
    special = {ord("'"): "\\'", ord('"'): '"', ord("\\"): "\\\\"}
    special |= {
        ord(c): e
        for c, e in zip(
            "\a\b\f\n\r\t\v", ("\\a", "\\b", "\\f", "\\n", "\\r", "\\t", "\\v"), strict=True
        )
    }
    if byte in special:
        return f"'{special[byte]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    return f"'{chr(byte)}'" if chr(byte).isprintable() else f"'\\u{byte:04x}'"
