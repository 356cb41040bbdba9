"""JSON as models write it → JSON, while it arrives. Pure.

What is mended is what can be read in one way only: a comma before a closing bracket, strings in
single quotes, `True`, `False` and `None`, raw line breaks in strings, a backslash that escapes
nothing, keys without quotes, half a surrogate pair. Everything else is an error: what a model may
have meant by it is a guess.
"""

import re
from enum import Enum, auto

MAX_DEPTH = 64
"""Deeper values are an error; a reader of JSON would run out of stack on them."""
MAX_WORD = 400
"""Characters of a number at most; longer digits cost quadratic time to read."""


class State(Enum):
    """What may come next."""

    VALUE = auto()
    ITEM = auto()
    KEY = auto()
    COLON = auto()
    COMMA = auto()
    STRING = auto()
    WORD = auto()
    DONE = auto()
    FAILED = auto()


class JsonReader:
    """Reads one value that arrives in pieces and writes it as JSON.

    Attributes:
        state: `DONE` behind the value, `FAILED` where it is none.
    """

    def __init__(self, quotes: tuple[str, ...] = ('"', "'")) -> None:
        self.state = State.VALUE
        self._quotes = quotes
        self._closers: list[str] = []
        self._comma = False
        self._word = ""
        self._is_key = False
        self._quote = ""
        self._out: list[str] = []

    def drain(self) -> str:
        """The JSON that has become certain since the last call."""
        out, self._out = "".join(self._out), []
        return out

    def feed(self, text: str, at: int = 0) -> int:
        """Read on from `at`; return where it stopped: the end of `text` or of the value.

        A few characters are left where they can only be read together with the next ones.
        """
        while at < len(text) and self.state not in _OVER:
            before = self.state
            if before is State.STRING:
                end = self._string(text, at)
            elif before is State.WORD:
                end = self._more_word(text, at)
            else:
                end = self._token(text, at)
            if end == at and self.state is before:
                break
            at = end
        return at

    def finish(self) -> None:
        """Nothing follows: a number or word at the end is whole, anything else open has failed."""
        if self.state is State.WORD:
            self._end_word()
        if self.state is not State.DONE:
            self.state = State.FAILED

    def _token(self, text: str, at: int) -> int:
        match = _SPACE.match(text, at)
        assert match is not None
        at = match.end()
        if at == len(text):
            return at
        char = text[at]
        if char in "]})":
            return self._close(char, at)
        if self.state is State.COMMA:
            return self._separator(char, at)
        if self.state is State.COLON:
            self.state = State.VALUE if char == ":" else State.FAILED
            self._out.append(": ")
            return at + 1
        return self._begin(text, at)

    def _separator(self, char: str, at: int) -> int:
        if char != ",":
            self.state = State.FAILED
            return at
        self._comma = True
        self.state = State.KEY if self._closers[-1] == "}" else State.ITEM
        return at + 1

    def _close(self, char: str, at: int) -> int:
        closes = self.state in _MAY_CLOSE and self._closers and self._closers[-1] == char
        if not closes:
            self.state = State.FAILED
            return at
        self._comma = False
        self._closers.pop()
        self._write(char)
        self._after_value()
        return at + 1

    def _begin(self, text: str, at: int) -> int:
        """A value or a key begins."""
        self._is_key = self.state is State.KEY
        for quote in self._quotes:
            if text.startswith(quote, at):
                self._write('"')
                self._quote, self.state = quote, State.STRING
                return at + len(quote)
            if len(text) < at + len(quote) and quote.startswith(text[at:]):
                return at
        if text[at] in "{[" and not self._is_key:
            return self._open(text[at], at)
        if _WORD.match(text, at) is None:
            self.state = State.FAILED
            return at
        self._word, self.state = "", State.WORD
        return self._more_word(text, at)

    def _open(self, char: str, at: int) -> int:
        if len(self._closers) == MAX_DEPTH:
            self.state = State.FAILED
            return at
        self._write(char)
        self._closers.append("}" if char == "{" else "]")
        self.state = State.KEY if char == "{" else State.ITEM
        return at + 1

    def _more_word(self, text: str, at: int) -> int:
        match = _WORD.match(text, at)
        if match is not None:
            self._word += match.group()
            at = match.end()
        if len(self._word) > MAX_WORD:
            self.state = State.FAILED
        elif at < len(text):
            self._end_word()
        return at

    def _end_word(self) -> None:
        word = _WORDS.get(self._word, self._word)
        if self._is_key:
            word = f'"{self._word}"'
        elif word == self._word and _NUMBER.fullmatch(word) is None and word not in _LITERALS:
            self.state = State.FAILED
            return
        self._write(word)
        self._after_value()

    def _string(self, text: str, at: int) -> int:
        pattern = _BODIES.get(self._quote, _BODY)
        match = pattern.match(text, at)
        assert match is not None
        if match.end() > at:
            self._out.append(match.group())
            return match.end()
        if text.startswith(self._quote, at):
            self._out.append('"')
            self._after_value()
            return at + len(self._quote)
        if text[at] == "\\" and len(self._quote) == 1:
            return self._escape(text, at)
        if len(text) < at + len(self._quote) and self._quote.startswith(text[at:]):
            return at
        self._out.append(_escaped(text[at]))
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        if len(text) < at + 2:
            return at
        char = text[at + 1]
        if char == "u":
            return self._unicode(text, at)
        self._out.append(_ESCAPES.get(char, "\\" + char if char in _PLAIN_ESCAPES else "\\\\"))
        return at + (2 if char in _ESCAPES or char in _PLAIN_ESCAPES else 1)

    def _unicode(self, text: str, at: int) -> int:
        match = _UNICODE.match(text, at)
        if match is None:
            if _UNICODE_BEGUN.match(text, at):
                return at
            self._out.append("\\\\")
            return at + 1
        escape = match.group()
        if _SURROGATE.match(escape):
            pair = _PAIR.match(text, at)
            if pair is None:
                if _PAIR_BEGUN.match(text, at):
                    return at
                escape = "\\ufffd"
            else:
                self._out.append(pair.group())
                return pair.end()
        self._out.append(escape)
        return match.end()

    def _write(self, token: str) -> None:
        if self._comma:
            self._out.append(", ")
            self._comma = False
        self._out.append(token)

    def _after_value(self) -> None:
        if self._is_key:
            self._is_key, self.state = False, State.COLON
        else:
            self.state = State.COMMA if self._closers else State.DONE


_OVER = {State.DONE, State.FAILED}
_MAY_CLOSE = {State.COMMA, State.KEY, State.ITEM}
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z0-9_.+$-]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LITERALS = {"true", "false", "null"}
_WORDS = {"True": "true", "False": "false", "None": "null"}
_BODY = re.compile(r'[^"\'\\<\x00-\x1f]*')
_BODIES = {
    '"': re.compile(r'[^"\\\x00-\x1f]*'),
    "'": re.compile(r"[^\"'\\\x00-\x1f]*"),
}
_PLAIN_ESCAPES = '"\\/bfnrt'
_ESCAPES = {"'": "'", "\n": "\\n"}
_UNICODE = re.compile(r"\\u[0-9a-fA-F]{4}")
_UNICODE_BEGUN = re.compile(r"\\u[0-9a-fA-F]{0,3}\Z")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_PAIR_BEGUN = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:\Z|\\(?:\Z|u(?:\Z|[dD](?:\Z|[c-fC-F][0-9a-fA-F]?\Z))))"
)


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return f"\\u{ord(char):04x}" if char < " " else char
