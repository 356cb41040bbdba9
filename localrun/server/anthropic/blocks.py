"""Content blocks of Anthropic's messages, and the turns that templates know. Pure.

Blocks of types that are not known here are left aside, as Ollama does.

Source: `convertMessage` in Ollama's anthropic package: texts are joined without a separator, and
results of tools come before the text of the same message.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from localrun.errors import BadRequest, Unsupported
from localrun.messages import Turn
from localrun.server.schema.decode import kind_of

_Block: TypeAlias = Mapping[str, object]

_ROLES = ("user", "assistant", "system")


def text_of_system(value: object) -> str:
    """The system prompt, from a text or from blocks of text."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise BadRequest("system must be a string or an array of text blocks")
    return "".join(
        _text(block)
        for block in _blocks(cast("list[object]", value))
        if block.get("type") == "text"
    )


def read_turns(messages: Sequence[object]) -> tuple[tuple[Turn, ...], int]:
    """The turns of all messages, and the number of images in them.

    Raises:
        BadRequest: If a block lacks what it needs.
        Unsupported: If a source lies where we do not fetch from.
    """
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for index, message in enumerate(messages):
        turns += _read_message(index, message, names)
    return tuple(turns), sum(len(turn.extra.get("images", ())) for turn in turns)


@dataclass(slots=True)
class _Gathered:
    """What the blocks of one message hold."""

    names: dict[str, str]
    texts: list[str] = field(default_factory=list[str])
    images: list[str] = field(default_factory=list[str])
    thinking: list[str] = field(default_factory=list[str])
    calls: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    results: list[Turn] = field(default_factory=list[Turn])

    def turns(self, role: str) -> list[Turn]:
        extra: dict[str, object] = {}
        if self.thinking:
            extra["thinking"] = "".join(self.thinking)
        if self.images:
            extra["images"] = self.images
        if self.calls:
            extra["tool_calls"] = self.calls
        text = "".join(self.texts)
        own = [Turn(role, text, extra)] if text or extra or not self.results else []
        return self.results + own if role == "user" else own + self.results


def _read_message(index: int, value: object, names: dict[str, str]) -> list[Turn]:
    if not isinstance(value, dict):
        raise BadRequest(
            f"json: cannot unmarshal {kind_of(value)} into Go struct field"
            " MessagesRequest.messages of type anthropic.MessageParam"
        )
    message = cast("dict[str, object]", value)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise BadRequest(f"messages.{index}.role must be one of {', '.join(_ROLES)}")
    gathered = _Gathered(names)
    if isinstance(content, str):
        gathered.texts.append(content)
    elif isinstance(content, list):
        for block in _blocks(cast("list[object]", content)):
            if reader := _READERS.get(str(block.get("type"))):
                reader(gathered, block)
    elif content is not None:
        raise BadRequest(
            f"messages.{index}.content must be a string or an array, not {kind_of(content)}"
        )
    return gathered.turns(role.lower())


def _blocks(values: Sequence[object]) -> list[_Block]:
    for value in values:
        if not isinstance(value, dict):
            raise BadRequest(
                f"json: cannot unmarshal {kind_of(value)} into Go value"
                " of type anthropic.ContentBlock"
            )
    return cast("list[_Block]", values)


def _text(block: _Block, name: str = "text") -> str:
    value = block.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    raise BadRequest(
        f"json: cannot unmarshal {kind_of(value)} into Go struct field"
        f" ContentBlock.{name} of type string"
    )


def _read_text(gathered: _Gathered, block: _Block) -> None:
    gathered.texts.append(_text(block))


def _read_thinking(gathered: _Gathered, block: _Block) -> None:
    gathered.thinking.append(_text(block, "thinking"))


def _read_image(gathered: _Gathered, block: _Block) -> None:
    gathered.images.append(_image(block))


def _read_searched(gathered: _Gathered, block: _Block) -> None:
    gathered.texts.append(_searched(block))


def _read_document(gathered: _Gathered, block: _Block) -> None:
    gathered.texts.append(_document(block))


def _read_call(gathered: _Gathered, block: _Block) -> None:
    call_id, name = _text(block, "id"), _text(block, "name")
    for field_name, value in (("id", call_id), ("name", name)):
        if not value:
            raise BadRequest(f"tool_use block missing required '{field_name}' field")
    arguments: object = block.get("input") or dict[str, object]()
    if not isinstance(arguments, dict):
        raise BadRequest(f"the input of tool_use {call_id} must be an object")
    gathered.names[call_id] = name
    gathered.calls.append({"id": call_id, "function": {"name": name, "arguments": arguments}})


def _read_result(gathered: _Gathered, block: _Block) -> None:
    call_id = _text(block, "tool_use_id")
    text, images = _result_content(block.get("content"))
    extra: dict[str, object] = {"tool_call_id": call_id}
    if name := gathered.names.get(call_id):
        extra["tool_name"] = name
    if images:
        extra["images"] = images
    gathered.results.append(Turn("tool", text, extra))


def _result_content(content: object) -> tuple[str, list[str]]:
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise BadRequest("the content of a tool_result must be a string or an array of blocks")
    texts: list[str] = []
    images: list[str] = []
    for block in _blocks(cast("list[object]", content)):
        kind = block.get("type")
        if kind == "image":
            images.append(_image(block))
        elif maker := _TEXTS.get(str(kind)):
            texts.append(maker(block))
    return "".join(texts), images


def _searched(block: _Block) -> str:
    """A search result as text: where it is from, then what it says."""
    content = block.get("content")
    found = _blocks(cast("list[object]", content)) if isinstance(content, list) else []
    body = "".join(map(_text, found))
    return f"{_text(block, 'title')}\n{_text(block, 'source')}\n{body}\n"


def _document(block: _Block) -> str:
    source = _source(block, "document")
    if source.get("type") == "text":
        text = _text(source, "data")
    elif source.get("type") == "content":
        text, images = _result_content(source.get("content"))
        if images:
            raise Unsupported("images inside documents are not supported")
    else:
        raise Unsupported(
            f"a document of source type {str(source.get('type'))[:20]!r} is not supported",
            hint="send its text, as a source of type text",
        )
    head = [_text(block, name) for name in ("title", "context")]
    return "\n".join([*filter(None, head), text, ""])


def _image(block: _Block) -> str:
    source = _source(block, "image")
    if source.get("type") != "base64":
        raise BadRequest(
            f"invalid image source type: {str(source.get('type'))[:20]}."
            " Only base64 images are supported."
        )
    data = _text(source, "data")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"invalid base64 image data: {error}") from error
    return data


def _source(block: _Block, what: str) -> _Block:
    source = block.get("source")
    if not isinstance(source, dict):
        raise BadRequest(f"invalid {what} source")
    return cast("_Block", source)


_TEXTS: Mapping[str, Callable[[_Block], str]] = {
    "text": _text,
    "document": _document,
    "search_result": _searched,
}
"""Blocks that become text, also inside the result of a tool."""

_READERS: Mapping[str, Callable[[_Gathered, _Block], None]] = {
    "text": _read_text,
    "thinking": _read_thinking,
    "image": _read_image,
    "document": _read_document,
    "search_result": _read_searched,
    "tool_use": _read_call,
    "server_tool_use": _read_call,
    "tool_result": _read_result,
}
