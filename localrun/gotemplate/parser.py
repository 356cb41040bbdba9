"""Read a Go template into its tree. Pure.

Source: Go `text/template/parse`, `parse.go`.
"""

from collections.abc import Collection
from typing import Literal, TypeAlias, cast

from localrun.errors import TemplateFailed
from localrun.gotemplate.expressions import Expressions, Shared
from localrun.gotemplate.lexer import HINT, Token, TokenKind, fail, tokens_of
from localrun.gotemplate.nodes import (
    Action,
    Branch,
    Invocation,
    Jump,
    Node,
    Template,
    Text,
)

MAX_SOURCE_CHARS = 1 << 20
Keyword: TypeAlias = Literal["if", "with", "range"]
Closing: TypeAlias = Literal["end", "else", "else if", "else with", ""]


def parse(source: str, functions: Collection[str]) -> Template:
    """The tree of a template.

    Args:
        source: Go template text.
        functions: Names of the functions it may call.

    Raises:
        TemplateFailed: If it is not well formed; the sentence says in which line.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateFailed(f"the template has more than {MAX_SOURCE_CHARS} characters", hint=HINT)
    shared = Shared(tokens_of(source), functions)
    root, closing = _Tree(shared).nodes(is_top=True)
    if closing:
        fail(shared.now.line, f"unexpected {{{{{closing}}}}}")
    shared.define("", root)
    return Template(shared.defined.pop("", ()), shared.defined)


class _Tree(Expressions):
    """Parses one template; those inside it, by `define` and `block`, have a tree of their own."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.range_depth = 0

    def nodes(self, *, is_top: bool = False) -> tuple[tuple[Node, ...], Closing]:
        """Nodes up to the `end` or `else` of the level above, which is told."""
        self.shared.enter()
        nodes: list[Node] = []
        while (token := self.shared.take()).kind != TokenKind.END:
            if token.kind == TokenKind.TEXT:
                nodes.append(Text(token.text))
                continue
            if token.kind != TokenKind.LEFT:
                self.shared.unexpected(token, "input")
            found = self._action(is_top=is_top)
            if isinstance(found, str):
                self.shared.leave()
                return tuple(nodes), found
            nodes += found
        if not is_top:
            fail(token.line, "unexpected end of the template, an {{end}} is missing")
        self.shared.leave()
        return tuple(nodes), ""

    def _action(self, *, is_top: bool) -> list[Node] | Closing:
        token = self.shared.pass_space()
        if token.kind != TokenKind.KEYWORD or token.text == "nil":
            return [Action(self.pipeline("command", TokenKind.RIGHT))]
        self.shared.at += 1
        match token.text:
            case "if" | "with" | "range":
                return [self._branch(token.text)]
            case "end" | "else":
                return self._closing(token.text)
            case "break" | "continue":
                return [self._jump(token)]
            case "define":
                if not is_top:
                    self.shared.unexpected(token, "command")
                return self._define()
            case _:
                return [self._invocation(token)]

    def _closing(self, word: str) -> Closing:
        token = self.shared.pass_space()
        if word == "else" and token.kind == TokenKind.KEYWORD and token.text in {"if", "with"}:
            return cast("Closing", f"else {token.text}")
        self.shared.expect(TokenKind.RIGHT, word)
        return cast("Closing", word)

    def _jump(self, token: Token) -> Jump:
        self.shared.expect(TokenKind.RIGHT, token.text)
        if not self.range_depth:
            fail(token.line, f"{{{{{token.text}}}}} outside {{{{range}}}}")
        return Jump("break" if token.text == "break" else "continue")

    def _branch(self, keyword: Keyword) -> Branch:
        n_variables = len(self.variables)
        pipe = self.pipeline(keyword, TokenKind.RIGHT)
        self.range_depth += keyword == "range"
        body, closing = self.nodes()
        self.range_depth -= keyword == "range"
        otherwise = None if closing == "end" else self._otherwise(keyword, closing)
        del self.variables[n_variables:]
        return Branch(keyword, pipe, body, otherwise)

    def _otherwise(self, keyword: Keyword, closing: Closing) -> tuple[Node, ...]:
        if closing == f"else {keyword}":
            self.shared.enter()
            self.shared.at += 1
            nested = self._branch(keyword)
            self.shared.leave()
            return (nested,)
        nodes, closing = self.nodes()
        if closing != "end":
            fail(self.shared.now.line, f"expected end; found {closing}")
        return nodes

    def _define(self) -> list[Node]:
        name = self._template_name(self.shared.take_behind_space(), "define clause")
        self.shared.expect(TokenKind.RIGHT, "define clause")
        self._define_body(name)
        return []

    def _define_body(self, name: str) -> None:
        nodes, closing = _Tree(self.shared).nodes()
        if closing != "end":
            fail(self.shared.now.line, f"unexpected {closing} in template {name!r}")
        self.shared.define(name, nodes)

    def _invocation(self, token: Token) -> Invocation:
        context = f"{token.text} clause"
        name = self._template_name(self.shared.take_behind_space(), context)
        if token.text == "block":
            pipe = self.pipeline(context, TokenKind.RIGHT)
            self._define_body(name)
            return Invocation(name, pipe, token.line)
        if self.shared.pass_space().kind == TokenKind.RIGHT:
            self.shared.at += 1
            return Invocation(name, None, token.line)
        return Invocation(name, self.pipeline(context, TokenKind.RIGHT), token.line)

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind != TokenKind.STRING:
            self.shared.unexpected(token, context)
        return self.unquoted(token)
