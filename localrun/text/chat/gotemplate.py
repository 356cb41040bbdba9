"""Render the simple form of Ollama's Go templates: `.System`, `.Prompt`, `.Response`, `if`. Pure.

Known are the three fields, `{{ if .Field }}…{{ else if .Field }}…{{ else }}…{{ end }}`, comments
and the trim markers `{{-` and `-}}`. Anything else is refused by name: a template that is half
understood gives a model a prompt it was not trained for, and nobody sees why it answers badly.

Source: Ollama `template/template.go` (`Execute`, `collate`, `deleteNode`) in its legacy mode: the
template runs once a turn, and the last run stops behind the first `.Response`, where the model goes
on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from localrun.errors import TemplateFailed, Unsupported
from localrun.messages import Turn

MAX_SOURCE_CHARS = 1 << 20
_MAX_DEPTH = 100
_HINT = "known are .System, .Prompt, .Response, if, else, end, comments and trim markers"

FieldName: TypeAlias = Literal["System", "Prompt", "Response"]


@dataclass(frozen=True, slots=True)
class Text:
    """Words that are written as they stand."""

    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field that is written."""

    name: FieldName


@dataclass(frozen=True, slots=True)
class If:
    """One of two bodies, by whether a field is empty."""

    name: FieldName
    then: "tuple[Node, ...]"
    otherwise: "tuple[Node, ...]"


Node: TypeAlias = Text | Field | If


@dataclass(frozen=True, slots=True)
class Values:
    """What the fields hold in one run."""

    system: str = ""
    prompt: str = ""
    response: str = ""

    def of(self, name: FieldName) -> str:
        """The value of a field."""
        return {"System": self.system, "Prompt": self.prompt, "Response": self.response}[name]


def render_go(source: str, turns: Sequence[Turn]) -> str:
    """Render a conversation up to the point where the model goes on.

    Args:
        source: Go template text.
        turns: The conversation; turns of other roles than system, user and assistant have no
            place in this form and are refused.

    Raises:
        TemplateFailed: If the template is not well formed.
        Unsupported: If it uses more than the simple form; the sentence names what.
    """
    nodes = parse_go(source)
    runs = split_runs(turns)
    head = "".join(_write(nodes, values) for values in runs[:-1])
    return head + _write(cut_behind_response(nodes)[0], runs[-1])


def parse_go(source: str) -> tuple[Node, ...]:
    """Read a template; one that never says where the answer stands gets it at its end.

    Raises:
        TemplateFailed: If the template is not well formed.
        Unsupported: If it uses more than the simple form.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateFailed(f"the template has more than {MAX_SOURCE_CHARS} characters")
    parser = _Parser(_lex(source))
    nodes, ending = parser.body(depth=0)
    if ending is not None:
        raise TemplateFailed(f"the template has an unexpected {{{{ {ending.text} }}}}")
    return nodes if parser.has_response else (*nodes, Field("Response"))


def split_runs(turns: Sequence[Turn]) -> list[Values]:
    """The values of each run of the template: a new run starts where a field would be overwritten.

    Turns of the same role that follow each other are joined with a blank line.

    Raises:
        Unsupported: If a turn has another role than system, user and assistant.
    """
    runs: list[Values] = []
    now = Values()
    for role, content in _joined(turns):
        match role:
            case "system":
                if now.prompt or now.response:
                    runs.append(now)
                    now = Values()
                now = replace(now, system=content)
            case "user":
                if now.response:
                    runs.append(now)
                    now = Values()
                now = replace(now, prompt=content)
            case "assistant":
                now = replace(now, response=content)
            case _:
                raise Unsupported(f"a simple Go template has no place for the role {role!r}")
    return [*runs, now]


def cut_behind_response(nodes: tuple[Node, ...]) -> tuple[tuple[Node, ...], bool]:
    """Everything up to the first written `.Response`, and whether there was one."""
    kept: list[Node] = []
    for node in nodes:
        match node:
            case If(name, then, otherwise):
                then, is_cut = cut_behind_response(then)
                if is_cut:
                    otherwise = ()
                else:
                    otherwise, is_cut = cut_behind_response(otherwise)
                kept.append(If(name, then, otherwise))
            case _:
                kept.append(node)
                is_cut = node == Field("Response")
        if is_cut:
            return tuple(kept), True
    return tuple(kept), False


def _joined(turns: Sequence[Turn]) -> list[tuple[str, str]]:
    joined: list[tuple[str, str]] = []
    for turn in turns:
        if joined and joined[-1][0] == turn.role:
            joined[-1] = (turn.role, f"{joined[-1][1]}\n\n{turn.content}")
        else:
            joined.append((turn.role, turn.content))
    return joined


def _write(nodes: tuple[Node, ...], values: Values) -> str:
    pieces: list[str] = []
    for node in nodes:
        match node:
            case Text(text):
                pieces.append(text)
            case Field(name):
                pieces.append(values.of(name))
            case If(name, then, otherwise):
                pieces.append(_write(then if values.of(name) else otherwise, values))
    return "".join(pieces)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["text", "action"]
    text: str


_ACTION = re.compile(
    r"""
    \{\{ (?P<left> -(?=[ \t\r\n]) )?
    (?: (?P<comment> [ \t\r\n]* /\* .*? \*/ [ \t\r\n]* )
      | (?P<body> (?: "(?:\\.|[^"\\\n])*" | `[^`]*` | [^}"`] | \}(?!\}) )*? )
    )
    (?P<right> (?<=[ \t\r\n])- )? \}\}
    """,
    re.DOTALL | re.VERBOSE,
)
_SPACE = " \t\r\n"


def _lex(source: str) -> list[_Token]:
    """Cut into text and actions; trim markers eat the blanks of the text beside them."""
    tokens: list[_Token] = []
    at, trims = 0, False
    while (start := source.find("{{", at)) >= 0:
        action = _ACTION.match(source, start)
        if action is None:
            raise TemplateFailed("the template has an {{ that is not closed")
        text = source[at:start]
        text = text.lstrip(_SPACE) if trims else text
        text = text.rstrip(_SPACE) if action["left"] else text
        tokens.append(_Token("text", text))
        if action["comment"] is None:
            tokens.append(_Token("action", " ".join(action["body"].split())))
        at, trims = action.end(), action["right"] is not None
    tail = source[at:]
    tokens.append(_Token("text", tail.lstrip(_SPACE) if trims else tail))
    return [token for token in tokens if token.kind == "action" or token.text]


@dataclass(slots=True)
class _Parser:
    tokens: list[_Token]
    at: int = 0
    has_response: bool = field(default=False)

    def body(self, depth: int) -> tuple[tuple[Node, ...], _Token | None]:
        """Nodes up to an `else` or `end` of the level above, which is returned too."""
        if depth > _MAX_DEPTH:
            raise TemplateFailed("the template is nested too deeply")
        nodes: list[Node] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            if token.kind == "text":
                nodes.append(Text(token.text))
            elif token.text == "end" or token.text.split(" ", 1)[0] == "else":
                return tuple(nodes), token
            else:
                nodes.append(self._action(token, depth))
        return tuple(nodes), None

    def _action(self, token: _Token, depth: int) -> Node:
        if token.text.startswith("if "):
            return self._branch(token.text.removeprefix("if "), depth)
        name = _field_name(token.text)
        self.has_response = self.has_response or name == "Response"
        return Field(name)

    def _branch(self, condition: str, depth: int) -> If:
        name = _field_name(condition, within=f"if {condition}")
        then, ending = self.body(depth + 1)
        otherwise: tuple[Node, ...] = ()
        if ending is not None and ending.text.startswith("else if "):
            return If(name, then, (self._branch(ending.text.removeprefix("else if "), depth + 1),))
        if ending is not None and ending.text == "else":
            otherwise, ending = self.body(depth + 1)
        if ending is None or ending.text != "end":
            found = "has no {{ end }}" if ending is None else f"cannot go on with {ending.text!r}"
            raise TemplateFailed(f"the template's {{{{ if {condition} }}}} {found}")
        return If(name, then, otherwise)


def _field_name(text: str, *, within: str = "") -> FieldName:
    match text:
        case ".System":
            return "System"
        case ".Prompt":
            return "Prompt"
        case ".Response":
            return "Response"
        case _:
            raise Unsupported(
                f"this Go template uses {{{{ {within or text} }}}}, which is not supported yet",
                hint=_HINT,
            )
