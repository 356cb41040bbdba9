"""From the messages of a chat to turns. Pure.

The texts of one message become one turn, with a newline between them, as llama-server joins them;
Ollama makes a turn of each, and loses the id of a tool's answer on the way.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import cast

from localrun.errors import BadRequest
from localrun.messages import Turn
from localrun.server.openai.fields import Body, go_type

_IMAGE_TYPES = ("jpeg", "jpg", "png", "webp")
_THOUGHTS = ("reasoning", "reasoning_content")


def read_turns(messages: Sequence[Body]) -> tuple[Turn, ...]:
    """The conversation; images stand in a turn's `extra` under `images`, in base64.

    Raises:
        BadRequest: If a message cannot be understood, in Ollama's words.
    """
    names: dict[str, str] = {}
    for message in messages:
        for call in message.inners("tool_calls", "[]openai.ToolCall"):
            function = call.inner("function", "openai.ToolCallFunction")
            names[call.text("id") or ""] = (function and function.text("name")) or ""
    return tuple(_read_turn(message, names) for message in messages)


def count_images(turns: Sequence[Turn]) -> int:
    """Images and sounds in a conversation."""
    return sum(len(cast("list[str]", turn.extra.get("images", ()))) for turn in turns)


def _read_turn(message: Body, names: dict[str, str]) -> Turn:
    role = (message.text("role") or "").lower()
    calls = [_read_call(call) for call in message.inners("tool_calls", "[]openai.ToolCall")]
    text, images = _read_content(message, is_optional=bool(calls))
    extra: dict[str, object] = {}
    thoughts = [thought for name in _THOUGHTS if (thought := message.text(name))]
    if thoughts:
        extra["thinking"] = thoughts[0]
    if images:
        extra["images"] = images
    if calls:
        extra["tool_calls"] = calls
    call_id, name = message.text("tool_call_id"), message.text("name")
    if call_id:
        extra["tool_call_id"] = call_id
    if role == "tool":
        extra["tool_name"] = name or names.get(call_id or "", "")
    return Turn(role, text, extra)


def _read_content(message: Body, *, is_optional: bool) -> tuple[str, list[str]]:
    """The text and the images of a message."""
    value = message.all.get("content")
    if isinstance(value, str):
        return value, []
    if value is None and is_optional:
        return "", []
    if not isinstance(value, list):
        raise BadRequest(f"invalid message content type: {go_type(value)}")
    texts: list[str] = []
    images: list[str] = []
    for item in cast("list[object]", value):
        if not isinstance(item, dict):
            raise BadRequest("invalid message format")
        _read_part(cast("dict[str, object]", item), texts, images)
    return "\n".join(texts), images


def _read_part(part: dict[str, object], texts: list[str], images: list[str]) -> None:
    kind = part.get("type")
    if kind in ("text", "refusal"):
        text = part.get(str(kind))
        if not isinstance(text, str):
            raise BadRequest("invalid message format")
        texts.append(text)
    elif kind == "image_url":
        images.append(read_image(part.get("image_url")))
    elif kind == "input_audio":
        images.append(_read_audio(part.get("input_audio")))
    else:
        raise BadRequest("invalid message format")


def read_image(value: object) -> str:
    """The base64 of an image given as a data URL, alone or as `url` of an object.

    Raises:
        BadRequest: If it is none, or lies on another machine.
    """
    url = cast("dict[str, object]", value).get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise BadRequest("invalid message format")
    if url.startswith(("http://", "https://")):
        raise BadRequest(
            "image URLs are not currently supported, please use base64 encoded data instead"
        )
    heads = ("data:;base64,", *(f"data:image/{kind};base64," for kind in _IMAGE_TYPES))
    head = next((head for head in heads if url.startswith(head)), None)
    if head is None or not _is_base64(url[len(head) :]):
        raise BadRequest("invalid image input")
    return url[len(head) :]


def _read_audio(value: object) -> str:
    data = cast("dict[str, object]", value).get("data") if isinstance(value, dict) else None
    if not isinstance(data, str):
        raise BadRequest("invalid input_audio format")
    if not _is_base64(data):
        raise BadRequest("invalid input_audio base64 data")
    return data


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _read_call(body: Body) -> dict[str, object]:
    function = body.inner("function", "openai.ToolCallFunction")
    name = (function and function.text("name")) or ""
    arguments = (function and function.text("arguments")) or ""
    return make_call(body.text("id") or "", name, read_arguments(arguments))


def make_call(call_id: str, name: str, arguments: dict[str, object]) -> dict[str, object]:
    """A call of a tool, as templates know it."""
    call: dict[str, object] = {"id": call_id} if call_id else {}
    return {**call, "type": "function", "function": {"name": name, "arguments": arguments}}


def read_arguments(text: str) -> dict[str, object]:
    """The arguments of a call, which stand in a string.

    Raises:
        BadRequest: If that is no JSON object.
    """
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("invalid tool call arguments") from error
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise BadRequest("invalid tool call arguments")
    return cast("dict[str, object]", arguments)
