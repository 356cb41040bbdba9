"""Read what stands between `{{` and `}}`: pipelines, commands and operands. Pure.

Source: Go `text/template/parse`, `parse.go`.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from localrun.gotemplate.lexer import Token, TokenKind, fail
from localrun.gotemplate.literals import number_of, unquote
from localrun.gotemplate.nodes import (
    Chain,
    Command,
    Constant,
    Dot,
    Field,
    Function,
    NilLiteral,
    Node,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from localrun.gotemplate.values import GoError

MAX_DEPTH = 120
"""Levels of blocks and parentheses; Go takes more, no template needs them."""

_OPERANDS = {
    TokenKind.BOOL, TokenKind.DOT, TokenKind.FIELD, TokenKind.NAME, TokenKind.NUMBER,
    TokenKind.STRING, TokenKind.VARIABLE, TokenKind.LEFT_PAREN,
}  # fmt: skip


@dataclass(slots=True)
class Shared:
    """The tokens, and what all trees of one source have in common."""

    tokens: list[Token]
    functions: Collection[str]
    at: int = 0
    depth: int = 0
    defined: dict[str, tuple[Node, ...]] = field(default_factory=dict[str, tuple[Node, ...]])

    @property
    def now(self) -> Token:
        """The next token."""
        return self.tokens[min(self.at, len(self.tokens) - 1)]

    def take(self) -> Token:
        """Take the next token."""
        token = self.now
        self.at += 1
        return token

    def take_behind_space(self) -> Token:
        """Take the next token that is no blank."""
        self.pass_space()
        return self.take()

    def pass_space(self) -> Token:
        """Pass over blanks; the token behind them is not taken."""
        while self.now.kind == TokenKind.SPACE:
            self.at += 1
        return self.now

    def expect(self, kind: TokenKind, context: str) -> Token:
        """Take a token of this kind."""
        token = self.take_behind_space()
        if token.kind != kind:
            self.unexpected(token, context)
        return token

    def unexpected(self, token: Token, context: str) -> None:
        """Refuse a token."""
        fail(token.line, f"unexpected {token.text[:40]!r} in {context}")

    def define(self, name: str, nodes: tuple[Node, ...]) -> None:
        """Add a template; an empty one gives way to another of its name."""
        old = self.defined.get(name)
        if old is None or is_blank(old):
            self.defined[name] = nodes
        elif not is_blank(nodes):
            fail(self.now.line, f"multiple definition of template {name!r}")

    def enter(self) -> None:
        """Go one level deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            fail(self.now.line, f"nested more than {MAX_DEPTH} levels deep")

    def leave(self) -> None:
        """Come back one level."""
        self.depth -= 1


def is_blank(nodes: tuple[Node, ...]) -> bool:
    """Whether a template has nothing but blanks."""
    return all(isinstance(node, Text) and not node.text.strip() for node in nodes)


class Expressions:
    """The expressions of one template, and the variables it knows."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.variables = ["$"]

    def unquoted(self, token: Token) -> str:
        """The text of a quoted constant."""
        try:
            return unquote(token.text)
        except GoError as error:
            fail(token.line, str(error))

    def pipeline(self, context: str, end: TokenKind) -> Pipeline:
        """Commands and declarations up to a token that ends them."""
        line = self.shared.pass_space().line
        declared, is_assignment = self._declarations(context)
        commands: list[Command] = []
        while (token := self.shared.pass_space()).kind != end:
            if token.kind not in _OPERANDS and token.text != "nil":
                self.shared.unexpected(token, context)
            commands.append(self._command())
        self.shared.at += 1
        if not commands:
            fail(line, f"missing value for {context}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], Constant | Dot | NilLiteral):
                fail(line, f"non executable command in pipeline stage {stage}")
        return Pipeline(tuple(commands), declared, is_assignment, line)

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        names: list[str] = []
        while (variable := self.shared.pass_space()).kind == TokenKind.VARIABLE:
            start = self.shared.at
            self.shared.at += 1
            following = self.shared.pass_space()
            if following.kind not in {TokenKind.ASSIGN, TokenKind.DECLARE} and (
                following.text != "," or following.kind != TokenKind.CHAR
            ):
                self.shared.at = start
                break
            self.shared.at += 1
            names.append(variable.text)
            self.variables.append(variable.text)
            if following.kind != TokenKind.CHAR:
                return tuple(names), following.kind == TokenKind.ASSIGN
            self._check_more(context, len(names))
        return tuple(names), False

    def _check_more(self, context: str, n_names: int) -> None:
        token = self.shared.pass_space()
        if context != "range" or n_names > 1:
            fail(token.line, f"too many declarations in {context}")
        if token.kind not in {TokenKind.VARIABLE, TokenKind.RIGHT, TokenKind.RIGHT_PAREN}:
            fail(token.line, "range can only initialize variables")

    def _command(self) -> Command:
        line = self.shared.pass_space().line
        args: list[Operand] = []
        while True:
            self.shared.pass_space()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self.shared.take()
            if token.kind == TokenKind.SPACE:
                continue
            if token.kind in {TokenKind.RIGHT, TokenKind.RIGHT_PAREN}:
                self.shared.at -= 1
            elif token.kind != TokenKind.PIPE:
                self.shared.unexpected(token, "operand")
            break
        if not args:
            fail(line, "empty command")
        return Command(tuple(args), line)

    def _operand(self) -> Operand | None:
        first = self.shared.now
        term = self._term()
        names: list[str] = []
        while term is not None and self.shared.now.kind == TokenKind.FIELD:
            names.append(self.shared.take().text[1:])
        if not names:
            return term
        if isinstance(term, Field | Variable):
            return type(term)((*term.names, *names))
        if not isinstance(term, Function | Pipeline):
            fail(first.line, f"unexpected . after term {first.text!r}")
        return Chain(term, tuple(names))

    def _term(self) -> Operand | None:
        token = self.shared.take_behind_space()
        match token.kind:
            case TokenKind.FIELD:
                return Field((token.text[1:],))
            case TokenKind.VARIABLE:
                return self._variable(token)
            case TokenKind.NAME:
                if token.text not in self.shared.functions:
                    fail(token.line, f"function {token.text!r} not defined")
                return Function(token.text)
            case TokenKind.LEFT_PAREN:
                self.shared.enter()
                pipe = self.pipeline("parenthesized pipeline", TokenKind.RIGHT_PAREN)
                self.shared.leave()
                return pipe
            case _:
                return self._literal(token)

    def _variable(self, token: Token) -> Variable:
        if token.text not in self.variables:
            fail(token.line, f"undefined variable {token.text!r}")
        return Variable((token.text,))

    def _literal(self, token: Token) -> Operand | None:
        match token.kind:
            case TokenKind.DOT:
                return Dot()
            case TokenKind.BOOL:
                return Constant(token.text == "true")
            case TokenKind.STRING:
                return Constant(self.unquoted(token))
            case TokenKind.NUMBER:
                return self._number(token)
            case TokenKind.KEYWORD if token.text == "nil":
                return NilLiteral()
            case _:
                self.shared.at -= 1
                return None

    def _number(self, token: Token) -> Constant:
        try:
            return Constant(number_of(token.text))
        except (ValueError, OverflowError):
            fail(token.line, f"illegal number syntax: {token.text[:40]!r}")
