"""Cut the source of a Go template into tokens. Pure.

Source: Go `text/template/parse`, `lex.go`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from localrun.errors import TemplateFailed

HINT = "correct the template; its language is that of Go's text/template"


class TokenKind(StrEnum):
    """What a token is."""

    TEXT = "text"
    LEFT = "{{"
    RIGHT = "}}"
    SPACE = "space"
    ASSIGN = "="
    DECLARE = ":="
    PIPE = "|"
    LEFT_PAREN = "("
    RIGHT_PAREN = ")"
    CHAR = "character"
    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"
    DOT = "."
    FIELD = "field"
    VARIABLE = "variable"
    KEYWORD = "keyword"
    NAME = "name"
    END = "end of the template"


KEYWORDS = frozenset(
    "block break continue define else end if nil range template with".split()  # noqa: SIM905 a list of words reads better
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the source and the line it begins in."""

    kind: TokenKind
    text: str
    line: int


def fail(line: int, message: str) -> NoReturn:
    """End with an error that says where."""
    raise TemplateFailed(f"the template's line {line}: {message}", hint=HINT)


_SPACES = " \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]+")
_COMMENT = re.compile(r"(?:-[ \t\r\n])?/\*")
_RIGHT = re.compile(r"(?P<trim>[ \t\r\n]-)?\}\}")
_QUOTES = {
    '"': re.compile(r'"(?:\\[^\n]|[^"\\\n])*"'),
    "'": re.compile(r"'(?:\\[^\n]|[^'\\\n])*'"),
    "`": re.compile(r"`[^`]*`"),
}
_NUMBER = re.compile(
    r"""[+-]?
    (?: 0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?
      | 0[oO][0-7_]*(?:\.[0-7_]*)?
      | 0[bB][01_]*(?:\.[01_]*)?
      | [0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?
    ) i?""",
    re.VERBOSE,
)
_SINGLE = {
    "=": TokenKind.ASSIGN,
    "|": TokenKind.PIPE,
    "(": TokenKind.LEFT_PAREN,
    ")": TokenKind.RIGHT_PAREN,
}


def tokens_of(source: str) -> list[Token]:
    """All tokens of a template; the last one is its end.

    Raises:
        TemplateFailed: If an action, a comment, a constant or a parenthesis is not closed, or a
            character has no meaning where it stands.
    """
    return _Lexer(source).run()


def _is_word(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()


class _Lexer:
    def __init__(self, source: str) -> None:
        self.source, self.at, self.line = source, 0, 1
        self.tokens: list[Token] = []
        self.depth = 0

    def run(self) -> list[Token]:
        trims = False
        while (start := self.source.find("{{", self.at)) >= 0:
            trims_before = self.source[start + 2 : start + 3] == "-" and (
                self.source[start + 3 : start + 4] in set(_SPACES)
            )
            self._text(start, trims_left=trims, trims_right=trims_before)
            is_comment = _COMMENT.match(self.source, start + 2) is not None
            trims = self._comment() if is_comment else self._action(trims_before)
        self._text(len(self.source), trims_left=trims, trims_right=False)
        self._emit(TokenKind.END, len(self.source))
        return self.tokens

    def _text(self, end: int, *, trims_left: bool, trims_right: bool) -> None:
        text = self.source[self.at : end]
        if trims_left:
            stripped = text.lstrip(_SPACES)
            self._skip(self.at + len(text) - len(stripped))
            text = stripped
        if trims_right:
            text = text.rstrip(_SPACES)
        if text:
            self._emit(TokenKind.TEXT, self.at + len(text))
        self._skip(end)

    def _comment(self) -> bool:
        """Pass over a comment; whether it trims what follows."""
        end = self.source.find("*/", self.source.index("/*", self.at) + 2)
        if end < 0:
            fail(self.line, "unclosed comment")
        closing = _RIGHT.match(self.source, end + 2)
        if closing is None:
            fail(self.line, "comment ends before closing delimiter")
        self._skip(closing.end())
        return closing["trim"] is not None

    def _action(self, trims_before: bool) -> bool:  # noqa: FBT001 a positional of a private method
        """Read one action; whether it trims what follows."""
        first_line = self.line
        self._emit(TokenKind.LEFT, self.at + 2)
        self._skip(self.at + (2 if trims_before else 0))
        self.depth = 0
        while (closing := _RIGHT.match(self.source, self.at)) is None:
            if self.at >= len(self.source):
                fail(first_line, "unclosed action")
            self._inside()
        if self.depth:
            fail(self.line, "unclosed left paren")
        self._skip(closing.end() - 2)
        self._emit(TokenKind.RIGHT, closing.end())
        return closing["trim"] is not None

    def _inside(self) -> None:
        char = self.source[self.at]
        if char in _SPACES:
            self._space()
        elif char in _SINGLE:
            self.depth += {"(": 1, ")": -1}.get(char, 0)
            if self.depth < 0:
                fail(self.line, "unexpected right paren")
            self._emit(_SINGLE[char], self.at + 1)
        elif char in _QUOTES:
            self._quoted(char)
        elif char == ":":
            if not self.source.startswith(":=", self.at):
                fail(self.line, "expected :=")
            self._emit(TokenKind.DECLARE, self.at + 2)
        else:
            self._operand(char)

    def _operand(self, char: str) -> None:
        following = self.source[self.at + 1 : self.at + 2]
        is_digit = "0" <= char <= "9"
        if char == "$" or (char == "." and not ("0" <= following <= "9" and following)):
            self._field(char)
        elif char in ".+-" or is_digit:
            self._number()
        elif _is_word(char):
            self._word()
        elif " " <= char <= "~":
            self._emit(TokenKind.CHAR, self.at + 1)
        else:
            fail(self.line, f"unrecognized character in action: {char!r}")

    def _space(self) -> None:
        match = _SPACE.match(self.source, self.at)
        end = match.end() if match else self.at
        if _RIGHT.match(self.source, end - 1) and self.source[end : end + 1] == "-":
            end -= 1  # The last blank belongs to the trim marker.
        if end > self.at:
            self._emit(TokenKind.SPACE, end)

    def _quoted(self, quote: str) -> None:
        match = _QUOTES[quote].match(self.source, self.at)
        if match is None:
            fail(self.line, f"unterminated {quote}")
        kind = TokenKind.NUMBER if quote == "'" else TokenKind.STRING
        self._emit(kind, match.end())

    def _number(self) -> None:
        end = self._number_end(self.at)
        if self.source[end : end + 1] in {"+", "-"}:
            end = self._number_end(end)
            if self.source[end - 1] != "i":
                fail(self.line, f"bad number syntax: {self.source[self.at : end]!r}")
        self._emit(TokenKind.NUMBER, end)

    def _number_end(self, at: int) -> int:
        match = _NUMBER.match(self.source, at)
        end = match.end() if match else at
        if _is_word(self.source[end : end + 1] or " "):
            fail(self.line, f"bad number syntax: {self.source[self.at : end + 1]!r}")
        return end

    def _field(self, first: str) -> None:
        end = self._word_end(self.at + 1)
        if first == "$":
            kind = TokenKind.VARIABLE
        else:
            kind = TokenKind.DOT if end == self.at + 1 else TokenKind.FIELD
        self._emit(kind, end)

    def _word(self) -> None:
        end = self._word_end(self.at)
        word = self.source[self.at : end]
        if word in KEYWORDS:
            kind = TokenKind.KEYWORD
        else:
            kind = TokenKind.BOOL if word in {"true", "false"} else TokenKind.NAME
        self._emit(kind, end)

    def _word_end(self, at: int) -> int:
        """The end of a word, behind which only certain characters may stand."""
        while at < len(self.source) and _is_word(self.source[at]):
            at += 1
        following = self.source[at : at + 1]
        if following and following not in " \t\r\n.,|:)(" and self.source[at : at + 2] != "}}":
            fail(self.line, f"bad character {following!r}")
        return at

    def _emit(self, kind: TokenKind, end: int) -> None:
        self.tokens.append(Token(kind, self.source[self.at : end], self.line))
        self._skip(end)

    def _skip(self, end: int) -> None:
        self.line += self.source.count("\n", self.at, end)
        self.at = end
