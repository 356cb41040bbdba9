"""How a parser tells of a tool call: begun, its arguments as they come, done or broken. Pure."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from localrun.output.pieces import (
    CallArguments,
    CallBegun,
    CallBroken,
    CallDone,
    Content,
    Piece,
    Thinking,
)
from localrun.output.shapes import object_in

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_call_id() -> str:
    """A fresh id: `call_` and eight of a-z and 0-9."""
    return "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))


class Tools:
    """What the model may call, by name."""

    def __init__(self, tools: Sequence[Mapping[str, object]]) -> None:
        self._parameters: dict[str, Mapping[str, object]] = {}
        self._strict: set[str] = set()
        for tool in tools:
            function = object_in(tool.get("function", tool)) or {}
            if isinstance(name := function.get("name"), str) and name:
                self._parameters[name] = object_in(function.get("parameters")) or {}
                if function.get("strict") is True:
                    self._strict.add(name)

    def __bool__(self) -> bool:
        return bool(self._parameters)

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    @property
    def names(self) -> tuple[str, ...]:
        """In the client's order."""
        return tuple(self._parameters)

    def parameters(self, name: str) -> Mapping[str, object]:
        """The JSON schema of a tool's arguments; empty for an unknown tool."""
        return self._parameters.get(name, {})

    def is_strict(self, name: str) -> bool:
        """The client wants the arguments to hold to every word of the schema, or a refusal."""
        return name in self._strict

    def only(self, name: str) -> "Tools":
        """This tool alone."""
        tools = Tools(())
        tools._parameters = {name: self.parameters(name)}
        tools._strict = self._strict & {name}
        return tools

    def known(self, name: str) -> str:
        """The name without what some models put around it (`functions.`), if that is a tool."""
        bare = name.strip().removeprefix("functions.")
        return bare if bare in self._parameters else name.strip()


class Call:
    """One call while it is read. Writes pieces as soon as they are certain."""

    def __init__(
        self, index: int, new_id: Callable[[], str], write: Callable[[Piece], None]
    ) -> None:
        self._index = index
        self._new_id, self._id = new_id, ""
        self._write = write
        self._name = ""
        self._parts: list[str] = []

    @property
    def has_begun(self) -> bool:
        """The name has been told."""
        return bool(self._name)

    @property
    def has_arguments(self) -> bool:
        """Some of the arguments have been written."""
        return bool(self._parts)

    def begin(self, name: str) -> None:
        """Tell the name, and what is known of the arguments."""
        self._name, self._id = name, self._new_id()
        self._write(CallBegun(self._index, self._id, name))
        if self._parts:
            self._write(CallArguments(self._index, "".join(self._parts)))

    def arguments(self, text: str) -> None:
        """More JSON of the arguments."""
        if text:
            self._parts.append(text)
            if self._name:
                self._write(CallArguments(self._index, text))

    def done(self) -> bool:
        """The arguments are complete; False, and nothing told, if they are no JSON object."""
        if not self._parts:
            self.arguments("{}")
        arguments = json_object("".join(self._parts))
        if arguments is None or not self._name:
            return False
        self._write(CallDone(self._index, self._id, self._name, arguments))
        return True

    def broken(self, raw: str) -> None:
        """It will not become complete."""
        self._write(CallBroken(self._index, raw))


def json_object(text: str) -> dict[str, object] | None:
    """The object that `text` is as JSON; None if it is something else."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


class Output:
    """Gathers the pieces of one answer and owns what white space is kept.

    White space at the end of a text is held back until more of that text follows, because around
    a marker it belongs to the format and not to the reader.

    Attributes:
        has_content: Words for the reader came since the last marker.
    """

    def __init__(self, new_id: Callable[[], str] = new_call_id) -> None:
        self._pieces: list[Piece] = []
        self._new_id = new_id
        self._n_calls = 0
        self._blank: list[str] = []
        self._trims = False
        self._kind: type[Content | Thinking] = Content
        self._index = -1
        self._parts: list[str] = []
        self.has_content = False

    def drain(self) -> list[Piece]:
        """All pieces since the last call; neighbours of one kind joined."""
        self._close()
        pieces, self._pieces = self._pieces, []
        return pieces

    def call(self) -> Call:
        """The next call. Its index is taken once it begins."""
        return Call(self._n_calls, self._new_id, self._told)

    def content(self, text: str) -> None:
        """Words for the reader."""
        self._text(Content, text)

    def thinking(self, text: str) -> None:
        """Words of the reasoning."""
        self._text(Thinking, text)

    def border(self) -> None:
        """A marker: the white space on both sides of it is dropped."""
        self._blank, self._trims, self.has_content = [], True, False

    def end(self) -> None:
        """The completion is over: white space at its end is its own."""
        blank, self._blank = "".join(self._blank), []
        if blank and not self._trims:
            self._add(self._kind, -1, blank)

    def _text(self, kind: type[Content | Thinking], text: str) -> None:
        """Tell what of `text` is not white space at its end."""
        kept = text.rstrip()
        if not kept:
            self._blank.append(text)
            return
        blank = "".join(self._blank)
        self._blank = [text[len(kept) :]] if len(kept) < len(text) else []
        if self._trims:
            blank, kept, self._trims = "", kept.lstrip(), False
        self.has_content = self.has_content or kind is Content
        self._add(kind, -1, blank + kept if blank else kept)

    def _add(self, kind: type[Content | Thinking], index: int, text: str) -> None:
        """More of the text of a piece (of arguments, if there is an index), joined when read."""
        if kind is not self._kind or index != self._index:
            self._close()
            self._kind, self._index = kind, index
        self._parts.append(text)

    def _close(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts = []
            is_text = self._index < 0
            self._pieces.append(self._kind(text) if is_text else CallArguments(self._index, text))

    def _told(self, piece: Piece) -> None:
        if isinstance(piece, CallArguments):
            self._add(self._kind, piece.index, piece.text)
            return
        if isinstance(piece, CallBegun):
            self.border()
            self._n_calls += 1
        self._close()
        self._pieces.append(piece)
