"""Questions to the tree of a template, and the cut that Ollama makes in it. Pure.

Source: Ollama `template/template.go` (`Identifiers`, `deleteNode`), `thinking/template.go` and
`tools/template.go`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from localrun.gotemplate.nodes import (
    Action,
    Branch,
    Command,
    Field,
    Invocation,
    Node,
    Operand,
    Pipeline,
    Template,
    Text,
    Variable,
)
from localrun.gotemplate.values import GoError


def names_in(template: Template) -> set[str]:
    """Names of all fields and variables that a template uses, in lower case.

    What stands behind parentheses is not seen, as in Ollama.

    Raises:
        GoError: If a template is invoked without a value, which Ollama refuses.
    """
    lists = [template.root, *template.defined.values()]
    return {name.lower() for nodes in lists for node in nodes for name in _names(node)}


def _names(node: Node) -> Iterator[str]:
    match node:
        case Action(pipe):
            yield from _pipe_names(pipe)
        case Branch(_, pipe, body, otherwise):
            yield from _pipe_names(pipe)
            for one in (*body, *(otherwise or ())):
                yield from _names(one)
        case Invocation(name, None):
            raise GoError(f"template {name!r} is invoked without a value")
        case Invocation(_, Pipeline() as pipe):
            yield from _pipe_names(pipe)
        case _:
            return


def _pipe_names(pipe: Pipeline) -> Iterator[str]:
    for command in pipe.commands:
        for arg in command.args:
            match arg:
                case Field(names) | Variable(names):
                    yield from names
                case Pipeline():
                    yield from _pipe_names(arg)
                case _:
                    continue


@dataclass(slots=True)
class _Cut:
    is_cut: bool = False


def cut_behind_response(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Everything up to the first written `.Response`, where the model goes on."""
    return _cut_nodes(nodes, _Cut())


def _cut_nodes(nodes: tuple[Node, ...], cut: _Cut) -> tuple[Node, ...]:
    kept: list[Node] = []
    for node in nodes:
        if cut.is_cut:
            break
        match node:
            case Branch(_, _, body, otherwise):
                body = _cut_nodes(body, cut)
                otherwise = None if otherwise is None else _cut_nodes(otherwise, cut)
                kept.append(replace(node, body=body, otherwise=otherwise))
            case Action(pipe):
                pipe_left = _cut_pipe(pipe, cut)
                kept += [] if pipe_left is None else [Action(pipe_left)]
            case _:
                kept.append(node)
    return tuple(kept)


def _cut_pipe(pipe: Pipeline, cut: _Cut) -> Pipeline | None:
    """The pipeline without what follows `.Response`; None if a command has nothing left."""
    commands: list[Command] = []
    for command in pipe.commands:
        args: list[Operand] = []
        for arg in command.args:
            left = _cut_operand(arg, cut)
            args += [] if left is None else [left]
        if not args:
            return None
        commands.append(replace(command, args=tuple(args)))
    return replace(pipe, commands=tuple(commands))


def _cut_operand(operand: Operand, cut: _Cut) -> Operand | None:
    if isinstance(operand, Field) and "Response" in operand.names:
        cut.is_cut = True
        return operand
    if cut.is_cut:
        return None
    return _cut_pipe(operand, cut) if isinstance(operand, Pipeline) else operand


@dataclass(frozen=True, slots=True)
class Tags:
    """What a template tells of how its model answers.

    Attributes:
        thinking: Text before and after the reasoning; both empty if the template has none.
        tool_call: What a tool call begins with; `{` if the template does not say.
        names: Names of the fields and variables it uses, in lower case.
    """

    thinking: tuple[str, str]
    tool_call: str
    names: frozenset[str]


def thinking_tags(template: Template) -> tuple[str, str]:
    """The texts around `.Thinking` in the loop over `.Messages`."""
    finder = _ThinkingFinder()
    finder.nodes(template.root, is_in_messages=False)
    return finder.opening, finder.closing


@dataclass(slots=True)
class _ThinkingFinder:
    opening: str = ""
    closing: str = ""

    def nodes(self, nodes: Sequence[Node], *, is_in_messages: bool) -> None:
        for node in nodes:
            match node:
                case Action(pipe) | Invocation(_, Pipeline() as pipe):
                    self._pipe(pipe, nodes, is_in_messages=is_in_messages)
                case Branch(keyword, pipe, body, otherwise):
                    is_inside = is_in_messages
                    if keyword == "range":
                        is_inside = any(name == "Messages" for name in _first_names(pipe))
                    self._pipe(pipe, nodes, is_in_messages=is_inside)
                    self.nodes(body, is_in_messages=is_inside)
                    self.nodes(otherwise or (), is_in_messages=is_inside)
                case _:
                    continue

    def _pipe(self, pipe: Pipeline, around: Sequence[Node], *, is_in_messages: bool) -> None:
        if not is_in_messages:
            return
        for name in _first_names(pipe):
            if name != "Thinking":
                continue
            first, last = around[0], around[-1]
            self.opening = first.text.strip() if isinstance(first, Text) else self.opening
            self.closing = last.text.strip() if isinstance(last, Text) else self.closing


def _first_names(pipe: Pipeline) -> Iterator[str]:
    """The first name of each field; what fields are taken from in parentheses is not seen."""
    for command in pipe.commands:
        for arg in command.args:
            match arg:
                case Field(names):
                    yield names[0]
                case Pipeline():
                    yield from _first_names(arg)
                case _:
                    continue


def tool_tag(template: Template) -> str:
    """What a tool call begins with, by the first words under `if .ToolCalls`; `{` if unsaid."""
    body = _tool_call_body(template.root)
    text = _first_text(body) if body is not None else None
    if text is None:
        return "{"
    return text.replace("\r\n", "\n").partition("{")[0].strip() or "{"


def _tool_call_body(nodes: Sequence[Node]) -> Sequence[Node] | None:
    for node in nodes:
        if not isinstance(node, Branch):
            continue
        if node.keyword == "if" and _mentions_tool_calls(node.pipe):
            return node.body
        for part in (node.body, node.otherwise or ()):
            if (found := _tool_call_body(part)) is not None:
                return found
    return None


def _mentions_tool_calls(pipe: Pipeline) -> bool:
    return any(
        isinstance(arg, Field) and "ToolCalls" in arg.names
        for command in pipe.commands
        for arg in command.args
    )


def _first_text(nodes: Sequence[Node]) -> str | None:
    """The first words before anything is written."""
    for node in nodes:
        match node:
            case Text(text) if text.strip():
                return text
            case Branch(_, _, body, otherwise):
                found = _first_text(body)
                return found if found is not None else _first_text(otherwise or ())
            case Action():
                return None
            case _:
                continue
    return None
